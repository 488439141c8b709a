"""Losses: pure functions from logits and targets to a scalar and its gradient."""

import copy
import math
from abc import ABC, abstractmethod
from typing import Literal, Self, TypeAlias

import numpy as np

from cnnlite.errors import ConfigError, OptionError, Problem
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array

ClassWeights: TypeAlias = Literal["balanced"] | list[float]
"""Weights of classes: one over the number of training images of each, or a number for each; see `ClassWeighted`."""


class Loss(ABC):
    """Compares logits ``(N, K)`` with targets: classes, integers ``(N,)``, or probabilities ``(N, K)``."""

    path: str = "train.loss"  # the builder writes the whole place in the config
    estimates_gradient: bool = False
    """As of a layer: True if the gradient is deliberately another one."""

    def fit(self, class_counts: Array) -> Self:
        """Return the loss for training images of so many of each class, ``(K,)``; itself unless it depends on them.

        Raises:
            ConfigError: If it is meant for another number of classes, or for none of these images.
        """
        return self

    @abstractmethod
    def loss_and_gradient(self, logits: Array, targets: Array) -> tuple[float, Array]:
        """Compute the mean loss of the samples and its gradient with respect to the logits, a new ``(N, K)`` array.

        A mean over nothing but the samples: those of a batch may be computed in several parts, which are then averaged.
        """


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


class ClassWeighted(Loss):
    """A loss in which the samples of a class may weigh more than those of another: ``sum(w[y] * loss) / N``.

    Weights are scaled to a mean of 1 over the training images, so that a weighted loss is as large as one without
    weights. That is where it differs from PyTorch, which divides by the sum of the weights in the batch: there, a
    sample's part depends on those beside it, and the parts of a batch cannot be averaged.
    Where targets are probabilities ``q``, the loss is its expectation if the class is drawn from them,
    ``sum(q * w * loss)``: that of mixed images is the mixture of both losses.
    """

    def __init__(self, class_weights: ClassWeights | None):
        if class_weights is not None and class_weights != "balanced":
            for index, weight in enumerate(class_weights):
                if not 0 <= weight < math.inf:
                    raise OptionError(f"must be at least 0, not {weight}", "class_weights", index)
            if not any(class_weights):
                raise OptionError("at least one must be above 0", "class_weights")
        self.class_weights = class_weights
        self._weights: Array | None = None

    def fit(self, class_counts: Array) -> Self:
        """Return the loss with weights for training images of so many of each class; see `Loss.fit`."""
        if self.class_weights is None:
            return self
        fitted = copy.copy(self)
        try:
            fitted._weights = scaled_weights(self.class_weights, class_counts)
        except ValueError as error:
            raise ConfigError([Problem(f"{self.path}.class_weights", str(error))]) from None
        return fitted

    def weight_of(self, target: int) -> float:
        """Return the weight of the samples of class ``target``, once fitted; 1 if all count alike."""
        return 1.0 if self._weights is None else float(self._weights[target])

    def _spread(self, logits: Array, targets: Array, smoothing: float = 0.0) -> tuple[Array, Array | float]:
        """Spread the weight of each sample over the classes, as its target and ``smoothing`` say.

        Returns:
            ``(N, K)`` in the dtype of the logits, and the sum of each row: the weights, ``(N, 1)``, or 1.
        """
        if self.class_weights is not None and self._weights is None:
            raise RuntimeError("the weights are unknown before `fit`")
        count, classes = logits.shape
        share = smoothing / classes
        weights = None if self._weights is None else self._weights.astype(logits.dtype)
        row: Array | float = 1.0
        q = np.full(logits.shape, share, logits.dtype)  # (N, K)
        if targets.ndim == 1:
            q[np.arange(count), targets] = 1 - smoothing + share
            if weights is not None:
                row = weights[targets][:, None]
                q *= row
            return q, row
        if weights is not None:
            targets = targets * weights
            row = targets.sum(axis=1, keepdims=True)
            q *= row
        q += np.multiply(targets, 1 - smoothing, dtype=logits.dtype)
        return q, row

    def _mean(self, terms: Array, logits: Array, targets: Array) -> float:
        """Return minus the sum of ``terms`` over the number of samples; in float64 again if float32 overflows."""
        loss = float(0 - np.add.reduce(terms, axis=None, dtype=np.float64) / len(logits))  # never -0.0
        if not math.isfinite(loss) and logits.dtype == np.float32:  # 0 * log(0), or an overflow
            loss = self.loss_and_gradient(logits.astype(np.float64), targets)[0]
        return loss


