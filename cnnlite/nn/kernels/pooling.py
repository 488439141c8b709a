"""Max and average pooling.

``x`` is (N, H, W, C), ``y`` and ``dy`` are (N, out_h, out_w, C). Windows are taken apart into taps, one array for each
place in a window, because arithmetic on contiguous arrays is several times as fast as on strided views of an image.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cnnlite.nn.kernels.geometry import Windows
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array, DType


def max_forward(x: Array, windows: Windows, signs: Array | None = None) -> Array:
    """Maximum of each window; padding never wins. Where ``signs`` (C,) are -1, the minimum instead."""
    y = engine.empty((len(x), *windows.out, windows.channels), x.dtype)

    def block(start: int, stop: int) -> None:
        part, out = x[start:stop], y[start:stop]
        if signs is not None:
            part = np.multiply(part, signs, out=engine.scratch("pooling.signed", part.shape, x.dtype))
        _greatest(part, windows, out)
        if signs is not None:
            out *= signs

    engine.for_blocks(block, len(x), _sample_bytes(windows, x.itemsize))
    return y


def _greatest(x: Array, windows: Windows, y: Array) -> None:
    """Write the maximum of each window of a block to ``y``: first over rows of windows, then over columns."""
    (kh, kw), (out_h, _) = windows.kernel, windows.out
    image = windows.pad(x, -math.inf)
    rows = engine.scratch("pooling.rows", (len(x), out_h, *image.shape[2:]), x.dtype)
    _maximum([windows.rows(image, row) for row in range(kh)], rows)
    _maximum([windows.columns(rows, column) for column in range(kw)], y)


def _maximum(arrays: Sequence[Array], out: Array) -> None:
    np.maximum(arrays[0], arrays[-1], out=out)  # a copy if there is one only
    for array in arrays[1:-1]:
        np.maximum(out, array, out=out)


def max_backward(dy: Array, x: Array, y: Array, windows: Windows) -> Array:
    """Gradient with respect to ``x``: ``dy`` goes to the maximum of each window, the first in reading order."""
    dx = engine.empty(x.shape, x.dtype)

    def block(start: int, stop: int) -> None:
        max_gradient_of_block(dy[start:stop], x[start:stop], y[start:stop], windows, dx[start:stop])

    engine.for_blocks(block, len(x), 2 * _sample_bytes(windows, x.itemsize))
    return dx


def max_gradient_of_block(dy: Array, x: Array, y: Array, windows: Windows, dx: Array) -> None:
    """Write `max_backward` of a block to ``dx``: each tap that equals ``y`` takes all that is left of ``dy``."""
    taps = windows.taps(windows.pad(x, -math.inf))
    wins = engine.scratch("pooling.wins", y.shape, np.bool_)
    rest = engine.scratch("pooling.rest", y.shape, y.dtype)
    left = dy
    for tap in taps[:-1]:
        np.equal(tap, y, out=wins)
        np.multiply(left, wins, out=tap)
        left = np.subtract(left, tap, out=rest)
    taps[-1] = left
    windows.scatter(taps, dx)


def average_forward(x: Array, windows: Windows) -> Array:
    """Mean of each window; padding counts as zeros, but not what windows reach beyond it (overhang)."""
    y = engine.empty((len(x), *windows.out, windows.channels), x.dtype)
    share = _share(windows, x.dtype)

    def block(start: int, stop: int) -> None:
        taps = windows.taps(windows.pad(x[start:stop]))
        np.add.reduce(taps, axis=0, out=y[start:stop])
        y[start:stop] *= share

    engine.for_blocks(block, len(x), 2 * _sample_bytes(windows, x.itemsize))
    return y


def average_backward(dy: Array, windows: Windows) -> Array:
    """Gradient with respect to the input: ``dy`` goes to all places of each window in equal shares."""
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)
    share = _share(windows, dy.dtype)

    def block(start: int, stop: int) -> None:
        taps = engine.scratch("windows.taps", (math.prod(windows.kernel), *dy[start:stop].shape), dy.dtype)
        np.multiply(dy[start:stop], share, out=taps)
        windows.scatter(taps, dx[start:stop])

    engine.for_blocks(block, len(dy), _sample_bytes(windows, dy.itemsize))
    return dx


def counted(windows: Windows) -> Array:
    """Numbers of which each window has the mean, (out_h, out_w)."""
    axes = zip(windows.kernel, windows.stride, windows.out, windows.padded, windows.overhang, strict=True)
    rows, columns = (np.minimum(k, size - beyond - s * np.arange(out)) for k, s, out, size, beyond in axes)
    return np.multiply.outer(rows, columns)


def _share(windows: Windows, dtype: DType) -> Array:
    """Share of a number in the mean of its window: the same everywhere, or (out_h, out_w, 1)."""
    if windows.overhang == (0, 0):
        return np.array(1 / math.prod(windows.kernel), dtype)
    return (1 / counted(windows))[..., None].astype(dtype)


def adaptive_forward(x: Array, out: tuple[int, int]) -> Array:
    """Mean of each of (out_h, out_w) windows that cover the image; see `shares`."""
    return _weighted_sums(x, *(shares(size, count) for size, count in zip(x.shape[1:3], out, strict=True)))


def adaptive_backward(dy: Array, size: tuple[int, int]) -> Array:
    """Gradient with respect to the input, images of ``size``: ``dy`` goes to all places of each window alike."""
    return _weighted_sums(dy, *(shares(pixels, count).T for pixels, count in zip(size, dy.shape[1:3], strict=True)))


@lru_cache(maxsize=64)
def shares(size: int, out: int) -> Array:
    """Shares of pixels in the means of ``out`` windows along an axis, (out, size): row i has the sum 1.

    Window i is from floor(i * size / out) to ceil((i + 1) * size / out), as in PyTorch.
    """
    matrix = np.zeros((out, size))
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _weighted_sums(x: Array, rows: Array, columns: Array) -> Array:
    """Sums over the pixels of each channel: y[n, i, j] = sum over h, w of rows[i, h] * columns[j, w] * x[n, h, w]."""
    width, channels = x.shape[2:]
    rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
    y = engine.empty((len(x), len(rows), len(columns), channels), x.dtype)

    def block(start: int, stop: int) -> None:
        half = engine.scratch("pooling.half", (stop - start, len(rows), width, channels), x.dtype)
        flat = (stop - start, -1, width * channels)
        np.matmul(rows, x[start:stop].reshape(flat), out=half.reshape(flat))
        np.matmul(columns, half, out=y[start:stop])

    shards.for_shards(block, len(x), x[0].nbytes + 2 * y[0].nbytes)
    return y


def _sample_bytes(windows: Windows, itemsize: int) -> int:
    return (math.prod(windows.padded) + math.prod(windows.out)) * windows.channels * itemsize
