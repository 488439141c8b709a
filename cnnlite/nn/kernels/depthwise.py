"""Depthwise convolution: each channel has filters of its own, and sums are over the places of a window alone.

There is no matrix product in that, and im2col would copy each number once for each multiplication. Instead, rows of the
image, shifted and multiplied by weights, are added to rows of the output. `np.einsum` multiplies and adds in one pass,
through all places of a window before the next row, so that sums stay in the L1 cache.

Weights are (kernel_h, kernel_w, 1, F), F a multiple of C: channel c has the filters from c * F / C on.
"""

import math

import numpy as np

from cnnlite.nn.kernels.channelwise import add_per_channel
from cnnlite.nn.kernels.geometry import Windows, strides
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
