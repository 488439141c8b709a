"""Depthwise convolution: each channel has filters of its own, and sums are over the places of a window alone.

There is no matrix product in that, and im2col would copy each number once for each multiplication. Instead, rows of the
image, shifted and multiplied by weights, are added to rows of the output. `np.einsum` multiplies and adds in one pass,
through all places of a window before the next row, so that sums stay in the L1 cache.

Weights are (kernel_h, kernel_w, 1, F), F a multiple of C: channel c has the filters from c * F / C on.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from cnnlite.nn.kernels.channelwise import add_per_channel
from cnnlite.nn.kernels.geometry import Axis, Windows, strides
from cnnlite.nn.kernels.matmul import sum_over_blocks
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array


def fits(windows: Windows) -> bool:
    """True if each of several channels is a group."""
    return 1 < windows.groups == windows.channels


def forward(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """Convolve each channel of ``x`` with its filters."""
    filters = weight.shape[3]
    y = engine.empty((len(x), *windows.out, filters), x.dtype)
    weights = np.repeat(weight, windows.out[1], axis=2).reshape(*windows.kernel, -1)  # as long as rows of the output

    def block(start: int, stop: int) -> None:
        out = y[start:stop].reshape(stop - start, windows.out[0], -1)
        np.einsum("rsnij,rsj->nij", _rows(_image(x[start:stop], windows, filters), windows), weights, out=out)
        if bias is not None:
            add_per_channel(y[start:stop], bias)

    shards.for_shards(block, len(x), _sample_bytes(windows, filters, x.itemsize))
    return y


class Phase(NamedTuple):
    """Pixels that meet the same weights: one of each stride, in height and in width."""

    pixels: tuple[slice, slice]
    weights: tuple[slice, slice]
    turned: Windows
    """Geometry of the convolution that gives the gradients of these pixels."""


@lru_cache(maxsize=256)
def phases(windows: Windows, filters: int) -> tuple[Phase, ...] | None:
    """Find the phases of the pixels, but for those that meet no weight; None where `input_gradient` cannot be used."""
    if filters != windows.channels or windows.dilation != (1, 1):
        return None
    axes = [list(_phases_along(windows, axis)) for axis in (0, 1)]
    if any(min(turned.before, turned.after) < 0 for _, _, turned in itertools.chain(*axes)):
        return None
    return tuple(
        Phase((rows, columns), (down, along), Windows.of_axes(filters, row, column, groups=filters))
        for (rows, down, row), (columns, along, column) in itertools.product(*axes)
    )


def _phases_along(windows: Windows, axis: int) -> Iterator[tuple[slice, slice, Axis]]:
    """Pixels, weights and geometry of each phase of an axis."""
    size, out, top = windows.size[axis], windows.out[axis], windows.top_left[axis]
    kernel, stride = windows.kernel[axis], windows.stride[axis]
    for phase in range(min(stride, kernel)):
        pixel = (phase - top) % stride
        first, count, k = (pixel + top) // stride, len(range(pixel, size, stride)), len(range(phase, kernel, stride))
        if count:
            turned = Axis(out, k, 1, k - 1 - first, first + count - out, count)
            yield slice(pixel, None, stride), slice(phase, None, stride), turned


def input_gradient(dy: Array, weight: Array, windows: Windows, parts: Sequence[Phase]) -> Array:
    """Gradient with respect to the input: for each of its ``parts``, a convolution of ``dy``.

    On the padded image, dx[i*s + a] = sum over r of dy[i - r] * weight[r*s + a] for phase a (of each axis).
    """
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)
    found = [(part.pixels, forward(dy, weight[part.weights][::-1, ::-1], None, part.turned)) for part in parts]

    def block(start: int, stop: int) -> None:
        if len(parts) < math.prod(windows.stride):
            dx[start:stop] = 0
        for (rows, columns), z in found:
            dx[start:stop, rows, columns] = z[start:stop]

    engine.for_blocks(block, len(dy), 2 * dx[0].nbytes)
    return dx


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    """Write the gradient of the weights to ``dweight``."""
    filters = dweight.shape[3]

    def product(start: int, stop: int, out: Array) -> None:
        sums = engine.scratch("depthwise.sums", (stop - start, *windows.kernel, filters), x.dtype)  # short: more digits
        shifted = windows.shifted(_image(x[start:stop], windows, filters))
        np.einsum("rsnijc,nijc->nrsc", shifted, dy[start:stop], out=sums)
        np.add.reduce(sums, axis=0, out=out.reshape(sums.shape[1:]))

    def shard(first: int, last: int, out: Array) -> None:
        sum_over_blocks(product, first, last, _sample_bytes(windows, filters, x.itemsize), out)

    shards.sum_over_shards(shard, len(x), dweight)


def _image(x: Array, windows: Windows, filters: int) -> Array:
    """Pad a block, and repeat each channel for each of its filters: (n, padded_h, padded_w, F)."""
    image, times = windows.pad(x), filters // windows.channels
    return image if times == 1 else np.repeat(image, times, axis=3)


def _rows(image: Array, windows: Windows) -> Array:
    """View rows of a padded image as the windows of rows of the output: (kernel_h, kernel_w, n, out_h, out_w * F).

    They are contiguous, for which a horizontal stride needs copies.
    """
    (kh, kw), (out_h, out_w), (dh, dw) = windows.kernel, windows.out, windows.dilation
    *_, sn, sy, sx, sc = strides(image)
    place = sx * dw
    if windows.stride[1] > 1:
        image = windows.of_rows.taps(image)  # (kernel_w, n, padded_h, out_w, F)
        place, sn, sy, sx, sc = strides(image)
    shape = (kh, kw, image.shape[-4], out_h, out_w * image.shape[-1])
    return np.ndarray(shape, image.dtype, image, 0, (sy * dh, place, sn, sy * windows.stride[0], sc))


def _sample_bytes(windows: Windows, filters: int, itemsize: int) -> int:
    return (math.prod(windows.padded) + math.prod(windows.out)) * filters * itemsize
