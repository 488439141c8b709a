"""The built-in dataset: ten kinds of coloured shapes, drawn by code, so that nothing needs to be downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, Source, digest, sources
from cnnlite.errors import OptionError
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array

SIDE = 32
_AT_ONCE = 500  # images; larger groups fall out of the cache

# Only + - * / and sqrt touch the pixels: IEEE 754 fixes their every bit, which it does not for sine and cosine.
_HALF_SQRT3 = 0.8660254037844386
_STAR = (  # directions of the five edges of a star, 72 degrees apart
    (0.0, 1.0),
    (0.9510565162951535, 0.30901699437494745),
    (0.5877852522924731, -0.8090169943749475),
    (-0.5877852522924731, -0.8090169943749475),
    (-0.9510565162951535, 0.30901699437494745),
)

Depth: TypeAlias = Callable[[Array, Array], Array]
"""Signed distance of points (u, v) inside a shape of about unit radius; negative outside."""


def _radius(u: Array, v: Array) -> Array:
    radius: Array = np.sqrt(u * u + v * v)
    return radius


def _box(u: Array, v: Array, half_width: float, half_height: float) -> Array:
    return np.minimum(half_width - np.abs(u), half_height - np.abs(v))


def _star(u: Array, v: Array) -> Array:
    # A star is where at most one of its five edge lines is crossed.
    heights = np.stack([u * a + v * b for a, b in _STAR])
    second_highest: Array = np.partition(heights, 3, axis=0)[3]
    return 0.36 - second_highest


SHAPES: dict[str, Depth] = {
    "disc": lambda u, v: 0.85 - _radius(u, v),
    "ring": lambda u, v: 0.2 - np.abs(_radius(u, v) - 0.75),
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "frame": lambda u, v: 0.2 - np.abs(_box(u, v, 0.7, 0.7)),
    "triangle": lambda u, v: 0.5 - np.maximum(-v, 0.5 * v + _HALF_SQRT3 * np.abs(u)),
    "star": _star,
    "cross": lambda u, v: np.maximum(_box(u, v, 0.3, 1.0), _box(u, v, 1.0, 0.3)),
    "bar": lambda u, v: _box(u, v, 0.32, 1.0),
    "crescent": lambda u, v: np.minimum(0.95 - _radius(u, v), _radius(u - 0.5, v) - 0.75),
    "corner": lambda u, v: np.maximum(_box(u + 0.5, v, 0.3, 0.9), _box(u, v + 0.6, 0.8, 0.3)),
}


@sources.register("shapes")
class Shapes(Source):
    """Images of 32x32 pixels, each with one of ten shapes in varied place, size, rotation and colour, and noise.

    They are drawn when they are needed; a sixth of the training images is for validation.

    Args:
        train_images: number of training images, those for validation among them.
        test_images: number of test images.
        seed: of the drawing; that of the run does not change it.
    """

    in_shape = (32, 32, 3)
    class_count = len(SHAPES)
    reads_files = False

    def __init__(self, train_images: int = 6000, test_images: int = 1000, seed: int = 0):
        for name, count in (("train_images", train_images), ("test_images", test_images)):
            if count < len(SHAPES):
                raise OptionError(f"{name} must be at least {len(SHAPES)}, one for each class, not {count}", name)
            if count > 1_000_000:
                raise OptionError(f"{name} must be at most 1,000,000, which takes 3 GB, not {count:,}", name)
        self.train_images = train_images
        self.test_images = test_images
        self.seed = seed

    def load(self, root: Path) -> Dataset:
        train = draw_shapes(self.train_images, stream(self.seed, "shapes", 0))
        test = draw_shapes(self.test_images, stream(self.seed, "shapes", 1))
        classes = tuple(SHAPES)
        return Dataset("shapes", train, None, test, classes, digest([train, test], classes), len(train) // 6)


def draw_shapes(count: int, rng: np.random.Generator) -> Images:
    """Draw ``count`` images, the classes evenly and in random order."""
    labels = rng.permutation(np.arange(count) % len(SHAPES)).astype(np.int64)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for label, depth in enumerate(SHAPES.values()):
        places = np.flatnonzero(labels == label)
        for start in range(0, len(places), _AT_ONCE):
            group = places[start : start + _AT_ONCE]
            images[group] = _draw(depth, len(group), rng)
    return Images(images, labels)


def _draw(depth: Depth, count: int, rng: np.random.Generator) -> Array:
    """Draw ``count`` images of one shape, uint8 ``(count, 32, 32, 3)``."""
    radius = _uniform(rng, 8.0, 13.0, (count, 1, 1))
    u, v = _local_coordinates(radius, rng)
    cover = np.clip(0.5 + radius * depth(u, v), 0.0, 1.0)[..., None]  # share of each pixel inside the shape
    background, colour = _colours(count, rng)
    image = background + cover * (colour - background) + _slope(count, rng)
    noise = rng.integers(-20, 21, image.shape, dtype=np.int8)
    levels: Array = np.clip(np.rint(image) + noise, 0, 255)
    return levels.astype(np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Array:
    return low + (high - low) * rng.random(shape)


def _local_coordinates(radius: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw shapes' places, angles and scales; returns coordinates of all pixels in them, ``(count, 32, 32)``."""
    count = len(radius)
    room = (SIDE - 1) / 2 - radius + 1.5  # a shape may leave the image by a pixel or so
    cosine, sine = _directions(count, rng)
    pixel = np.arange(SIDE) - (SIDE - 1) / 2
    x = (pixel[None, None, :] - room * _uniform(rng, -1, 1, (count, 1, 1))) / radius
    y = (pixel[None, :, None] - room * _uniform(rng, -1, 1, (count, 1, 1))) / radius
    return cosine * x + sine * y, cosine * y - sine * x


def _directions(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw unit vectors in all directions (not quite evenly), two arrays ``(count, 1, 1)``."""
    a, b = _uniform(rng, -1, 1, (2, count, 1, 1))
    length = np.sqrt(a * a + b * b) + 1e-12
    return a / length, b / length


def _colours(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw colours of background and shape, ``(count, 1, 1, 3)``; the shape is lighter, by at least 30 levels."""
    background = _uniform(rng, 0, 120, (count, 1, 1, 3))
    return background, background + _uniform(rng, 30, 135, (count, 1, 1, 3))


def _slope(count: int, rng: np.random.Generator) -> Array:
    """Draw a linear gradient of light across each image, ``(count, 32, 32, 1)``, of up to 20 levels."""
    pixel = (np.arange(SIDE) - (SIDE - 1) / 2) / SIDE
    across, down = _uniform(rng, -20, 20, (2, count, 1, 1))
    slope: Array = across * pixel[None, None, :] + down * pixel[None, :, None]
    return slope[..., None]
