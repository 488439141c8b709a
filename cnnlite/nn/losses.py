"""Losses: pure functions from logits and targets to a scalar and its gradient."""

import math
from abc import ABC, abstractmethod

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array


class Loss(ABC):
    """Compares logits ``(N, K)`` with targets: classes, integers ``(N,)``, or probabilities ``(N, K)``."""

    @abstractmethod
    def loss_and_gradient(self, logits: Array, targets: Array) -> tuple[float, Array]:
        """Compute the mean loss of the batch and its gradient with respect to the logits, a new ``(N, K)`` array."""


losses: Registry[Loss] = Registry("loss", Loss)  # type: ignore[type-abstract]


def log_softmax(logits: Array) -> Array:
    """``z - log(sum(exp(z)))`` for each row of ``(N, K)`` logits, in their dtype."""
    with np.errstate(over="ignore"):  # differences beyond the dtype's range become minus infinity
        log_p: Array = logits - logits.max(axis=1, keepdims=True)  # no exponential is above 1, nor their sum above K
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return log_p


def softmax(logits: Array) -> Array:
    """``exp(z) / sum(exp(z))`` for each row of ``(N, K)`` logits, in their dtype."""
    probabilities: Array = np.exp(log_softmax(logits))
    return probabilities


@losses.register("cross_entropy")
class CrossEntropy(Loss):
    """Softmax cross-entropy, ``-sum(q * log(softmax(z)))``.

    ``q`` are the targets as probabilities, mixed with ``label_smoothing`` parts of the uniform distribution
    (Szegedy et al. 2016, arXiv:1512.00567).

    Args:
        label_smoothing: part of the target that all classes share, in [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing < 1:
            raise OptionError(f"label_smoothing {label_smoothing} is not in [0, 1)", "label_smoothing")
        self.label_smoothing = label_smoothing

    def loss_and_gradient(self, logits: Array, targets: Array) -> tuple[float, Array]:
        """Compute the mean of the formula above over the batch, and its gradient ``(softmax(z) - q) / N``.

        The loss is correct for all finite float32 logits, even where their differences overflow float32.
        """
        count, classes = logits.shape
        share = self.label_smoothing / classes
        q = np.full(logits.shape, share, logits.dtype)  # (N, K)
        if targets.ndim == 1:
            q[np.arange(count), targets] = 1 - self.label_smoothing + share
        else:
            q += np.multiply(targets, 1 - self.label_smoothing, dtype=logits.dtype)
        log_p = log_softmax(logits)
        gradient = np.exp(log_p)
        gradient -= q
        gradient *= 1 / count
        log_p *= q
        loss = float(0 - np.add.reduce(log_p, axis=None, dtype=np.float64) / count)  # never -0.0
        if not math.isfinite(loss) and logits.dtype == np.float32:  # 0 * log(0), or an overflow
            loss = self.loss_and_gradient(logits.astype(np.float64), targets)[0]
        return loss, gradient
