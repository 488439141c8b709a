"""Predictions of a network on images: confusions, most confident mistakes, and calibration."""

from dataclasses import dataclass

import numpy as np

from cnnlite.data import Images, Normalizer
from cnnlite.nn.losses import softmax
from cnnlite.nn.network import Network
from cnnlite.runs.scores import ConfusionMatrix
from cnnlite.training.evaluation import BATCH_SIZE
from cnnlite.utils.types import Array

BINS = 15
"""Number of bins of the reliability diagram, of equal width, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Behaviour:
    """Predictions of a network for a set of images."""

    probabilities: Array
    """float32 (N, classes)."""
    labels: Array
    """True classes, int64 (N,)."""
    counts: Array
    """Number of images by true class (row) and predicted class (column)."""

    @property
    def predictions(self) -> Array:
        """Most probable classes, int64 (N,)."""
        highest: Array = self.probabilities.argmax(axis=1)
        return highest

    @property
    def confidences(self) -> Array:
        """Probabilities of the predictions, (N,)."""
        highest: Array = self.probabilities.max(axis=1)
        return highest

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return float((self.predictions == self.labels).mean())


def observe(network: Network, images: Images, normalizer: Normalizer) -> Behaviour:
    """Predict all images, in order."""
    size = network.at_once(BATCH_SIZE)
    parts = [
        softmax(network.forward(normalizer(images.images[start : start + size]), training=False))
        for start in range(0, len(images), size)
    ]
    return behaviour(np.concatenate(parts), images.labels)


def behaviour(probabilities: Array, labels: Array) -> Behaviour:
    """Return predictions and confusion matrix for probabilities (N, classes) and true classes ``labels``."""
    confusion = ConfusionMatrix(probabilities.shape[1])
    confusion.add(labels, probabilities.argmax(axis=1))
    return Behaviour(probabilities, labels, confusion.counts)


def confident_mistakes(seen: Behaviour, count: int) -> Array:
    """Return the indices of the wrong predictions with the highest confidence, at most ``count``."""
    wrong = np.flatnonzero(seen.predictions != seen.labels)
    chosen: Array = wrong[np.argsort(-seen.confidences[wrong], kind="stable")][:count]
    return chosen


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy in bins of confidence; empty bins are NaN."""

    counts: Array
    """Number of images in each bin, (BINS,)."""
    confidence: Array
    """Mean confidence of the images in each bin, (BINS,)."""
    accuracy: Array
    """Accuracy on the images in each bin, (BINS,)."""
    error: float
    """Expected calibration error, a fraction."""
    excess: float
    """Mean confidence minus accuracy over all images: above 0 the network is overconfident."""


def calibration(seen: Behaviour, bins: int = BINS) -> Calibration:
    """Return the calibration of predictions: confidence against accuracy.

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
