"""Transforms that look up each pixel of the new image at some place of the old one, between its pixels if need be."""

from typing import Annotated

import numpy as np

from cnnlite.data.augment.base import (
    Interpolation,
    Pick,
    Range,
    Spread,
    Transform,
    check_fill,
    check_interpolation,
    interval,
    spread,
    transforms,
)
from cnnlite.data.augment.erasing import draw_rectangles
from cnnlite.utils.types import Array, Shape


@transforms.register("random_rotation")
class RandomRotation(Transform):
    """Turns each image about its centre by a random angle, and keeps its size.

    As torchvision's RandomRotation, but for ``interpolation``, which is nearest there. Beyond its border the image goes
    on in ``fill``, so that bilinear interpolation blends the two there.

    Args:
        degrees: largest angle either way, or [least, largest]; positive ones turn counter-clockwise.
        interpolation: between pixels, bilinear; or the value of the nearest one.
        fill: grey of the corners that come in, from 0 for black to 255 for white.
    """

    def __init__(self, degrees: Spread = 15.0, interpolation: Interpolation = "bilinear", fill: int = 0):
        self._bounds = spread(degrees, "degrees", 0.0, -360.0, 360.0)
        check_interpolation(interpolation)
        check_fill(fill)
        self.degrees = degrees
        self.interpolation = interpolation
        self.fill = fill

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        return rotation(rng.uniform(*self._bounds, len(pick)), pick.shape)

    def apply(self, images: Array, options: Array) -> Array:
        return warp(images, options, self.interpolation, self.fill)


@transforms.register("random_translation")
class RandomTranslation(Transform):
    """Moves each image across and down by whole pixels.

    As ``translate`` of torchvision's RandomAffine. `random_crop` does the same for a number of pixels.

    Args:
        translate: largest distances across and down, as shares of width and height, or one number for both.
        fill: grey of the border that comes in, from 0 for black to 255 for white.
    """

    def __init__(
        self, translate: float | Annotated[tuple[float, float], "a list of 2: [across, down]"] = 0.1, fill: int = 0
    ):
        across, down = (translate, translate) if isinstance(translate, int | float) else translate
        for share in (across, down):
            spread(share, "translate", 0.0, -1.0, 1.0)
        check_fill(fill)
        self._shares = (down, across)
        self.translate = translate
        self.fill = fill

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        most = np.array(self._shares) * pick.shape[:2]
        return np.rint(rng.uniform(-most, most, (len(pick), 2)))  # rows and columns

    def apply(self, images: Array, options: Array) -> Array:
        height, width = images.shape[1:3]
        rows = np.arange(height) - options[:, :1]  # (N, H)
        columns = np.arange(width) - options[:, 1:]  # (N, W)
        return sample(images, rows[:, :, None], columns[:, None, :], "nearest", self.fill)


@transforms.register("random_resized_crop")
class RandomResizedCrop(Transform):
    """Cuts a rectangle out of each image and scales it to the old size (Szegedy et al. 2014, arXiv:1409.4842).

    As torchvision's RandomResizedCrop, and with its defaults; the size is that of the images. A share of 0.08 is 9x9
    pixels of 32x32: small images want more, such as ``scale: [0.4, 1.0]``.

    Args:
        scale: least and largest area of the rectangle, as shares of the image's.
        ratio: least and largest width of the rectangle divided by its height.
        interpolation: between pixels, bilinear; or the value of the nearest one.
    """

    def __init__(
        self,
        scale: Range = (0.08, 1.0),
        ratio: Range = (0.75, 4 / 3),
        interpolation: Interpolation = "bilinear",
    ):
        self.scale = interval(scale, "scale", most=1.0)
        self.ratio = interval(ratio, "ratio")
        check_interpolation(interpolation)
        self.interpolation = interpolation

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        first, sides = draw_rectangles(rng, len(pick), pick.shape, self.scale, self.ratio)
        height, width = pick.shape[:2]
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        largest = np.array([min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))])
        none = sides[:, 0] == 0  # the largest one in the centre instead
        sides[none], first[none] = largest, (pick.shape[:2] - largest) // 2
        return np.concatenate([first, sides], axis=1)  # (N, 4)

    def apply(self, images: Array, options: Array) -> Array:
        rows, columns = (
            _spaced(options[:, axis], options[:, 2 + axis], images.shape[1 + axis]) for axis in (0, 1)
        )  # (N, H), (N, W)
        return sample(images, rows[:, :, None], columns[:, None, :], self.interpolation, 0)


