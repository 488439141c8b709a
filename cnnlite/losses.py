"""Losses: a number to make small, and its gradient for the logits."""

from abc import ABC, abstractmethod

import numpy as np

from cnnlite.registry import Registry
from cnnlite.types import Array


class Loss(ABC):
    """Compares logits ``(N, K)`` with targets: classes, integers ``(N,)``, or probabilities ``(N, K)``."""

    @abstractmethod
    def forward(self, logits: Array, targets: Array) -> float:
        """The mean loss of the batch."""

    @abstractmethod
    def backward(self) -> Array:
        """The gradient of the last ``forward`` for its logits, in their dtype; a second call raises RuntimeError."""


losses: Registry[Loss] = Registry("loss", Loss)  # type: ignore[type-abstract]


def log_softmax(logits: Array) -> Array:
    """``z - log(sum(exp(z)))`` for each row of ``(N, K)`` logits, in their dtype."""
    log_p: Array = logits - logits.max(axis=1, keepdims=True)  # so no exponential is above 1, nor their sum above K
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
    """

    def __init__(self, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing} is not in [0, 1)")
        self.label_smoothing = label_smoothing
        self._dlogits: Array | None = None

    def forward(self, logits: Array, targets: Array) -> float:
        """The mean over the batch of the formula above."""
        count, classes = logits.shape
        share = self.label_smoothing / classes
        q = np.full(logits.shape, share, logits.dtype)  # (N, K)
        if targets.ndim == 1:
            q[np.arange(count), targets] = 1 - self.label_smoothing + share
        else:
            q += np.multiply(targets, 1 - self.label_smoothing, dtype=logits.dtype)
        log_p = log_softmax(logits)
        self._dlogits = np.exp(log_p)
        self._dlogits -= q
        self._dlogits *= 1 / count
        log_p *= q
        return float(-np.add.reduce(log_p, axis=None, dtype=np.float64) / count)

    def backward(self) -> Array:
        """``(softmax(z) - q) / N``."""
        if self._dlogits is None:
            raise RuntimeError("backward without a forward before it")
        dlogits, self._dlogits = self._dlogits, None
        return dlogits