def scaled_weights(choice: ClassWeights, class_counts: Array) -> Array:
    """Return weights of classes, float64 ``(K,)``, whose mean over the training images is 1.

    ``balanced`` gives all classes the same sum of weights, and a class without images 0: it cannot be learnt.

    Raises:
        ValueError: If there are not as many weights as classes, or no image has any.
    """
    counts = np.asarray(class_counts, np.float64)
    if choice == "balanced":
        weights = np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0)
    else:
        weights = np.array(choice, np.float64) / max(choice)  # as numbers near 1, of which no sum overflows
        if len(weights) != len(counts):
            raise ValueError(f"{len(weights)} weights for {len(counts)} classes")
    total = (weights * counts).sum()  # not by BLAS, whose bits depend on the processor
    if not total > 0:
        raise ValueError("no class with training images has a weight above 0")
    scaled: Array = weights * (counts.sum() / total)
    return scaled


@losses.register("cross_entropy")
class CrossEntropy(ClassWeighted):
    """Softmax cross-entropy, ``-sum(q * log(softmax(z)))``.

    ``q`` are the targets as probabilities, mixed with ``label_smoothing`` parts of the uniform distribution
    (Szegedy et al. 2016, arXiv:1512.00567).

    Args:
        label_smoothing: part of the target that all classes share, in [0, 1).
        class_weights: balanced, so that each class has the same sum of weights over the training images, or a number
            for each class; they are scaled to a mean of 1 over the training images. Left out: all samples alike.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: ClassWeights | None = None):
        super().__init__(class_weights)
        if not 0 <= label_smoothing < 1:
            raise OptionError(f"label_smoothing {label_smoothing} is not in [0, 1)", "label_smoothing")
        self.label_smoothing = label_smoothing

    def loss_and_gradient(self, logits: Array, targets: Array) -> tuple[float, Array]:
        """Compute the mean of the formula above over the batch, and its gradient ``(softmax(z) - q) / N``.

        The loss is correct for all finite float32 logits, even where their differences overflow float32.
        """
        q, row = self._spread(logits, targets, self.label_smoothing)
        log_p = log_softmax(logits)
        gradient = np.exp(log_p)
        gradient *= row
        gradient -= q
        gradient *= 1 / len(logits)
        log_p *= q
        return self._mean(log_p, logits, targets), gradient


@losses.register("focal")
class Focal(ClassWeighted):
    """Focal loss, ``-sum(q * (1 - p)**gamma * log(p))`` with ``p = softmax(z)`` (Lin et al. 2017, arXiv:1708.02002).

    What the network is sure of counts for little, and what it gets wrong as much as in cross-entropy. The paper's alpha
    are ``class_weights``.

    Args:
        gamma: at least 0; 0 is cross-entropy.
        class_weights: as those of cross_entropy.
    """

    def __init__(self, gamma: float = 2.0, class_weights: ClassWeights | None = None):
        super().__init__(class_weights)
        if not 0 <= gamma < math.inf:
            raise OptionError(f"gamma {gamma} is not at least 0", "gamma")
        self.gamma = gamma

    def loss_and_gradient(self, logits: Array, targets: Array) -> tuple[float, Array]:
        """Compute the mean of the formula above over the batch, and its gradient.

        That is ``(g - p * sum(g)) / N``, ``g = q * (1 - p)**gamma * (gamma * p * log(p) / (1 - p) - 1)``. The loss is
        correct for all finite float32 logits, even where their differences overflow float32.
        """
        q, _ = self._spread(logits, targets)
        log_p = log_softmax(logits)
        p = np.exp(log_p)
        rest = -np.expm1(log_p)  # 1 - p, without its rounding
        q *= rest**self.gamma
        slope = p * np.maximum(log_p, np.finfo(log_p.dtype).min)  # 0 where p is 0
        np.divide(slope, rest, out=slope, where=rest > 0)  # where p is 1 the factor is 0, or gamma
        g = q * (self.gamma * slope - 1)
        g -= p * g.sum(axis=1, keepdims=True)
        g *= 1 / len(logits)
        log_p *= q
        return self._mean(log_p, logits, targets), g
