"""TrivialAugment: one change for each image, of random kind and strength."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np

from cnnlite.data.augment import colour
from cnnlite.data.augment.affine import rotation, warp
from cnnlite.data.augment.base import (
    Interpolation,
    Pick,
    Transform,
    check_fill,
    check_interpolation,
    transforms,
)
from cnnlite.errors import OptionError
from cnnlite.utils.types import Array

Change: TypeAlias = Callable[[Array, Array], Array]
"""Returns uint8 images ``(N, H, W, C)`` changed by their ``(N,)`` strengths."""


def _on_planes(change: Callable[[Array, Array], None], images: Array, strength: Array) -> Array:
    """Change images by a factor of 1 + strength with a function of `colour`."""
    planes = colour.to_planes(images)
    change(planes, 1 + strength)
    return colour.to_images(planes)


def _color(images: Array, strength: Array) -> Array:
    """Change the saturation; without red, green and blue there is none."""
    return _on_planes(colour.saturation, images, strength) if images.shape[-1] == 3 else images


def _posterize(images: Array, strength: Array) -> Array:
    """Keep the upper 8 - strength bits."""
    mask = (0xFF << strength.astype(np.int64)).astype(np.uint8)
    return images & mask[:, None, None, None]


def _solarize(images: Array, strength: Array) -> Array:
    """Invert values from 255 - strength on."""
    return np.where(images >= 255 - strength[:, None, None, None], 255 - images, images)


def _autocontrast(images: Array, _: Array) -> Array:
    """Stretch the values of each channel to 0..255; a channel of one value stays as it is."""
    low = images.min(axis=(1, 2), keepdims=True).astype(np.float32)
    high = images.max(axis=(1, 2), keepdims=True).astype(np.float32)
    scale = np.float32(255) / np.maximum(high - low, 1)
    stretched = ((images - low) * scale + np.float32(0.5)).astype(np.uint8)
    return np.where(high > low, stretched, images)


def _equalize(images: Array, _: Array) -> Array:
    """Spread the values of each channel so that its histogram becomes as even as it can, in the arithmetic of Pillow.

    A value becomes the number of pixels below it, divided by a 255th of those below the largest, and rounded.
    """
    count, channels = len(images), images.shape[-1]
    first = 256 * np.arange(count * channels).reshape(count, 1, 1, channels)
    place = first + images  # (N, H, W, C), in histograms one behind the other
    histogram = np.bincount(place.reshape(-1), minlength=first.size * 256).reshape(-1, 256)
    below = np.cumsum(histogram, axis=1) - histogram
    largest = images.max(axis=(1, 2)).reshape(-1, 1)
    step = np.take_along_axis(below, largest, axis=1) // 255
    table = np.minimum((below + step // 2) // np.maximum(step, 1), 255)
    evened: Array = np.where(step > 0, table, np.arange(256)).astype(np.uint8).reshape(-1)[place]
    return evened


_MOVES: tuple[str, ...] = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_CHANGES: dict[str, Change] = {
    "brightness": partial(_on_planes, colour.brightness),
    "color": _color,
    "contrast": partial(_on_planes, colour.contrast),
    "sharpness": partial(_on_planes, colour.sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
NAMES: tuple[str, ...] = ("identity", *_MOVES, *_CHANGES)
"""Names of the changes, in the order of their numbers."""
_LARGEST: dict[str, float] = {
    **dict.fromkeys(("shear_x", "shear_y", "brightness", "color", "contrast", "sharpness"), 0.99),
    **dict.fromkeys(("translate_x", "translate_y"), 32.0),
    "rotate": 135.0,
    "posterize": 6.0,
    "solarize": 255.0,
}
"""Largest strength; it is 0 for the others."""
_ONE_WAY = ("posterize", "solarize")
"""Changes whose strength is not negative."""
_WHOLE = {"translate_x": np.trunc, "translate_y": np.trunc, "posterize": np.rint}
"""Rounding of strengths that are whole numbers."""


@transforms.register("trivial_augment_wide")
class TrivialAugmentWide(Transform):
    """Changes each image in one of fourteen ways, by a random strength (Mueller & Hutter 2021, arXiv:2103.10158).

    Way and strength are uniform, in the paper's wide ranges: nothing; shear across or down, up to 0.99; translation
    across or down, up to 32 pixels, whatever the size; rotation, up to 135 degrees; brightness, color, contrast or
    sharpness, by factors from 0.01 to 1.99; posterization to 8 to 2 bits; solarization; autocontrast; equalization. The
    values are those of torchvision's TrivialAugmentWide, but rounded where it cuts them off, which makes a grey level
    of difference. Images without red, green and blue keep their color.

    Args:
        num_magnitude_bins: number of strengths of each way, from none to the largest.
        interpolation: nearest pixel, as in the paper, or between pixels, bilinear.
        fill: grey of what comes in from outside, from 0 for black to 255 for white.
    """

    def __init__(self, num_magnitude_bins: int = 31, interpolation: Interpolation = "nearest", fill: int = 0):
        if not 2 <= num_magnitude_bins <= 1000:
            raise OptionError(f"num_magnitude_bins {num_magnitude_bins} is not in 2..1000", "num_magnitude_bins")
        check_interpolation(interpolation)
        check_fill(fill)
        self.num_magnitude_bins = num_magnitude_bins
        self.interpolation = interpolation
        self.fill = fill

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        number = rng.integers(0, len(NAMES), len(pick))
        bins = rng.integers(0, self.num_magnitude_bins, len(pick))
        signs = rng.choice((-1.0, 1.0), len(pick))
        strength = np.zeros(len(pick))
        matrices = np.tile(np.eye(2, 3), (len(pick), 1, 1))
        for index, name in enumerate(NAMES):
            which = number == index
            levels = np.linspace(0, _LARGEST.get(name, 0.0), self.num_magnitude_bins)[bins[which]]
            levels = _WHOLE.get(name, np.asarray)(levels)
            strength[which] = levels if name in _ONE_WAY else levels * signs[which]
            if name in _MOVES:
                matrices[which] = _matrices(name, strength[which], pick.shape)
        return np.concatenate([number[:, None], strength[:, None], matrices.reshape(-1, 6)], axis=1)  # (N, 8)

    def apply(self, images: Array, options: Array) -> Array:
        number, strength, matrices = options[:, 0].astype(np.int64), options[:, 1], options[:, 2:].reshape(-1, 2, 3)
        out = images.copy(order="C")
        moved = np.flatnonzero((number > 0) & (number <= len(_MOVES)))
        if len(moved):
            out[moved] = warp(images[moved], matrices[moved], self.interpolation, self.fill)
        for index, name in enumerate(NAMES):
            which = np.flatnonzero(number == index)
            if name in _CHANGES and len(which):
                out[which] = _CHANGES[name](images[which], strength[which])
        return out


def _matrices(name: str, strength: Array, shape: tuple[int, ...]) -> Array:
    """Matrices for `warp` that move images of ``shape`` by their strengths, ``(N, 2, 3)``."""
    if name == "rotate":
        return rotation(strength, shape)
    matrices = np.tile(np.eye(2, 3), (len(strength), 1, 1))
    row = int(name.endswith("_x"))  # that of columns
    if name.startswith("translate"):
        matrices[:, row, 2] = -strength
    else:  # about the corner of the image, which is half a pixel from the centre of the first one
        matrices[:, row, 1 - row] = strength
        matrices[:, row, 2] = strength / 2
    return matrices
