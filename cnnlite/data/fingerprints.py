"""Fingerprints of the images of each part, so that none changes sides when the folder of pictures changes."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images
from cnnlite.runtime import engine
from cnnlite.utils.types import Array

PARTS = ("train", "validation", "test")
"""Parts of a dataset; of several that an image was in, the first counts: one that was trained on tests nothing."""


def fingerprints(dataset: Dataset) -> dict[str, Array]:
    """Compute fingerprints, uint64 (N,), of the images of each part; none where the images are the same everywhere."""
    if dataset.above is None:
        return {}
    return {part: _of(images) for part in PARTS if (images := getattr(dataset, part)) is not None}


def _of(images: Images) -> Array:
    """Hash the pixels of each image to eight bytes of SHA-256."""
    pixels = images.images
    found = np.empty(len(images), np.uint64)

    def write(start: int, stop: int) -> None:
        for index in range(start, stop):
            found[index] = int.from_bytes(hashlib.sha256(pixels[index].tobytes()).digest()[:8], "big")

    engine.for_blocks(write, len(found), pixels[:1].nbytes)
    return found


def as_seen(dataset: Dataset, before: Mapping[str, Array], part: str) -> tuple[Dataset, str]:
    """Restore the split that a run saw to a dataset.

    The images that it saw as ``part`` are put back into it, and others out. An image that it has not seen stays where
    it is now, but is not among those that it was trained on.

    Returns:
        The dataset, and a text about what has changed.
    """
    now = fingerprints(dataset)
    before = {part: before[part].ravel() for part in PARTS if part in before and before[part].dtype == np.uint64}
    if not now or not before:
        return dataset, "which of them it has seen is not known"
    pool, known = np.concatenate([*now.values()]), np.concatenate([*before.values()])
    place = np.concatenate([np.full(len(found), PARTS.index(name)) for name, found in now.items()])
    place[~np.isin(pool, known) & (place == 0)] = len(PARTS)
    for name, found in reversed(before.items()):
        place[np.isin(pool, found)] = PARTS.index(name)
    places = dict(zip(now, np.split(place, np.cumsum([len(found) for found in now.values()])[:-1]), strict=True))
    back: dict[str, Any] = {part: _joined(dataset, places, PARTS.index(part))}
    new, missing = _more(pool, known), _more(known, pool)
    return replace(
        dataset, **back
    ), f"{new:,} new, {missing:,} missing; those that it has seen count as what they were then"


def repeated(known: Mapping[str, Array]) -> Iterator[str]:
    """Warn of images to validate or to test with that are trained on too, by their fingerprints."""
    for part, purpose in (("validation", "validate"), ("test", "test")):
        if part in known and (count := np.count_nonzero(np.isin(known[part], known["train"]))):
            yield f"warning: {count:,} of the images to {purpose} with are trained on too, pixel for pixel"


def _more(some: Array, others: Array) -> int:
    """Number of ``some`` that are not in ``others``, each counted as often as it is there."""
    return (Counter(some.tolist()) - Counter(others.tolist())).total()


def _joined(dataset: Dataset, places: Mapping[str, Array], wanted: int) -> Images:
    found = [getattr(dataset, part).take(np.flatnonzero(place == wanted)) for part, place in places.items()]
    return Images(*(np.concatenate([getattr(images, what) for images in found]) for what in ("images", "labels")))
