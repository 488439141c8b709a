"""Sliding windows: the geometry that convolution and pooling share, and views of an image as windows."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, TypeAlias

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


class Axis(NamedTuple):
    """Geometry of `Windows` along height or width."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    out: int
    dilation: int = 1
    overhang: int = 0


def refuse_flat(in_shape: Shape) -> None:
    """Raise ValueError if a sample is no image (H, W, C)."""
    if len(in_shape) != 3:
        raise ValueError(f"expects images of shape (H, W, C), but its input has shape {in_shape}")


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
    dilation: tuple[int, int] = (1, 1)
    """Pixels from one place in a window to the next."""
    overhang: tuple[int, int] = (0, 0)
    """Last rows and columns of the padding, which only windows that were rounded up reach: a mean leaves them out."""
    groups: int = 1
    """Number of equal parts of the channels, each of which is convolved by itself."""

    @staticmethod
    def fit(
        in_shape: Shape,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: Padding,
        *,
        exact: bool,
        ceil: bool = False,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> "Windows":
        """Fit windows to images of ``in_shape`` (H, W, C).

        out = floor((in + padding - extent) / stride) + 1, where extent = (kernel - 1) * dilation + 1 (Dumoulin & Visin
        2016, arXiv:1603.07285). With ``ceil`` it is rounded up, but a window that would begin behind the image is left
        out. Padding ``same`` makes out = ceil(in / stride), with the odd row or column of padding at the end.

        Raises:
            ValueError: if no window fits, or with ``exact`` if windows do not reach the last row or column, or if the
                groups do not divide the channels.
        """
        refuse_flat(in_shape)
        if in_shape[2] % groups:
            raise ValueError(f"groups must divide the channels of the input, but {groups} do not divide {in_shape[2]}")
        axes = []
        for axis, (size, k, s, d) in enumerate(zip(in_shape[:2], kernel, stride, dilation, strict=True)):
            extent = (k - 1) * d + 1
            if padding == "same":
                total = max((math.ceil(size / s) - 1) * s + extent - size, 0)
                low = total // 2
            else:
                low = 0 if padding == "valid" else pair(padding, "padding", least=0)[axis]
                total = 2 * low
            room = size + total - extent
            sum_ = f"({size} + {total} - {extent}) / {s} + 1 = {room / s + 1:g}"
            out = (-(-room // s) if ceil else room // s) + 1
            if ceil and (out - 1) * s >= size + low:
                out -= 1
            if out < 1:
                raise ValueError(f"a window of {extent} does not fit on {'height' if axis == 0 else 'width'}: {sum_}")
            if exact and room % s:
                raise ValueError(f"windows must fit exactly (exact: true), but {sum_}")
            overhang = max((out - 1) * s - room, 0)
            axes.append(Axis(size, k, s, low, total - low + overhang, out, d, overhang))
        return Windows.of_axes(in_shape[2], *axes, groups=groups)

    @staticmethod
    def of_axes(channels: int, *axes: Axis, groups: int = 1) -> "Windows":
        """Construct from the geometry of both axes."""
        size, kernel, stride, top_left, bottom_right, out, dilation, overhang = zip(*axes, strict=True)
        return Windows(size, channels, kernel, stride, top_left, bottom_right, out, dilation, overhang, groups)

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
        return self.kernel == self.stride == (1, 1) or (
            self.kernel == self.size and self.out == (1, 1) and self.groups == 1
        )

    @cached_property
    def covered(self) -> tuple[int, int]:
        """Height and width of the part of the padded image that windows without dilation reach."""
        (kh, kw), (sh, sw), (out_h, out_w) = self.kernel, self.stride, self.out
        return sh * (out_h - 1) + kh, sw * (out_w - 1) + kw

    @cached_property
    def on_padded(self) -> "Windows":
        """The same windows, on an image that has been padded."""
        return replace(self, size=self.padded, top_left=(0, 0), bottom_right=(0, 0), overhang=(0, 0))

    @cached_property
    def of_rows(self) -> "Windows":
        """Windows one row high, at each row of the padded image, with this width and horizontal stride."""
        out = (self.padded[0], self.out[1])
        return replace(self, kernel=(1, self.kernel[1]), stride=(1, self.stride[1]), out=out)

    def rows(self, image: Array, row: int) -> Array:
        """Row ``row`` of every window, as a view (n, out_h, W, C) of padded images (n, H, W, C)."""
        first, stride = row * self.dilation[0], self.stride[0]
        return image[:, first : first + stride * (self.out[0] - 1) + 1 : stride]

    def columns(self, image: Array, column: int) -> Array:
        """Column ``column`` of every window, as a view (n, H, out_w, C) of padded images (n, H, W, C)."""
        first, stride = column * self.dilation[1], self.stride[1]
        return image[:, :, first : first + stride * (self.out[1] - 1) + 1 : stride]

    def places(self, image: Array) -> Iterator[Array]:
        """Iterate over the places of all windows in reading order, as views (n, out_h, out_w, C) of padded images."""
        for row, column in itertools.product(*map(range, self.kernel)):
            yield self.columns(self.rows(image, row), column)

    def shifted(self, image: Array) -> Array:
        """View all places of all windows of padded images (n, H, W, C): (kernel_h, kernel_w, n, out_h, out_w, C)."""
        sn, sy, sx, sc = strides(image)
        (sh, sw), (dh, dw) = self.stride, self.dilation
        shape = (*self.kernel, len(image), *self.out, image.shape[3])
        return np.ndarray(shape, image.dtype, image, 0, (sy * dh, sx * dw, sn, sy * sh, sx * sw, sc))

    def taps(self, image: Array) -> Array:
        """Copy each place of all windows to scratch memory: (kernel_h * kernel_w, n, out_h, out_w, C)."""
        shape = (math.prod(self.kernel), len(image), *self.out, image.shape[3])
        taps = engine.scratch("windows.taps", shape, image.dtype)
        self.copy_taps(taps, image)
        return taps

    def copy_taps(self, taps: Array, image: Array, *, back: bool = False) -> None:
        """Copy padded images (n, H, W, C) to ``taps``, shaped as in `taps`, or ``back``."""
        pixel = np.dtype((np.void, image.shape[3] * image.itemsize))  # copied as one element, see `copy`
        there = self.shifted(np.ndarray((*image.shape[:3], 1), pixel, image))[..., 0]
        here = np.ndarray(there.shape, pixel, taps)
        np.copyto(there, here) if back else np.copyto(here, there)

    def copy(self, image: Array, out: Array) -> None:
        """Copy all windows of padded images to ``out``, (groups, n, out_h, out_w, kernel_h, kernel_w, C / groups).

        What is contiguous, a row of a window or else the channels of a group, NumPy copies faster as one opaque element
        than as a loop over numbers (im2col).
        """
        sn, sy, sx, sc = strides(image)
        (oh, ow), (kh, kw), (sh, sw), (dh, dw) = self.out, self.kernel, self.stride, self.dilation
        run = image.shape[3] // self.groups * sc
        shape: Shape = (self.groups, len(image), oh, ow, kh, kw)
        steps: Shape = (run, sn, sy * sh, sx * sw, sy * dh, sx * dw)
        if self.groups == dw == 1:
            shape, steps, run = shape[:-1], steps[:-1], kw * run
        piece = np.dtype((np.void, run))
        np.copyto(np.ndarray(shape, piece, out), np.ndarray(shape, piece, image, 0, steps))

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """Pad ``x`` (n, H, W, C) with ``value``, see `framed`."""
        return framed(x, self.top_left, self.padded, value)

    def scatter(self, taps: Array, dx: Array) -> None:
        """Write to ``dx`` the sums over pixels of ``taps`` (kernel_h * kernel_w, n, out_h, out_w, C) (col2im).

        The last axis may be two, (groups, C / groups).
        """
        bordered = self.padded != self.size
        image = engine.scratch("windows.image", (len(dx), *self.padded, self.channels), dx.dtype) if bordered else dx
        # Each pixel is in one window at the most?
        if self.kernel == self.stride and self.dilation == (1, 1) and taps.flags.c_contiguous:
            height, width = self.covered
            image[:, height:] = 0
            image[:, :height, width:] = 0
            self.copy_taps(taps, image, back=True)
        else:
            image[...] = 0
            for tap, place in zip(taps, self.places(image), strict=True):
                target = place.reshape(tap.shape)  # a view
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
