"""Flips and crops, which move pixels and change none."""

import functools
from typing import Literal

import numpy as np

from cnnlite.data.augment.base import Pick, Transform, check_probability, transforms
from cnnlite.data.datasets.base import center
from cnnlite.errors import OptionError
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array, Shape


@transforms.register("random_flip")
class RandomFlip(Transform):
    """Mirrors each image left to right with the given probability.

    Args:
        probability: of an image being mirrored, in each epoch anew.
    """

    def __init__(self, probability: float = 0.5):
        check_probability(probability)
        self.probability = probability

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return rng.random(len(pick)) < self.probability

    def apply(self, images: Array, options: Array) -> Array:
        return mirror(images, options)


@transforms.register("alternating_flip")
class AlternatingFlip(Transform):
    """Mirrors each image left to right in every other epoch (Jordan 2024, arXiv:2404.00498).

    Chance decides for each image, once, whether it is mirrored in the even epochs or in the odd ones: any two epochs
    in a row show both sides of every image.
    """

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return _mirrored_first(pick.seed, pick.total)[pick.indices] ^ (pick.epoch % 2 == 1)

    def apply(self, images: Array, options: Array) -> Array:
        return mirror(images, options)


@functools.lru_cache(maxsize=2)
def _mirrored_first(seed: int, total: int) -> Array:
    """Boolean (total,), True for images that are mirrored in the even epochs."""
    return stream(seed, "alternating_flip").random(total) < 0.5


def mirror(images: Array, which: Array) -> Array:
    """Copy uint8 images ``(N, H, W, C)``, those that the boolean ``which`` marks mirrored left to right."""
    out = images.copy(order="C")
    chosen = np.flatnonzero(which)
    # Pixels as single elements: to move one at a time is much quicker than three bytes, one at a time.
    pixels = out[chosen].view(np.dtype((np.void, images.shape[-1])))[..., 0]
    out[chosen] = np.ascontiguousarray(pixels[:, :, ::-1]).view(np.uint8).reshape(-1, *images.shape[1:])
    return out


@transforms.register("random_crop")
class RandomCrop(Transform):
    """Pads each image on all sides and cuts a piece of its old size from a random place (He et al. 2015, section 4.2).

    Args:
        padding: pixels on each side.
        mode: fills them with black (``zeros``) or with the mirrored image (``reflect``; Jordan 2024, arXiv:2404.00498,
            translates images so, by up to 2 pixels).
    """

    def __init__(self, padding: int = 4, mode: Literal["zeros", "reflect"] = "zeros"):
        if padding < 1:
            raise OptionError(f"padding must be at least 1, not {padding}", "padding")
        if padding > 1000:
            raise OptionError(f"padding {padding} is more than 1000 pixels", "padding")
        if mode not in ("zeros", "reflect"):
            raise OptionError(f"mode {mode!r} is not zeros or reflect", "mode")
        self.padding = padding
        self.mode = mode

    def out_shape(self, shape: Shape) -> Shape:
        if self.mode == "reflect" and self.padding >= min(shape[:2]):
            raise ValueError(f"cannot reflect {self.padding} pixels of {shape[0]}x{shape[1]} images")
        return shape

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return rng.integers(
            0, 2 * self.padding + 1, (len(pick), 2)
        )  # rows, columns from the top left of the padded image

    def apply(self, images: Array, options: Array) -> Array:
        count, height, width, channels = images.shape
        padded = pad(images, self.padding, self.mode)
        rows, columns = padded.shape[1:3]
        # Every run of `width` pixels as one element of an overlapping view: a crop is then `height` elements an image.
        run = np.dtype((np.void, width * channels))
        runs = np.ndarray((max(0, padded.size // channels - width + 1),), run, padded, 0, (channels,))
        first_row = np.arange(count)[:, None] * rows + options[:, :1] + np.arange(height)  # (N, H)
        cropped: Array = runs[first_row * columns + options[:, 1:]]  # (N, H)
        return cropped.view(np.uint8).reshape(images.shape)


def pad(images: Array, padding: int, mode: Literal["zeros", "reflect"]) -> Array:
    """Pad uint8 images ``(N, H, W, C)`` by ``padding`` pixels on each side: black, or as ``2 1 | 0 1 2 3 | 2 1``."""
    p = padding
    count, height, width, channels = images.shape
    out = np.zeros((count, height + 2 * p, width + 2 * p, channels), np.uint8)
    out[:, p:-p, p:-p] = images
    if mode == "reflect":  # columns first, then whole rows
        out[:, p:-p, :p] = images[:, :, p:0:-1]
        out[:, p:-p, -p:] = images[:, :, -2 : -p - 2 : -1]
        out[:, :p] = out[:, 2 * p : p : -1]
        out[:, -p:] = out[:, -p - 2 : -2 * p - 2 : -1]
    return out


@transforms.register("center_crop")
class CenterCrop(Transform):
    """Keeps the centre square; nothing about it is random. For all images, use ``data.center_crop``.

    Args:
        size: side of the square, in pixels.
    """

    def __init__(self, size: int):
        if size < 1:
            raise OptionError(f"size must be at least 1, not {size}", "size")
        self.size = size

    def out_shape(self, shape: Shape) -> Shape:
        return center(np.empty((0, *shape), np.uint8), self.size).shape[1:]

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return np.empty((len(pick), 0), np.int64)

    def apply(self, images: Array, options: Array) -> Array:
        return center(images, self.size).copy(order="C")