def _spaced(first: Array, side: Array, count: int) -> Array:
    """Centres of ``count`` pixels that share ``side`` pixels from ``first`` on, float64 ``(N, count)``.

    The outer ones are moved onto the first and the last pixel: nothing outside of the rectangle is looked at.
    """
    centres = (np.arange(count) + 0.5) * (side / count)[:, None] - 0.5
    inside: Array = first[:, None] + np.clip(centres, 0, side[:, None] - 1)
    return inside


def rotation(degrees: Array, shape: Shape) -> Array:
    """Matrices for `warp` that turn images of ``shape`` counter-clockwise about their centres, ``(N, 2, 3)``."""
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    rows = [[cosine, sine, y - cosine * y - sine * x], [-sine, cosine, x + sine * y - cosine * x]]
    return np.moveaxis(np.array(rows), 2, 0)


def warp(images: Array, matrices: Array, interpolation: Interpolation, fill: int) -> Array:
    """Move the pixels of uint8 images ``(N, H, W, C)``: that at (row, column) comes from matrix @ (row, column, 1).

    ``matrices`` are ``(N, 2, 3)``; what comes from outside is ``fill``.
    """
    height, width = images.shape[1:3]
    along_rows, along_columns, start = np.moveaxis(matrices.astype(np.float32), 2, 0)[..., None, None]  # (N, 2, 1, 1)
    places = along_rows * np.arange(height, dtype=np.float32)[:, None] + start  # (N, 2, H, 1)
    places = places + along_columns * np.arange(width, dtype=np.float32)  # (N, 2, H, W)
    return sample(images, places[:, 0], places[:, 1], interpolation, fill)


def sample(images: Array, rows: Array, columns: Array, interpolation: Interpolation, fill: int) -> Array:
    """Look up pixels of uint8 images ``(N, H, W, C)``, which are surrounded by ``fill``, at fractional places.

    ``rows`` and ``columns`` broadcast to ``(N, h, w)``; 0 is the centre of the first pixel. Values between pixels are
    rounded to the nearest byte.

    Returns:
        uint8 ``(N, h, w, C)``.
    """
    count, height, width, channels = images.shape
    # A border of one pixel, to which all places outside are moved; with one more there is always a next pixel.
    planes = np.full((channels, count, height + 3, width + 3), fill, np.float32)
    planes[:, :, 1:-2, 1:-2] = images.transpose(3, 0, 1, 2)
    stride = width + 3
    border = np.float32(1.5 if interpolation == "nearest" else 1)  # halfway between two pixels the next one is nearest
    rows = np.clip(rows.astype(np.float32, copy=False), -1, height) + border
    columns = np.clip(columns.astype(np.float32, copy=False), -1, width) + border
    above, left = rows.astype(np.intp), columns.astype(np.intp)
    index = (np.arange(count) * ((height + 3) * stride))[:, None, None] + above * stride + left
    down, right = rows - np.floor(rows), columns - np.floor(columns)
    out = np.empty((*index.shape, channels), np.uint8)
    first, second, third, fourth = corners = np.empty((4, *index.shape), np.float32)
    for channel, plane in enumerate(planes.reshape(channels, -1)):
        # Nothing is to be clipped; but the other modes check each place, and copy.
        if interpolation == "nearest":
            out[..., channel] = plane.take(index, out=first, mode="clip")
            continue
        for corner, step in zip(corners, (0, 1, stride, stride + 1), strict=True):
            plane[step:].take(index, out=corner, mode="clip")
        _blend(first, second, right)
        _blend(third, fourth, right)
        _blend(first, third, down)
        first += np.float32(0.5)
        out[..., channel] = first
    return out


def _blend(one: Array, other: Array, share: Array) -> None:
    """Change ``one`` by ``share`` of the way to ``other``, which is lost."""
    other -= one
    other *= share
    one += other
