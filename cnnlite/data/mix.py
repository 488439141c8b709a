"""Mixing of each image of a batch with another one, and of their labels in the same proportion."""

from abc import ABC, abstractmethod

import numpy as np

from cnnlite.data.augment.erasing import rectangles
from cnnlite.errors import OptionError
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array, Shape


class Mixing(ABC):
    """A mixture of pairs of images; as with a `Transform`, options are drawn before any is applied."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int, shape: Shape) -> Array:
        """Draw options for ``count`` images of ``shape``; the first axis of the result counts images."""

    @abstractmethod
    def apply(self, x: Array, other: Array, options: Array) -> None:
        """Mix the partners ``other`` into the images ``x``, both float32 ``(N, H, W, C)`` and free to change."""

    @abstractmethod
    def shares(self, options: Array, shape: Shape) -> Array:
        """Share of each mixed image that is its own, float64 ``(N,)``; the rest is its partner's."""


mixings: Registry[Mixing] = Registry("mixing", Mixing)  # type: ignore[type-abstract]


def soft_targets(labels: Array, partner: Array, shares: Array, classes: int) -> Array:
    """Mix labels to probabilities, float32 ``(N, classes)``: an image's share for its label, the rest for the other."""
    targets = np.zeros((len(labels), classes), np.float32)
    rows = np.arange(len(labels))
    targets[rows, labels] += shares.astype(np.float32)
    targets[rows, labels[partner]] += (1 - shares).astype(np.float32)
    return targets


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < np.inf:
        raise OptionError(f"alpha must be above 0, not {alpha}", "alpha")


@mixings.register("mixup")
class Mixup(Mixing):
    """share * x + (1 - share) * other, with share ~ Beta(alpha, alpha) (Zhang et al. 2017, arXiv:1710.09412).

    The share is drawn for each image, as in the formula of the paper; the code beside it draws one for each batch. It
    is also that of the image's own label.

    Args:
        alpha: above 0; 1 draws all shares alike, a smaller one mostly shares near 0 or 1.
    """

    def __init__(self, alpha: float = 1.0):
        _check_alpha(alpha)
        self.alpha = alpha

    def draw(self, rng: np.random.Generator, count: int, shape: Shape) -> Array:
        return rng.beta(self.alpha, self.alpha, count).astype(np.float32)

    def apply(self, x: Array, other: Array, options: Array) -> None:
        share = options[:, None, None, None]
        x *= share
        other *= 1 - share
        x += other

    def shares(self, options: Array, shape: Shape) -> Array:
        return options.astype(np.float64)


@mixings.register("cutmix")
class Cutmix(Mixing):
    """Puts a rectangle of the partner into the image, at the same place (Yun et al. 2019, arXiv:1905.04899).

    With r ~ Beta(alpha, alpha) its sides are sqrt(1 - r) of the image's; its centre is anywhere in the image, and what
    sticks out is cut off. The image's own label has the share of the area that is left.

    Args:
        alpha: above 0; 1 draws all r alike.
        probability: of an image being mixed at all.
    """

    def __init__(self, alpha: float = 1.0, probability: float = 1.0):
        _check_alpha(alpha)
        if not 0 <= probability <= 1:
            raise OptionError(f"probability {probability} is not in [0, 1]", "probability")
        self.alpha = alpha
        self.probability = probability

    def draw(self, rng: np.random.Generator, count: int, shape: Shape) -> Array:
        size = np.array(shape[:2])
        sides = np.rint(size * np.sqrt(1 - rng.beta(self.alpha, self.alpha, (count, 1)))).astype(np.int64)
        sides[rng.random(count) >= self.probability] = 0
        first = rng.integers(0, size, (count, 2)) - sides // 2
        edges: Array = np.clip([first, first + sides], 0, size)  # (2, N, 2): first and beyond the last, row and column
        return edges.transpose(1, 0, 2)

    def apply(self, x: Array, other: Array, options: Array) -> None:
        where = rectangles(x.shape, options[:, 0], options[:, 1])
        np.copyto(x.reshape(where.shape), other.reshape(where.shape), where=where)

    def shares(self, options: Array, shape: Shape) -> Array:
        shares: Array = 1 - (options[:, 1] - options[:, 0]).prod(axis=1) / (shape[0] * shape[1])
        return shares
