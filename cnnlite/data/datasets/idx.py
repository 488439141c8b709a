"""MNIST and its family: images and labels in IDX files, raw or compressed.

Format: http://yann.lecun.com/exdb/mnist (LeCun, Cortes & Burges 1998).
"""

import gzip
import itertools
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, Source, digest, sources
from cnnlite.errors import DataError, StorageError
from cnnlite.runtime import machine
from cnnlite.utils.files import opened, read_small
from cnnlite.utils.hints import Override
from cnnlite.utils.printable import has_codes, is_text
from cnnlite.utils.text import size_text
from cnnlite.utils.types import Array

_NAME = re.compile(
    r"(?:(?P<set>.+)[-_.])?(?P<part>train|t10k|test)[-_.](?P<what>images|labels)[-_.]idx(?P<axes>[13])[-_.]ubyte(\.gz)?",
    re.IGNORECASE,
)
_BYTES = 0x08
"""Type of the numbers in the third byte of a file: unsigned bytes, as all of the family have."""
_AXES = {"images": 3, "labels": 1}
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
_LARGEST_MAPPING = 2**16


class _Files(NamedTuple):
    """Files of one set, by part and content; ``prefix`` is what their names begin with."""

    prefix: str
    paths: dict[tuple[str, str], Path]


@sources.register("idx")
class Idx(Source):
    """MNIST, Fashion-MNIST, KMNIST, EMNIST and others in their files, raw or .gz: grey images, labels from 0 on.

    ``data.root`` is the folder that holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and the same with
    ``t10k`` or ``test`` in place of ``train``; names may have a prefix, as those of EMNIST, and dots for dashes. The
    last sixth of the training images is for validation: 10,000 of MNIST. EMNIST has the rows of its images as columns;
    they are turned back. Its classes have the names in its mapping file, where there is one, else their numbers.

    Args:
        prefix: beginning of the names, such as ``emnist-letters``, where the folder holds several sets.
        transpose: exchange rows and columns of images; if left out, where the prefix begins with ``emnist``.
    """

    def __init__(self, prefix: str | None = None, transpose: bool | None = None):
        self.prefix = prefix
        self.transpose = transpose

    def load(self, root: Path) -> Dataset:
        files = self._find(root)
        is_emnist = files.prefix.casefold().startswith("emnist")
        transpose = is_emnist if self.transpose is None else self.transpose
        train, test = (_read_part(files, part, transpose=transpose) for part in ("train", "test"))
        if train[0].shape[1:] != test[0].shape[1:]:
            sizes = " and ".join(f"{shape[1]}x{shape[2]}" for shape in (train[0].shape, test[0].shape))
            raise DataError(f"{root}: training and test images are of different sizes, {sizes}")
        numbers = np.unique(train[1])
        if strange := np.setdiff1d(test[1], numbers).tolist():
            path = files.paths["test", "labels"]
            raise DataError(f"{path}: holds labels {strange[0]}, of which there are no images to train on")
        classes = _names(files, numbers.tolist())
        both = [Images(images, np.searchsorted(numbers, labels)) for images, labels in (train, test)]
        name = files.prefix or root.resolve().name
        return Dataset(name, both[0], None, both[1], classes, digest(both, classes), len(both[0]) // 6)

    def _find(self, root: Path) -> _Files:
        """Find the files of one set, in ``root`` or in a folder ``raw`` there."""
        for folder in (root, root / "raw"):
            sets: dict[str, dict[tuple[str, str], Path]] = {}
            try:
                names = sorted(os.listdir(folder), reverse=True)  # raw files after, and instead of, compressed ones
            except OSError as error:
                if folder == root:
                    raise DataError(f"{root}: cannot be opened: {error.strerror or error}") from None
                continue
            for found in filter(None, map(_NAME.fullmatch, names)):
                part, what = found["part"].casefold(), found["what"].casefold()
                if int(found["axes"]) == _AXES[what]:
                    key = "train" if part == "train" else "test", what
                    sets.setdefault(found["set"] or "", {})[key] = folder / found[0]
            if sets:
                return self._choose(folder, sets)
        raise DataError(
            f"{root}: holds no files called like train-images-idx3-ubyte, t10k-labels-idx1-ubyte.gz or "
            "emnist-letters-train-images-idx3-ubyte"
        )

    def _choose(self, folder: Path, sets: dict[str, dict[tuple[str, str], Path]]) -> _Files:
        known = ", ".join(sorted(sets))
        if self.prefix is not None and self.prefix not in sets:
            raise DataError(f"{folder}: holds no files whose names begin with {self.prefix}; there are: {known}")
        if self.prefix is None and len(sets) > 1:
            hint = Override(f"data.dataset.idx.prefix={max(sets)}")
            raise DataError(f"{folder}: holds several sets, {known}; choose one: {hint}")
        prefix = next(iter(sets)) if self.prefix is None else self.prefix
        paths = sets[prefix]
        missing = [" ".join(key) for key in itertools.product(("train", "test"), _AXES) if key not in paths]
        if missing:
            raise DataError(f"{folder}: {prefix}{' ' * bool(prefix)}files of {', '.join(missing)} are missing")
        return _Files(prefix, paths)


def _read_part(files: _Files, part: str, *, transpose: bool) -> tuple[Array, Array]:
    """Read images, uint8 (N, H, W, 1), and labels, int64 (N,), of a part."""
    images, labels = (_read(files.paths[part, what], axes) for what, axes in _AXES.items())
    if len(images) != len(labels):
        path = files.paths[part, "labels"]
        raise DataError(f"{path}: {len(labels):,} labels for {len(images):,} images")
    if transpose:
        images = images.transpose(0, 2, 1)
    return np.ascontiguousarray(images)[..., None], labels.astype(np.int64)


def _read(path: Path, axes: int) -> Array:
    """Read an array of bytes with so many axes."""
    try:
        with opened(path) as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            with gzip.open(file) if packed else file as content:
                return _array(path, content, axes)
    except EOFError:
        raise DataError(f"{path}: is cut short") from None
    except zlib.error as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _array(path: Path, file: BinaryIO | gzip.GzipFile, axes: int) -> Array:
    magic = file.read(4)
    if magic != (wanted := bytes([0, 0, _BYTES, axes])):
        raise DataError(
            f"{path}: begins with {magic.hex(' ') or 'nothing'}, not {wanted.hex(' ')}; it is no such IDX file"
        )
    head = file.read(4 * axes)
    if len(head) < 4 * axes:
        raise DataError(f"{path}: is cut short")
    shape = struct.unpack(f">{axes}I", head)
    size = math.prod(shape)
    if not size:
        raise DataError(f"{path}: holds nothing: its shape is {shape}")
    if size > machine.memory() // 2:
        raise StorageError(f"{path}: would take {size_text(size)} of memory, for an array of {shape}")
    content = bytearray()
    while len(content) <= size and (piece := file.read(min(_CHUNK, size + 1 - len(content)))):
        content += piece  # piece by piece: a header may announce anything
    if len(content) != size:
        what = "is cut short" if len(content) < size else "goes on"
        raise DataError(
            f"{path}: {what}: {shape} takes {size:,} bytes" + f", {len(content):,} are there" * (len(content) < size)
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _names(files: _Files, numbers: list[int]) -> tuple[str, ...]:
    """Name the classes after the characters in EMNIST's mapping file, ``number code [code]`` a line, or by number."""
    path = files.paths["train", "labels"].parent / f"{files.prefix}-mapping.txt"
    try:
        lines = read_small(path, _LARGEST_MAPPING).decode().split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return tuple(map(str, numbers))
    try:
        rows = [[int(word) for word in line.split()] for line in lines if line.strip()]
        names = {number: "".join(map(chr, codes)) for number, *codes in rows}
        classes = tuple(names[number] for number in numbers)
    except (ValueError, OverflowError, KeyError):
        classes = ()
    if len(set(classes)) != len(numbers) or any(not name or has_codes(name) or not is_text(name) for name in classes):
        raise DataError(f"{path}: does not name each of the labels; mend or remove it")
    return classes
