"""Fingerprints of the images of each part, so that none changes sides when the folder of pictures changes."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, Sliced
from cnnlite.runtime import engine
from cnnlite.utils.types import Array

PARTS = ("train", "validation", "test")
"""Of further copies of an image, the first that it was in has them: such copies test nothing that was trained on."""
_LABELS = "/labels"
_AT_ONCE = 250


def fingerprints(dataset: Dataset) -> dict[str, Array]:
    """Compute fingerprints, uint64 (N,), and labels of each part; none if the images are the same everywhere."""
    labels = {part + _LABELS: images.labels.astype(np.int32) for part, images in _parts(dataset)}
    return _pixels(dataset) | labels


def _parts(dataset: Dataset) -> list[tuple[str, Images]]:
    """The parts that there are, with their names; none where the images are the same everywhere."""
    found = [(part, getattr(dataset, part)) for part in PARTS if dataset.above is not None]
    return [(part, images) for part, images in found if images is not None]


def _pixels(dataset: Dataset) -> dict[str, Array]:
    return {part: hashed(images.images) for part, images in _parts(dataset)}


def hashed(pixels: Array) -> Array:
    """Hash the pixels of each image to eight bytes of SHA-256, uint64 (N,)."""
    found = np.empty(len(pixels), np.uint64)

    def write(start: int, stop: int) -> None:
        for index in range(start, stop):
            found[index] = int.from_bytes(hashlib.sha256(pixels[index].tobytes()).digest()[:8], "big")

    engine.for_blocks(write, len(found), pixels[:1].nbytes)
    return found


@dataclass(frozen=True)
class Chosen:
    """Images from several parts of a dataset, none of which is copied before it is taken."""

    parts: Sequence[Images]
    places: Array
    """Ascending indices, counted through all parts."""

    def __len__(self) -> int:
        return len(self.places)

    def take(self, which: slice) -> Images:
        """Copy the images that a slice selects."""
        places, found, start = self.places[which], [], 0
        for part in self.parts:
            found.append(part.take(places[(places >= start) & (places < start + len(part))] - start))
            start += len(part)
        return Images(np.concatenate([each.images for each in found]), np.concatenate([each.labels for each in found]))


def as_seen(dataset: Dataset, before: Mapping[str, Array], part: str) -> tuple[Images | Chosen | None, str]:
    """Find the images that a run saw as ``part``, wherever they are now; returns also what has changed.

    One that was in several parts is in each as often as it was; further copies are in the first of them. An image that
    it has not seen stays where it is now, but is not among those that it was trained on.
    """
    now = _pixels(dataset)
    known = {name: before[name].ravel() for name in PARTS if name in before and before[name].dtype == np.uint64}
    if not now or not known:
        return getattr(dataset, part), "which of them it has seen is not known"
    pool, place = np.concatenate([*now.values()]), np.repeat([*map(PARTS.index, now)], [*map(len, now.values())])
    kinds, kind, here = np.unique(pool, return_inverse=True, return_counts=True)
    then = np.array([_count(kinds, known.get(name, pool[:0])) for name in PARTS])
    wanted, others = PARTS.index(part), then.sum(axis=0)
    count = np.minimum(here, then[wanted])
    is_first = (then[wanted] > 0) & ~then[:wanted].any(axis=0)
    count[is_first] = np.maximum(count, here - others + then[wanted])[is_first]
    # Of equal images those come first that are in the part now.
    order = np.lexsort((place != wanted, kind))
    chosen = order[np.arange(len(pool)) - np.repeat(np.cumsum(here) - here, here) < np.repeat(count, here)]
    unseen = np.flatnonzero((others == 0)[kind] & (place == wanted) & (part != PARTS[0]))
    images = Chosen([images for _, images in _parts(dataset)], np.sort(np.concatenate([chosen, unseen])))
    return images, _changes(dataset, before, pool, known)


def _count(kinds: Array, found: Array) -> Array:
    """Number of times that each of ``kinds``, ascending, is among those found."""
    known = np.isin(found, kinds, kind="sort")  # the other way overflows for uint64 in NumPy 2.0
    return np.bincount(np.searchsorted(kinds, found[known]), minlength=len(kinds))


def _changes(dataset: Dataset, before: Mapping[str, Array], pool: Array, known: Mapping[str, Array]) -> str:
    seen = np.concatenate([*known.values()])
    new, missing = _more(pool.tolist(), seen.tolist()), _more(seen.tolist(), pool.tolist())
    labels = [before[name] for part in known if (name := part + _LABELS) in before]
    moved = 0
    if sum(map(np.size, labels)) == len(seen):
        now = np.concatenate([images.labels for _, images in _parts(dataset)]).tolist()
        then = np.concatenate([each.ravel() for each in labels]).tolist()
        moved = _more(zip(pool.tolist(), now, strict=True), zip(seen.tolist(), then, strict=True)) - new
    other = f", {moved:,} {'has' if moved == 1 else 'have'} another class now" if moved else ""
    return f"{new:,} new, {missing:,} missing{other}; those that it has seen count as what they were then"


def seen(dataset: Dataset, before: Mapping[str, Array]) -> int | None:
    """Count the images that a run has seen, in whatever part; None if that is not known."""
    now = _pixels(dataset)
    known = [before[name].ravel() for name in PARTS if name in before and before[name].dtype == np.uint64]
    if not now or not known:
        return None
    return int(np.count_nonzero(np.isin(np.concatenate([*now.values()]), np.concatenate(known), kind="sort")))


def trained_on(images: Sliced, before: Mapping[str, Array]) -> int | None:
    """Count the images that a run has trained on; None if that is not known."""
    known = before.get(PARTS[0], np.empty(0))
    if known.dtype != np.uint64:
        return None
    parts = (images.take(slice(start, start + _AT_ONCE)) for start in range(0, len(images), _AT_ONCE))
    return sum(int(np.count_nonzero(np.isin(hashed(part.images), known.ravel(), kind="sort"))) for part in parts)


def repeated(known: Mapping[str, Array]) -> Iterator[str]:
    """Warn of images to validate or to test with that are trained on too, by their fingerprints."""
    for part, purpose in (("validation", "validate"), ("test", "test")):
        if part in known and (count := np.count_nonzero(np.isin(known[part], known["train"], kind="sort"))):
            yield f"warning: {count:,} of the images to {purpose} with are trained on too, pixel for pixel"


def _more(some: Iterable[Any], others: Iterable[Any]) -> int:
    """Number of ``some`` that are not in ``others``, each counted as often as it is there."""
    return (Counter(some) - Counter(others)).total()
