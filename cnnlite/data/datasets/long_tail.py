"""Long-tailed datasets: another one with ever fewer training images from class to class, to try what helps then."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cnnlite.data.datasets.base import Dataset, Source, digest, sources
from cnnlite.data.frames import Frame
from cnnlite.errors import OptionError
from cnnlite.utils.types import Array


@sources.register("long_tail")
class LongTail(Source):
    """Another dataset with unequal classes (Cui et al. 2019, arXiv:1901.05555).

    Of class ``k`` of ``K`` at most ``n * factor**(-k / (K - 1))`` training images are left, ``n`` being the number of
    those of the most frequent class; so the last class keeps ``1 / factor`` of them. They are spread evenly over those
    there are. Validation images are taken from what is left, and are as unequal; the test images stay as they are.

    Args:
        of: the dataset to take from.
        factor: training images of the first class for each of the last, at least 1.
    """

    def __init__(self, of: Source, factor: float = 100.0):
        if not 1 <= factor < np.inf:
            raise OptionError(f"must be at least 1, not {factor}", "factor")
        if of.class_count is None:
            raise OptionError("takes a dataset whose classes are known without its files, such as cifar10", "of")
        self.of = of
        self.factor = factor
        self.in_shape = of.in_shape
        self.class_count = of.class_count  # type: ignore[misc]

    @property
    def underlying(self) -> Source:
        return self.of.underlying

    def load(self, root: Path) -> Dataset:
        whole = self.of.load(root)
        kept = kept_images(whole.train.labels, len(whole.classes), self.factor)
        train = whole.train.take(kept)
        return replace(
            whole,
            name=f"{whole.name}, long-tailed {self.factor:g}:1",
            train=train,
            digest=digest([train, whole.test], whole.classes),
            held_out=len(train) * whole.held_out // len(whole.train),
        )

    def reading_only(self, classes: tuple[str, ...], *, some: bool = False) -> "LongTail":
        return LongTail(self.of.reading_only(classes, some=some), self.factor)

    @property
    def frame(self) -> Frame | None:
        return self.of.frame


def kept_images(labels: Array, classes: int, factor: float) -> Array:
    """Return the ascending indices of the images that a long tail keeps, int64 ``(N,)``."""
    counts = np.bincount(labels, minlength=classes)
    most = counts.max() * factor ** -(np.arange(classes) / max(classes - 1, 1))
    wanted = np.minimum(most.astype(np.int64), counts)
    place = np.empty(len(labels), np.int64)  # of each image among those of its class
    place[np.argsort(labels, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    own_wanted, own_count = wanted[labels], counts[labels]
    kept: Array = np.flatnonzero((place + 1) * own_wanted // own_count > place * own_wanted // own_count)
    return kept
