"""What a network makes of images: its confusions, its most confident mistakes, and how far to trust its confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnlite.data import Images, Normalizer
from cnnlite.nn.losses import softmax
from cnnlite.nn.network import Network
from cnnlite.runs.metrics import ConfusionMatrix
from cnnlite.training.evaluation import BATCH_SIZE
from cnnlite.utils.types import Array

BINS = 15
"""Of the reliability diagram, equally wide; as in Guo et al. 2017."""


@dataclass(frozen=True)
class Behaviour:
    """Predictions for a set of images."""

    probabilities: Array
    """float32 (N, classes)."""
    labels: Array
    """The true classes, int64 (N,)."""
    counts: Array
    """Images by true class (row) and predicted class (column)."""

    @property
    def predictions(self) -> Array:
        """The most probable classes, int64 (N,)."""
        highest: Array = self.probabilities.argmax(axis=1)
        return highest

    @property
    def confidences(self) -> Array:
        """The probabilities of the predictions, (N,)."""
        highest: Array = self.probabilities.max(axis=1)
        return highest

    @property
    def accuracy(self) -> float:
        """Fraction of images predicted right."""
        return float((self.predictions == self.labels).mean())


def observe(network: Network, images: Images, normalizer: Normalizer) -> Behaviour:
    """Predict all the images, in their order."""
    size = network.at_once(BATCH_SIZE)
    parts = [
        softmax(network.forward(normalizer(images.images[start : start + size]), training=False))
        for start in range(0, len(images), size)
    ]
    return behaviour(np.concatenate(parts), images.labels)


def behaviour(probabilities: Array, labels: Array) -> Behaviour:
    """Count what (N, classes) probabilities say about images of the true classes ``labels``."""
    confusion = ConfusionMatrix(probabilities.shape[1])
    confusion.add(labels, probabilities.argmax(axis=1))
    return Behaviour(probabilities, labels, confusion.counts)


def confident_mistakes(seen: Behaviour, count: int) -> Array:
    """Find the images that were predicted wrong with the greatest confidence: at most ``count`` indices."""
    wrong = np.flatnonzero(seen.predictions != seen.labels)
    chosen: Array = wrong[np.argsort(-seen.confidences[wrong], kind="stable")][:count]
    return chosen


@dataclass(frozen=True)
class ClassFigures:
    """How a class fares; fractions, None where nothing is there to divide by."""

    name: str
    images: int
    recall: float | None
    """Of the images of this class, how many were called so: the accuracy of the class."""
    precision: float | None
    """Of the images called so, how many are of this class."""
    mistaken_for: str
    """The class that its images were most often taken for; empty if no image was."""
    mistaken: int


def class_figures(counts: Array, classes: Sequence[str]) -> list[ClassFigures]:
    """Take the confusion matrix apart, class by class."""
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
                right / of_class if of_class else None,
                right / called if called else None,
                classes[worst] if others[worst] else "",
                int(others[worst]),
            )
        )
    return figures


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, in bins of confidence; empty bins are NaN."""

    counts: Array
    """Images in each bin, (BINS,)."""
    confidence: Array
    """Mean confidence of the images in each bin, (BINS,)."""
    accuracy: Array
    """Fraction of them that was predicted right, (BINS,)."""
    error: float
    """Expected calibration error, a fraction."""
    excess: float
    """Mean confidence minus accuracy over all images: above 0 the network is too sure of itself."""


def calibration(seen: Behaviour, bins: int = BINS) -> Calibration:
    """Compare how sure the network is with how often it is right.

    ``ECE = sum over bins of n_b / N * |accuracy_b - confidence_b|`` with bins of equal width, ``((b-1)/B, b/B]``.
    Sources: Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    sure = seen.confidences.astype(np.float64)
    right = (seen.predictions == seen.labels).astype(np.float64)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in the empty bins
        confidence = np.bincount(place, sure, bins) / counts
        accuracy = np.bincount(place, right, bins) / counts
    gaps = np.nan_to_num(np.abs(accuracy - confidence))
    return Calibration(
        counts, confidence, accuracy, float((counts * gaps).sum() / len(sure)), float(sure.mean() - right.mean())
    )
