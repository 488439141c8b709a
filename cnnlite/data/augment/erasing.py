"""Rectangles of images: covered with grey or noise, and their random places and sizes."""

import math
from typing import Literal

import numpy as np

from cnnlite.data.augment.base import Pick, Range, Transform, check_fill, check_probability, interval, transforms
from cnnlite.errors import OptionError
from cnnlite.utils.types import Array, Shape

_TRIES = 10
"""Sizes drawn for each rectangle, of which the first that fits into the image is taken."""


@transforms.register("cutout")
class Cutout(Transform):
    """Covers a square at a random place, cut off at the border (DeVries & Taylor 2017, arXiv:1708.04552).

    Args:
        size: side of the square, in pixels.
        fill: grey it is covered with, from 0 for black to 255 for white; by default near the mean of photographs.
    """

    def __init__(self, size: int, fill: int = 128):
        if size < 1:
            raise OptionError(f"size must be at least 1, not {size}", "size")
        check_fill(fill)
        self.size = size
        self.fill = fill

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return rng.integers(0, pick.shape[:2], (len(pick), 2))  # row and column of the square's centre

    def apply(self, images: Array, options: Array) -> Array:
        first = options - self.size // 2
        return _covered(images, first, first + self.size, self.fill)


@transforms.register("random_erasing")
class RandomErasing(Transform):
    """Covers a rectangle of random size and proportions at a random place (Zhong et al. 2017, arXiv:1708.04896).

    As in torchvision the logarithm of the proportions is uniform, the proportions themselves in the paper; and if ten
    rectangles in a row do not fit into the image, it stays as it is. torchvision erases after normalization, so that
    its fill is in other units.

    Args:
        probability: of an image being changed.
        scale: least and largest area of the rectangle, as shares of the image's.
        ratio: least and largest height of the rectangle divided by its width.
        fill: ``random`` for noise, each byte of each pixel by itself, as the paper does; or a grey from 0 to 255.
    """

    def __init__(
        self,
        probability: float = 0.5,
        scale: Range = (0.02, 0.33),
        ratio: Range = (0.3, 3.3),
        fill: int | Literal["random"] = "random",
    ):
        check_probability(probability)
        self.probability = probability
        self.scale = interval(scale, "scale", most=1.0)
        self.ratio = interval(ratio, "ratio")
        if isinstance(fill, str):
            if fill != "random":
                raise OptionError(f"fill {fill!r} is not random or a number in [0, 255]", "fill")
        else:
            check_fill(fill)
        self.fill = fill

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        low, high = self.ratio
        first, sides = draw_rectangles(rng, len(pick), pick.shape, self.scale, (1 / high, 1 / low))
        sides[rng.random(len(pick)) >= self.probability] = 0
        seeds = rng.integers(0, 2**63, (len(pick), 1))
        return np.concatenate(
            [first, first + sides, seeds], axis=1
        )  # (N, 5): first, beyond the last, seed of the noise

    def apply(self, images: Array, options: Array) -> Array:
        first, stop, seeds = options[:, :2], options[:, 2:4], options[:, 4]
        return _covered(images, first, stop, _noise(seeds, images.shape) if self.fill == "random" else int(self.fill))


def draw_rectangles(
    rng: np.random.Generator, count: int, shape: Shape, scale: Range, ratio: Range
) -> tuple[Array, Array]:
    """Draw rectangles in images of ``shape``: their first rows and columns, and heights and widths, int64 ``(N, 2)``.

    Their areas are uniform in ``scale``, shares of the image's, and the logarithms of width / height in those of
    ``ratio``; both sides are 0 where no rectangle fits (Szegedy et al. 2014, arXiv:1409.4842, with the constants of
    torchvision).
    """
    image = np.array(shape[:2])
    area = rng.uniform(*scale, (count, _TRIES)) * image.prod()
    aspect = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), (count, _TRIES)))
    sides = np.rint(np.sqrt(np.stack([area / aspect, area * aspect], axis=-1))).astype(np.int64)  # (N, tries, 2)
    fits = ((sides > 0) & (sides <= image)).all(axis=-1)
    chosen: Array = sides[np.arange(count), fits.argmax(axis=1)]
    chosen[~fits.any(axis=1)] = 0
    return rng.integers(0, image - chosen + 1), chosen


def rectangles(shape: tuple[int, ...], first: Array, stop: Array) -> Array:
    """Boolean ``(N, H, W * C)`` for images ``(N, H, W, C)``, True in rectangles from ``first`` to before ``stop``.

    Both are rows and columns, int64 ``(N, 2)``, and may lie outside of the image.
    """
    _, height, width, channels = shape
    rows = _between(np.arange(height), first[:, 0], stop[:, 0])
    columns = _between(np.repeat(np.arange(width), channels), first[:, 1], stop[:, 1])
    return rows[:, :, None] & columns[:, None, :]


def _between(places: Array, first: Array, stop: Array) -> Array:
    """Boolean ``(N, P)``, True where the ``(P,)`` places are in each of N ranges."""
    inside: Array = (places >= first[:, None]) & (places < stop[:, None])
    return inside


def _covered(images: Array, first: Array, stop: Array, fill: Array | int) -> Array:
    """Copy uint8 images ``(N, H, W, C)`` with `rectangles` that hold ``fill``, a grey or ``(N, H, W * C)``."""
    where = rectangles(images.shape, first, stop)
    out = images.copy(order="C")
    np.copyto(out.reshape(where.shape), fill, where=where, casting="unsafe")
    return out


def _noise(seeds: Array, shape: tuple[int, ...]) -> Array:
    """Random bytes ``(N, H, W * C)`` for images ``(N, H, W, C)``, a function of the seed of each image.

    SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators") needs no loop: its n-th number is
    a hash of seed + n * constant.
    """
    count, height, width, channels = shape
    size = height * width * channels
    words = np.arange(1, -(-size // 8) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed: Array = seeds.astype(np.uint64)[:, None] + words
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed.astype("<u8", copy=False).view(np.uint8)[:, :size].reshape(count, height, width * channels)
