"""Max and average pooling.

``x`` is (N, H, W, C), ``y`` and ``dy`` are (N, out_h, out_w, C). Windows are taken apart into taps, one array for each
place in a window, because arithmetic on contiguous arrays is several times as fast as on strided views of an image.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cnnlite import engine
from cnnlite.kernels.windows import Windows
from cnnlite.types import Array


def max_forward(x: Array, windows: Windows) -> Array:
    """The greatest number in each window; padding never wins."""
    y = engine.empty((len(x), *windows.out, windows.channels), x.dtype)

    def block(_: int, start: int, stop: int) -> None:
        max_of_block(x[start:stop], windows, y[start:stop])

    engine.for_blocks(block, len(x), _sample_bytes(windows, x.itemsize))
    return y


def max_backward(dy: Array, x: Array, windows: Windows) -> Array:
    """``dy`` goes to the greatest number of each window; of equal ones, to the first in reading order."""
    dx = engine.empty(x.shape, x.dtype)

    def block(_: int, start: int, stop: int) -> None:
        max_gradient_of_block(dy[start:stop], x[start:stop], windows, dx[start:stop])

    engine.for_blocks(block, len(x), 2 * _sample_bytes(windows, x.itemsize))
    return dx


def max_of_block(x: Array, windows: Windows, y: Array) -> None:
    """Write `max_forward` of a block to ``y``: first over the rows of windows, then over the columns."""
    (kh, kw), (out_h, _) = windows.kernel, windows.out
    image = windows.pad(x, -math.inf)
    rows = engine.scratch("pooling.rows", (len(x), out_h, *image.shape[2:]), x.dtype)
    np.copyto(rows, windows.rows(image, 0))
    for row in range(1, kh):
        np.maximum(rows, windows.rows(image, row), out=rows)
    np.copyto(y, windows.columns(rows, 0))
    for column in range(1, kw):
        np.maximum(y, windows.columns(rows, column), out=y)


def max_gradient_of_block(dy: Array, x: Array, windows: Windows, dx: Array) -> None:
    """Write `max_backward` of a block to ``dx``.

    From the last tap to the first: does a tap reach the greatest of those after it? Then, from the first on, a tap that
    does takes all that is left of ``dy``.
    """
    taps = windows.taps(windows.pad(x, -math.inf))
    wins = engine.scratch("pooling.wins", (len(taps) - 1, *taps.shape[1:]), np.bool_)
    rest = engine.scratch("pooling.rest", taps.shape[1:], x.dtype)
    greatest = taps[-1]
    for tap in reversed(range(len(wins))):
        np.greater_equal(taps[tap], greatest, out=wins[tap])
        greatest = np.maximum(taps[tap], greatest, out=rest)
    left = dy
    for tap, won in enumerate(wins):
        np.multiply(left, won, out=taps[tap])
        left = np.subtract(left, taps[tap], out=rest)
    _scatter([*taps[:-1], left], windows, dx)


def average_forward(x: Array, windows: Windows) -> Array:
    """The mean of each window; padding counts as zeros."""
    y = engine.empty((len(x), *windows.out, windows.channels), x.dtype)
    share = x.dtype.type(1 / math.prod(windows.kernel))

    def block(_: int, start: int, stop: int) -> None:
        taps = windows.taps(windows.pad(x[start:stop]))
        np.add.reduce(taps, axis=0, out=y[start:stop])
        y[start:stop] *= share

    engine.for_blocks(block, len(x), 2 * _sample_bytes(windows, x.itemsize))
    return y


def average_backward(dy: Array, windows: Windows) -> Array:
    """``dy`` goes to all places of each window in equal shares."""
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)
    share = dy.dtype.type(1 / math.prod(windows.kernel))

    def block(_: int, start: int, stop: int) -> None:
        part = engine.scratch("pooling.rest", dy[start:stop].shape, dy.dtype)
        np.multiply(dy[start:stop], share, out=part)
        _scatter([part] * math.prod(windows.kernel), windows, dx[start:stop])

    engine.for_blocks(block, len(dy), _sample_bytes(windows, dy.itemsize))
    return dx


def _sample_bytes(windows: Windows, itemsize: int) -> int:
    return (math.prod(windows.padded) + math.prod(windows.out)) * windows.channels * itemsize


def _scatter(taps: Sequence[Array], windows: Windows, dx: Array) -> None:
    """Write the sum of what all ``taps``, each (n, out_h, out_w, C), bring to their pixels to ``dx``."""
    bordered = windows.padded != windows.size
    image = engine.scratch("pooling.image", (len(dx), *windows.padded, windows.channels), dx.dtype) if bordered else dx
    if windows.kernel == windows.stride and windows.covered == windows.padded:  # each pixel is in one window
        for tap, target in zip(taps, _targets(image, windows), strict=True):
            np.copyto(target, tap)
    else:
        image[...] = 0
        for tap, target in zip(taps, _targets(image, windows), strict=True):
            target += tap
    if bordered:
        dx[...] = windows.inside(image)


def _targets(image: Array, windows: Windows) -> Iterator[Array]:
    kh, kw = windows.kernel
    for row in range(kh):
        for column in range(kw):
            yield windows.columns(windows.rows(image, row), column)
