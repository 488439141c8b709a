"""Datasets and their sources, and the registry in which configs find them; `splits` divides them."""

import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from cnnlite.data.datasets.tree import listed
from cnnlite.data.frames import Frame
from cnnlite.errors import ConfigError, DataError, Problem
from cnnlite.runtime import engine
from cnnlite.utils.files import place
from cnnlite.utils.hints import Argument, Download
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array, Shape

DIGEST_CHUNK = 4 * 1024 * 1024


class DatasetMissing(DataError):  # noqa: N818 (named for the case)
    """There is no dataset in the folder; ``dataset`` and ``root`` say what to download, and to where."""

    def __init__(self, dataset: str, root: Path):
        self.dataset = dataset
        self.root = root
        hint = f"name its folder with {Argument('data')}, or get it with {Download(dataset, str(root))}"
        super().__init__(f"{root.absolute()}: no {dataset} here; {hint}")


class OtherClasses(DataError):  # noqa: N818 (named for the case)
    """The dataset at ``place`` has other classes than a network was trained on."""

    def __init__(self, place: str | os.PathLike[str], classes: Sequence[str], own: Sequence[str]):
        whose = "has other classes than the network was trained on"
        super().__init__(f"{place}: {whose}: {listed(classes)}, not {listed(own)}")


@dataclass(frozen=True)
class Images:
    """Labelled images: ``images`` uint8 ``(N, H, W, C)`` and ``labels`` int64 ``(N,)``."""

    images: Array
    labels: Array

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, H, W, C), not {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int64 {self.images.shape[:1]}, not {self.labels.dtype} {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Array | slice) -> "Images":
        """Select images by an index array (a copy) or a slice (a view)."""
        return Images(self.images[which], self.labels[which])


class Sliced(Protocol):
    """Labelled images of which a slice at a time is in memory."""

    def __len__(self) -> int: ...

    def take(self, which: slice, /) -> Images:
        """Select the images of a slice."""


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test images, all of the same shape."""

    name: str
    train: Images
    validation: Images | None
    test: Images
    classes: tuple[str, ...]
    digest: str
    """SHA-256 of the source's arrays: the same whatever the split and the crop."""
    held_out: int = 0
    """Number of training images, the last ones, that are for validation unless a config says otherwise."""
    above: Array | None = None
    """Fraction above which each training image is for validation, in descending order; see `splits.turns`.

    None where the images have no names: a fraction is drawn at random then.
    """
    has_validation: bool = False
    """True if the source itself says which images to validate with; others would be training images then."""
    has_test: bool = True
    """False if nothing says which images are for the test, so that they were drawn from all."""


class Source(ABC):
    """Source of a dataset; the constructor takes the options a config may set."""

    in_shape: Shape | None = None
    """Shape of an image, (H, W, C), where it is known without the files: a network is checked against it before."""
    class_count: ClassVar[int | None] = None
    """Number of classes, where it is known without the files."""
    reads_files: ClassVar[bool] = True
    """False if the images are made by code, so that there is no folder to read them from."""

    @abstractmethod
    def load(self, root: Path) -> Dataset:
        """Load all training and test images, unsplit: ``validation`` is None, and ``held_out`` says how to split.

        Raises:
            DatasetMissing: if ``root`` does not hold the dataset.
            DataError: if it is damaged.
        """

    def reading_only(self, classes: tuple[str, ...], *, some: bool = False) -> "Source":
        """Return the same source for an untrusted checkpoint of these classes: loading writes no named file.

        A dataset that would take long to load is refused with OtherClasses if it has other classes; with ``some``, if
        none of them is among ``classes``. Parts and classes that could not be trained on, as they have too few images,
        are accepted.
        """
        return self

    def checked_by(self, check: Callable[[Shape, int], object]) -> "Source":
        """Return the same source, for which ``check`` may refuse shape and classes, by number, before images are read.

        Sources that know them without the files, or read these in no time, need not call it.
        """
        return self

    def names(self, root: Path, indices: Sequence[int]) -> list[str]:
        """Return the names of some of the training images, in the order of `load`; none if images have no names."""
        return []

    @property
    def underlying(self) -> "Source":
        """The source whose files are read: itself, unless it makes a dataset of another one."""
        return self

    @classmethod
    def framed(cls, frame: Frame) -> "Source":
        """Return a source for evaluation whose pictures of any size are fitted to ``frame``, if it has such.

        Raises:
            DataError: if there is no such source.
        """
        return cls()

    @property
    def frame(self) -> Frame | None:
        """Frame that makes other pictures as large as these images; None if only the files tell their size."""
        if self.in_shape is None:
            return None
        height, width, channels = self.in_shape
        return Frame(height, width, channels=channels)


sources: Registry[Source] = Registry("dataset", Source)  # type: ignore[type-abstract]


def refuse_unread(source: Source, root: str | None) -> None:
    """Refuse a folder that somebody asks for where ``source`` reads none; ConfigError then."""
    if root is not None and not source.underlying.reads_files:
        name = sources.name_of(type(source.underlying))
        raise ConfigError(f"{Argument('data', root)}: {name} makes its images by code and reads no files; leave it out")


def default_root() -> Path:
    """Default folder of datasets: the environment variable CNNLITE_DATA, or ``data``; ConfigError if not usable."""
    try:
        return Path(place(os.environ.get("CNNLITE_DATA") or "data"))
    except ValueError as error:
        raise ConfigError([Problem("CNNLITE_DATA", str(error))]) from None


def center(images: Array, size: int) -> Array:
    """View of the centre square of images ``(N, H, W, C)``; an odd margin leaves the larger half below and right."""
    height, width = images.shape[1:3]
    if not 0 < size <= min(height, width):
        raise ValueError(f"cannot take the centre {size}x{size} of {height}x{width} images")
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]


def digest(parts: list[Images], classes: tuple[str, ...]) -> str:
    """Compute the SHA-256 of the content: of shapes, class names, and the SHA-256s of pieces of the arrays.

    The pieces have a fixed size, so that cores can share the work and the digest does not depend on how they do.
    """
    total = hashlib.sha256(repr(classes).encode())
    for part in parts:
        for array in (part.images, part.labels.astype("<i8", copy=False)):
            total.update(repr((array.dtype.str, array.shape)).encode())
            for piece in _piece_digests(np.ascontiguousarray(array).reshape(-1).view(np.uint8)):
                total.update(piece)
    return total.hexdigest()


def _piece_digests(flat: Array) -> list[bytes]:
    pieces = [flat[start : start + DIGEST_CHUNK] for start in range(0, flat.size, DIGEST_CHUNK)]

    def hash_pieces(start: int, stop: int) -> list[bytes]:
        return [hashlib.sha256(piece.data).digest() for piece in pieces[start:stop]]

    return list(itertools.chain.from_iterable(engine.for_blocks(hash_pieces, len(pieces), DIGEST_CHUNK)))
