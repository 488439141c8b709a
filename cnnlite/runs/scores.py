"""Scores of predictions: accuracy, F1, intervals and the like, from counts of how many were predicted as which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnlite.utils.types import Array

TOP = 5
"""Number of predictions of which one has to be right for `top_hits`; told where there are more than twice as many."""
Z95 = 1.959963984540054
"""Number of standard deviations on each side of the mean between which a normal variable is with 95 %."""
FEW = 25
"""Number of discordant pairs below which `mcnemar` adds up the binomial distribution instead of approximating it."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of a set of images by which networks are compared; all but the loss are fractions, better when higher."""

    accuracy: float
    loss: float
    balanced_accuracy: float
    """See `balanced_accuracy`."""
    macro_f1: float
    """See `macro_f1`."""


def hits(logits: Array, targets: Array) -> float:
    """Return the number of correct predictions; a mixed image counts by the share of its predicted class.

    ``targets`` are labels ``(N,)`` or probabilities ``(N, K)``. Source: arXiv:1710.09412.
    """
    predicted = logits.argmax(axis=1)
    if targets.ndim == 1:
        return float(np.count_nonzero(predicted == targets))
    return float(targets[np.arange(len(targets)), predicted].sum(dtype=np.float64))


@dataclass
class Mean:
    """A mean as sum and count, divided once at the end, so that a short last batch has its true weight."""

    total: float = 0.0
    count: int = 0

    def add(self, total: float, count: int) -> None:
        """Add ``count`` values whose sum is ``total``."""
        self.total += total
        self.count += count

    @property
    def value(self) -> float | None:
        """The mean, or None without values."""
        return self.total / self.count if self.count else None


class ConfusionMatrix:
    """Number of images by true class (row) and predicted class (column)."""

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, labels: Array, predictions: Array) -> None:
        """Count a batch; both are integers of shape ``(N,)``."""
        classes = len(self.counts)
        pairs = np.bincount(labels * classes + predictions, minlength=classes * classes)
        self.counts += pairs.reshape(classes, classes)


@dataclass(frozen=True)
class ClassFigures:
    """Figures of a class; fractions, None if there is nothing to divide by."""

    name: str
    images: int
    recall: float | None
    """Fraction of the images of this class that were predicted as it: the accuracy of the class."""
    precision: float | None
    """Fraction of the images predicted as this class that belong to it."""
    f1: float | None
    """Harmonic mean of the two, ``2 TP / (2 TP + FP + FN)``; None for a class that is neither there nor predicted."""
    mistaken_for: str
    """Class most often predicted instead; empty if none was."""
    mistaken: int


def class_figures(counts: Array, classes: Sequence[str]) -> list[ClassFigures]:
    """Return the figures of each class in the confusion matrix."""
    figures = []
    for index, name in enumerate(classes):
        right, of_class, called = (int(n) for n in (counts[index, index], counts[index].sum(), counts[:, index].sum()))
        others = counts[index].copy()
        others[index] = 0
        worst = int(others.argmax())
        figures.append(
            ClassFigures(
                name,
                of_class,
                _ratio(right, of_class),
                _ratio(right, called),
                _ratio(2 * right, of_class + called),
                classes[worst] if others[worst] else "",
                int(others[worst]),
            )
        )
    return figures


def accuracy(counts: Array) -> float | None:
    """Return the fraction of images on the diagonal of the confusion matrix, or None without images."""
    return _ratio(int(counts.trace()), int(counts.sum()))


def balanced_accuracy(counts: Array) -> float | None:
    """Return the mean recall of the classes that have images, or None without any.

    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".
    """
    return mean_fraction(counts.diagonal(), counts.sum(axis=1))


def macro_f1(counts: Array) -> float | None:
    """Return the mean F1 of the classes that have images or are predicted, or None without any.

    The mean of F1s, not the F1 of mean precision and recall: Opitz & Burst 2019, arXiv:1911.03347.
    """
    return mean_fraction(2 * counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1))


def top_hits(logits: Array, labels: Array) -> int:
    """Count the rows of ``(N, K)`` logits in which the label is among the `TOP` highest; of equals the first counts."""
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & before)
    return int(np.count_nonzero(ahead.sum(axis=1) < TOP))


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction ``right / total`` that was found by chance; (0, 1) without any.

    ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``. Source: Wilson 1927, "Probable inference,
    the law of succession, and statistical inference".
    """
    if not total:
        return 0.0, 1.0
    fraction, shift = right / total, Z95 * Z95 / total
    middle = (fraction + shift / 2) / (1 + shift)
    half = Z95 * math.sqrt(fraction * (1 - fraction) / total + shift / (4 * total)) / (1 + shift)
    # Rounding would leave the ends a bit off the fraction where nothing, or everything, is right.
    return (0.0 if right == 0 else max(middle - half, 0.0)), (1.0 if right == total else min(middle + half, 1.0))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the probability that two classifiers of equal accuracy differ at least so much on the same images.

    Images that only one of them gets right tell them apart, the discordant pairs; equal classifiers win each with
    probability 1/2. Below `FEW` pairs that is the two-sided binomial probability, else that of chi-square with one
    degree of freedom and Edwards' correction, ``(abs(b - c) - 1)^2 / (b + c)``.
    Sources: McNemar 1947; Edwards 1948; Dietterich 1998, "Approximate statistical tests for comparing classifiers".
    """
    pairs, fewer = only_first + only_second, min(only_first, only_second)
    if pairs < FEW:
        return min(1.0, 2 * sum(math.comb(pairs, count) for count in range(fewer + 1)) / 2.0**pairs)
    excess = max(abs(only_first - only_second) - 1, 0)
    return float(math.erfc(excess / math.sqrt(2 * pairs)))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def mean_fraction(parts: Array, wholes: Array) -> float | None:
    """Return the mean of ``parts / wholes`` over the wholes that are not empty, or None without any."""
    known = wholes > 0
    return float(np.mean(parts[known] / wholes[known])) if known.any() else None
