"""Max and average pooling over windows, tap by tap: one strided pass for each place in a window.

``x`` is (N, H, W, C), ``y`` and ``dy`` are (N, out_h, out_w, C).
"""

import itertools
import math

import numpy as np

from cnnlite import engine
from cnnlite.kernels.windows import Windows
from cnnlite.types import Array


def _taps(windows: Windows) -> list[tuple[int, int]]:
    kh, kw = windows.kernel
    return list(itertools.product(range(kh), range(kw)))


def _sample_bytes(windows: Windows, itemsize: int) -> int:
    return (math.prod(windows.padded) + 2 * math.prod(windows.out)) * windows.channels * itemsize


def max_forward(x: Array, windows: Windows) -> Array:
    """The greatest number in each window; padding never wins."""
    y = engine.empty((len(x), *windows.out, windows.channels), x.dtype)
    first, *others = _taps(windows)

    def block(_: int, start: int, stop: int) -> None:
        image = windows.pad(x[start:stop], -math.inf)
        out = y[start:stop]
        np.copyto(out, windows.tap(image, *first))
        for tap in others:
            np.maximum(out, windows.tap(image, *tap), out=out)

    engine.for_blocks(block, len(x), _sample_bytes(windows, x.itemsize))
    return y


def max_backward(dy: Array, x: Array, y: Array, windows: Windows) -> Array:
    """``dy`` goes to the greatest number of each window; of equal ones, to the first in reading order."""
    dx = engine.empty(x.shape, x.dtype)
    *others, last = _taps(windows)

    def block(_: int, start: int, stop: int) -> None:
        image = windows.pad(x[start:stop], -math.inf)
        greatest, gradient = y[start:stop], dy[start:stop]
        open_ = engine.scratch("pooling.open", greatest.shape, np.bool_)
        here = engine.scratch("pooling.here", greatest.shape, np.bool_)
        open_[...] = True
        with _Scatter(dx[start:stop], windows) as scatter:
            for tap in others:
                np.equal(windows.tap(image, *tap), greatest, out=here)
                here &= open_
                open_ ^= here
                scatter.add(tap, gradient, here)
            scatter.add(last, gradient, open_)

    engine.for_blocks(block, len(x), 2 * _sample_bytes(windows, x.itemsize))
    return dx


def average_forward(x: Array, windows: Windows) -> Array:
    """The mean of each window; padding counts as zeros."""
    y = engine.empty((len(x), *windows.out, windows.channels), x.dtype)
    first, *others = _taps(windows)
    share = x.dtype.type(1 / math.prod(windows.kernel))

    def block(_: int, start: int, stop: int) -> None:
        image = windows.pad(x[start:stop])
        out = y[start:stop]
        np.copyto(out, windows.tap(image, *first))
        for tap in others:
            out += windows.tap(image, *tap)
        out *= share

    engine.for_blocks(block, len(x), _sample_bytes(windows, x.itemsize))
    return y


def average_backward(dy: Array, windows: Windows) -> Array:
    """``dy`` goes to all places of each window in equal shares."""
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)
    share = dy.dtype.type(1 / math.prod(windows.kernel))

    def block(_: int, start: int, stop: int) -> None:
        with _Scatter(dx[start:stop], windows) as scatter:
            for tap in _taps(windows):
                scatter.add(tap, dy[start:stop], share)

    engine.for_blocks(block, len(dy), _sample_bytes(windows, dy.itemsize))
    return dx


class _Scatter:
    """Adds ``values * factor`` to one place of every window, and on leaving has written ``dx`` (a block).

    Where windows neither overlap nor leave gaps nor reach into padding, each place is written once, without adding.
    """

    def __init__(self, dx: Array, windows: Windows):
        self.dx = dx
        self.windows = windows
        (h, w), (oh, ow) = windows.size, windows.out
        self.tiles = windows.kernel == windows.stride and windows.padded == (h, w) == (oh * windows.kernel[0], ow * windows.kernel[1])  # fmt: skip  # noqa: E501

    def __enter__(self) -> "_Scatter":
        bordered = self.windows.padded != self.windows.size
        shape = (len(self.dx), *self.windows.padded, self.windows.channels)
        self.image = engine.scratch("pooling.image", shape, self.dx.dtype) if bordered else self.dx
        if not self.tiles:
            self.image[...] = 0
        return self

    def add(self, tap: tuple[int, int], values: Array, factor: Array) -> None:
        target = self.windows.tap(self.image, *tap)
        if self.tiles:
            np.multiply(values, factor, out=target)
        else:
            part = engine.scratch("pooling.part", values.shape, values.dtype)
            target += np.multiply(values, factor, out=part)

    def __exit__(self, *_: object) -> None:
        if self.image is not self.dx:
            self.dx[...] = self.windows.inside(self.image)
