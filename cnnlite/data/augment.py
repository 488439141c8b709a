"""Augmentation: random transforms of training images, drawn first and then applied to a whole batch at once."""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnlite.data.datasets.base import center
from cnnlite.errors import OptionError
from cnnlite.utils.registry import Registry
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array, Shape


@dataclass(frozen=True)
class Pick:
    """The training images of a batch, for which a transform draws."""

    indices: Array
    """Indices of the batch's images, int64 ``(N,)``, among ``total`` training images."""
    total: int
    shape: Shape
    """(H, W, C) of an image."""
    epoch: int
    seed: int
    """Seed of the run, for choices that belong to an image rather than to a step."""

    def __len__(self) -> int:
        return len(self.indices)


class Transform(ABC):
    """A transform of uint8 images ``(N, H, W, C)``.

    Random options are drawn for a whole batch, one entry per image, before any is applied: a slice of the batch with
    the same slice of the options gives the same images.
    """

    @abstractmethod
    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        """Draw options for the images of ``pick``, with the ``rng`` of the step; the first axis counts images."""

    @abstractmethod
    def apply(self, images: Array, options: Array) -> Array:
        """Transform ``images`` by their ``options`` from `draw`, in a new array."""

    def out_shape(self, shape: Shape) -> Shape:
        """Shape of a transformed image; ValueError if images of ``shape`` cannot be transformed."""
        return shape


transforms: Registry[Transform] = Registry("augmentation", Transform)  # type: ignore[type-abstract]


@transforms.register("random_flip")
class RandomFlip(Transform):
    """Mirrors each image left to right with the given probability.

    Args:
        probability: of an image being mirrored, in each epoch anew.
    """

    def __init__(self, probability: float = 0.5):
        if not 0 <= probability <= 1:
            raise OptionError(f"probability {probability} is not in [0, 1]", "probability")
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
        if not 0 <= fill <= 255:
            raise OptionError(f"fill {fill} is not in [0, 255]", "fill")
        self.size = size
        self.fill = fill

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return rng.integers(0, pick.shape[:2], (len(pick), 2))  # row and column of the square's centre

    def apply(self, images: Array, options: Array) -> Array:
        first = options - self.size // 2
        count, height, width, channels = images.shape
        stop = first + self.size
        rows = between(np.arange(height), first[:, 0], stop[:, 0])
        columns = between(np.repeat(np.arange(width), channels), first[:, 1], stop[:, 1])
        out = images.copy(order="C")
        flat = out.reshape(count, height, width * channels)
        np.copyto(flat, self.fill, where=rows[:, :, None] & columns[:, None, :], casting="unsafe")
        return out


def between(places: Array, first: Array, stop: Array) -> Array:
    """Boolean ``(N, P)``, True where the ``(P,)`` places are in each of N ranges."""
    inside: Array = (places >= first[:, None]) & (places < stop[:, None])
    return inside
