"""Sliding windows: the geometry that convolution and pooling share, and views of an image as windows."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.runtime import engine
from cnnlite.utils.types import Array, Shape

Padding: TypeAlias = int | tuple[int, int] | Literal["same", "valid"]
Pair: TypeAlias = int | tuple[int, int]


MOST = 4096
"""Maximum kernel size, stride or padding, in pixels; more is a typing error, and would overflow later."""


def pair(value: Pair, name: str, least: int = 1) -> tuple[int, int]:
    """Expand one number or two to (height, width); ValueError below ``least`` or above `MOST`."""
    height, width = (value, value) if isinstance(value, int) else value
    if min(height, width) < least:
        raise OptionError(f"{name} must be at least {least}, not {value}", name)
    if max(height, width) > MOST:
        raise OptionError(f"{name} must be at most {MOST:,}, not {value}", name)
    return height, width


@dataclass(frozen=True)
class Windows:
    """Geometry of sliding windows: ``out`` windows of size ``kernel``, ``stride`` apart, on a padded image."""

    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    top_left: tuple[int, int]
    """Padding before the first row and column."""
    bottom_right: tuple[int, int]
    """Padding after the last row and column."""
    out: tuple[int, int]

    @staticmethod
    def fit(
        in_shape: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: Padding, *, exact: bool
    ) -> "Windows":
        """Fit windows to images of ``in_shape`` (H, W, C).

        out = floor((in + padding - kernel) / stride) + 1 (Dumoulin & Visin 2016, arXiv:1603.07285). Padding ``same``
        makes out = ceil(in / stride), with the odd row or column of padding at the end.

        Raises:
            ValueError: if no window fits, or with ``exact`` if windows do not reach the last row or column.
        """
        if len(in_shape) != 3:
            raise ValueError(f"expects images of shape (H, W, C), but its input has shape {in_shape}")
        axes = []
        for axis, (size, k, s) in enumerate(zip(in_shape[:2], kernel, stride, strict=True)):
            if padding == "same":
                total = max((math.ceil(size / s) - 1) * s + k - size, 0)
                low = total // 2
            else:
                low = 0 if padding == "valid" else pair(padding, "padding", least=0)[axis]
                total = 2 * low
            room = size + total - k
            sum_ = f"({size} + {total} - {k}) / {s} + 1 = {room / s + 1:g}"
            if room < 0:
                raise ValueError(f"a window of {k} does not fit on {'height' if axis == 0 else 'width'}: {sum_}")
            if exact and room % s:
                raise ValueError(f"windows must fit exactly (exact: true), but {sum_}")
            axes.append((size, k, s, low, total - low, room // s + 1))
        return Windows.of_axes(in_shape[2], *axes)

    @staticmethod
    def of_axes(channels: int, *axes: tuple[int, int, int, int, int, int]) -> "Windows":
        """Construct from size, kernel, stride, padding before and after, and number of windows of each axis."""
        size, kernel, stride, top_left, bottom_right, out = zip(*axes, strict=True)
        return Windows(size, channels, kernel, stride, top_left, bottom_right, out)

    @cached_property
    def padded(self) -> tuple[int, int]:
        """Height and width of the padded image."""
        (height, width), (top, left), (bottom, right) = self.size, self.top_left, self.bottom_right
        return top + height + bottom, left + width + right

    @cached_property
    def is_reshape(self) -> bool:
        """True if im2col is a reshape of the image: each window is one pixel, or the only one is the image."""
        if self.padded != self.size:
            return False
        return self.kernel == self.stride == (1, 1) or (self.kernel == self.size and self.out == (1, 1))

    @cached_property
    def covered(self) -> tuple[int, int]:
        """Height and width of the part of the padded image that windows reach."""
        (kh, kw), (sh, sw), (out_h, out_w) = self.kernel, self.stride, self.out
        return sh * (out_h - 1) + kh, sw * (out_w - 1) + kw

    @cached_property
    def of_rows(self) -> "Windows":
        """Windows one row high, at each row of the padded image, with this width and horizontal stride."""
        out = (self.padded[0], self.out[1])
        return replace(self, kernel=(1, self.kernel[1]), stride=(1, self.stride[1]), out=out)

    def rows(self, image: Array, row: int) -> Array:
        """Row ``row`` of every window, as a view (n, out_h, W, C) of padded images (n, H, W, C)."""
        stride = self.stride[0]
        return image[:, row : row + stride * (self.out[0] - 1) + 1 : stride]

    def columns(self, image: Array, column: int) -> Array:
        """Column ``column`` of every window, as a view (n, H, out_w, C) of padded images (n, H, W, C)."""
        stride = self.stride[1]
        return image[:, :, column : column + stride * (self.out[1] - 1) + 1 : stride]

    def places(self, image: Array) -> Iterator[Array]:
        """Iterate over the places of all windows in reading order, as views (n, out_h, out_w, C) of padded images."""
        for row, column in itertools.product(*map(range, self.kernel)):
            yield self.columns(self.rows(image, row), column)

    def taps(self, image: Array) -> Array:
        """Copy each place of all windows to scratch memory: (kernel_h * kernel_w, n, out_h, out_w, C)."""
        shape = (math.prod(self.kernel), len(image), *self.out, image.shape[3])
        taps = engine.scratch("windows.taps", shape, image.dtype)
        self.copy_taps(taps, image)
        return taps

    def copy_taps(self, taps: Array, image: Array, *, back: bool = False) -> None:
        """Copy padded images (n, H, W, C) to ``taps``, shaped as in `taps`, or ``back``."""
        sn, sy, sx, sc = strides(image)
        (oh, ow), (kh, kw), (sh, sw), c = self.out, self.kernel, self.stride, image.shape[3]
        pixel = np.dtype((np.void, c * sc))  # copied as one element, see `copy`
        shape = (kh, kw, len(image), oh, ow)
        there = np.ndarray(shape, pixel, image, 0, (sy, sx, sn, sy * sh, sx * sw))
        here = np.ndarray(shape, pixel, taps)
        np.copyto(there, here) if back else np.copyto(here, there)

    def copy(self, image: Array, out: Array) -> None:
        """Copy all windows of padded images to ``out``, n * out_h * out_w * kernel_h * kernel_w * C numbers (im2col).

        A row of a window is contiguous; NumPy copies it faster as one opaque element than as a loop over numbers.
        """
        sn, sy, sx, sc = strides(image)
        (oh, ow), (kh, kw), (sh, sw) = self.out, self.kernel, self.stride
        row = np.dtype((np.void, kw * image.shape[3] * sc))
        shape = (len(image), oh, ow, kh)
        np.copyto(np.ndarray(shape, row, out), np.ndarray(shape, row, image, 0, (sn, sy * sh, sx * sw, sy)))

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """Pad ``x`` (n, H, W, C) with ``value``, see `framed`."""
        return framed(x, self.top_left, self.padded, value)

    def scatter(self, taps: Array, dx: Array) -> None:
        """Write to ``dx`` the sums over pixels of ``taps`` (kernel_h * kernel_w, n, out_h, out_w, C) (col2im)."""
        bordered = self.padded != self.size
        image = engine.scratch("windows.image", (len(dx), *self.padded, self.channels), dx.dtype) if bordered else dx
        if self.kernel == self.stride and taps.flags.c_contiguous:  # each pixel is in one window at the most
            height, width = self.covered
            image[:, height:] = 0
            image[:, :height, width:] = 0
            self.copy_taps(taps, image, back=True)
        else:
            image[...] = 0
            for tap, target in zip(taps, self.places(image), strict=True):
                target += tap
        if bordered:
            (top, left), (height, width) = self.top_left, self.size
            dx[...] = image[:, top : top + height, left : left + width]


def framed(x: Array, top_left: tuple[int, int], size: tuple[int, int], value: float = 0.0) -> Array:
    """Place ``x`` (n, H, W, C) at ``top_left`` in images of ``size`` that are ``value`` elsewhere.

    Returns:
        Contiguous images in scratch memory; ``x`` itself if it has this size.
    """
    (top, left), (n, height, width, channels) = top_left, x.shape
    if (height, width) == size:
        return np.ascontiguousarray(x)
    image = engine.scratch("windows.framed", (n, *size, channels), x.dtype)
    bottom, right = top + height, left + width
    image[:, :top] = value
    image[:, bottom:] = value
    image[:, top:bottom, :left] = value
    image[:, top:bottom, right:] = value
    image[:, top:bottom, left:right] = x
    return image


def strides(image: Array) -> tuple[int, ...]:
    """Strides in bytes of contiguous images; NumPy's own may be anything on axes of length 1."""
    return _strides(image.shape, image.itemsize)


@lru_cache(maxsize=1024)
def _strides(shape: Shape, itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
