"""Images of another dataset than a network was trained on, matched to its classes by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, OtherClasses, center
from cnnlite.data.datasets.tree import listed
from cnnlite.data.fingerprints import Chosen, trained_on
from cnnlite.data.frames import Frame
from cnnlite.data.images import fit_images
from cnnlite.errors import ConfigError
from cnnlite.utils.types import Array, Shape

Split: TypeAlias = Literal["test", "validation", "train", "all"]
_UNKNOWN = -1


@dataclass(frozen=True)
class Others:
    """Images as a network takes them, made from others when they are taken."""

    images: Chosen
    labels: Array
    """Class of the network for each class of the images."""
    frame: Frame
    """Scaling and cropping of images of other sizes."""
    in_shape: Shape
    """Shape of the images that the network takes, (H, W, C): those of ``frame``, or their centre."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, which: slice) -> Images:
        """Copy the images that a slice selects."""
        part = self.images.take(which)
        return Images(self._fit(part.images), self.labels[part.labels])

    def _fit(self, images: Array) -> Array:
        if images.shape[1:] != self.frame.shape:
            images = fit_images(images, self.frame)
        if self.frame.shape != self.in_shape:
            images = np.ascontiguousarray(center(images, self.in_shape[0]))
        return images


@dataclass(frozen=True)
class Matched:
    """Images of a dataset of which a network knows the classes."""

    images: Others
    split: Split
    unknown: dict[str, int]
    """Number of images that are left out, by their class, which the network does not know."""
    missing: list[str]
    """Classes of the network without images."""

    trained_on: int | None
    """Number of images that the network has trained on, pixel for pixel; None if that is not known."""

    def facts(self) -> dict[str, Any]:
        """Return what is left out, missing and not new as an object for JSON."""
        return {"unknown_classes": self.unknown, "missing_classes": self.missing, "trained_on": self.trained_on}

    def warnings(self) -> Iterator[str]:
        """Say what is left out, missing and not new."""
        if left := sum(self.unknown.values()):
            named = listed(f"{name} ({count:,})" for name, count in self.unknown.items())
            total = left + len(self.images)
            yield f"{left:,} of {total:,} images are in no figure, as the network does not know their classes: {named}"
        if self.missing:
            yield f"there are no images of these classes of the network: {listed(self.missing)}"
        if self.trained_on:
            count = f"{self.trained_on:,} of the {len(self.images):,} images"
            yield f"{count} are those that it has trained on, pixel for pixel"


def match(
    dataset: Dataset,
    split: Split | None,
    classes: Sequence[str],
    frame: Frame,
    in_shape: Shape,
    before: Mapping[str, Array] = MappingProxyType({}),
) -> Matched:
    """Match the images of a split, ``all`` or one that the dataset itself has, to the classes of a network by name.

    Without ``split``, the test images where the dataset says which they are, else all. Images are fitted to ``frame``,
    and cut to ``in_shape``, (H, W, C). ``before`` has the fingerprints of those that the network has seen.

    Raises:
        ConfigError: If the dataset has no such split.
        OtherClasses: If no image is of a class that the network knows.
    """
    parts = _parts(dataset)
    split = split or ("test" if "test" in parts else "all")
    if split not in parts:
        raise ConfigError(f"{dataset.name} does not say which images are for {split}; it has: {', '.join(parts)}")
    chosen = parts[split]
    labels = np.array([classes.index(name) if name in classes else _UNKNOWN for name in dataset.classes])
    theirs = np.concatenate([images.labels for images in chosen])
    counts = np.bincount(theirs, minlength=len(dataset.classes))
    known = labels[theirs] != _UNKNOWN
    there = [dataset.classes[index] for index in np.flatnonzero(counts)]
    if not known.any():
        raise OtherClasses(f"{dataset.name} {split}".removesuffix(" all"), there, classes)
    unknown = {name: int(n) for name, n, k in zip(dataset.classes, counts, labels, strict=True) if k == _UNKNOWN and n}
    images = Others(Chosen(chosen, np.flatnonzero(known)), labels, frame, in_shape)
    missing = [name for name in classes if name not in there]
    return Matched(images, split, unknown, missing, trained_on(images, before))


def _parts(dataset: Dataset) -> dict[str, list[Images]]:
    """Return the images of each split that the dataset itself has, and of ``all``, from a dataset not split yet."""
    if not dataset.has_test:
        return {"all": [dataset.train, dataset.test]}
    count = len(dataset.train) - dataset.has_validation * dataset.held_out
    train, validation = dataset.train.take(slice(count)), dataset.train.take(slice(count, None))
    own = {"train": [train], "validation": [validation], "test": [dataset.test]}
    return {part: images for part, images in own.items() if len(images[0])} | {"all": [train, validation, dataset.test]}
