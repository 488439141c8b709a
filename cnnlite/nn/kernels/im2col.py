"""Convolution by im2col: windows are copied to the rows of a matrix, which is multiplied by the weights.

Chellapilla, Puri & Simard 2006, "High performance convolutional neural networks for document processing". Two ways of
copying: whole windows (kernel_h * kernel_w copies of each pixel, one product), or their rows alone (kernel_w copies,
and kernel_h products that are added up), which is cheaper where channels are few and copying outweighs multiplying.

Weights are (kernel_h, kernel_w, C / groups, F) throughout, images (N, H, W, C), outputs (N, out_h, out_w, F). There is
a product for each group; rows are copied where there is only one.
"""

import math

import numpy as np

from cnnlite.nn.kernels.channelwise import add_per_channel
from cnnlite.nn.kernels.geometry import Windows
from cnnlite.nn.kernels.matmul import matmul_rows, sum_of_products, sum_over_blocks, write_or_add
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array

LARGE_WEIGHTS = 512 * 1024
"""Bytes of weights above which a matrix product needs `LEAST_ROWS`, and partial sums of gradients cost too much."""
LEAST_ROWS = 256
PIECES = 16
"""Parts of the gradient of large weights, each computed by one core."""
CHUNK_BYTES = 32 * 2**20
"""Maximum size of the im2col matrix of a chunk of samples, where it is computed before being multiplied."""

KEPT_BYTES = 2**20
"""Maximum size of an im2col matrix kept for the gradient: to compute a larger one again costs less than to read it."""


def im2col(x: Array, windows: Windows, out: Array | None = None) -> Array:
    """Copy the windows of a block to rows: (groups, n * out_h * out_w, kernel_h * kernel_w * C / groups).

    They go to ``out``, or to scratch memory if it is None; where no copy is needed, the result is a view of ``x``.
    """
    count = len(x) * math.prod(windows.out)
    if windows.is_reshape:
        return _by_group(x.reshape(count, -1), windows)
    if out is None:
        out = engine.scratch("unfold.columns", (count, math.prod(windows.kernel) * windows.channels), x.dtype)
    windows.copy(windows.pad(x), out)
    return out.reshape(windows.groups, count, -1)


def _by_group(matrix: Array, windows: Windows) -> Array:
    """View a matrix (rows, columns) whose columns belong to groups as (groups, rows, columns / groups)."""
    return matrix.reshape(len(matrix), windows.groups, -1).transpose(1, 0, 2)


def rows(x: Array, windows: Windows) -> Array:
    """Rows of all windows of a block: (n, padded_h, out_w, kernel_w * C), in scratch memory or a view of ``x``."""
    return im2col(x, windows.of_rows).reshape(len(x), *windows.of_rows.out, -1)


def forward(
    x: Array, weight: Array, bias: Array | None, windows: Windows, *, keep: bool = False
) -> tuple[Array, Array | None]:
    """Convolve ``x`` with ``weight``, by whole windows; with ``keep``, return their matrix too if it is small."""
    filters = weight.shape[3]
    matrices = _by_group(weight.reshape(-1, filters), windows)
    pixels, size = math.prod(windows.out), math.prod(windows.kernel) * windows.channels
    bytes_of_all = shards.total(len(x)) * pixels * size * x.itemsize
    keep = keep and windows.groups == 1 and not windows.is_reshape and bytes_of_all <= KEPT_BYTES
    columns = engine.empty((len(x) * pixels, size), x.dtype) if keep else None
    y = engine.empty((len(x), *windows.out, filters), x.dtype)

    def block(start: int, stop: int) -> None:
        out = _by_group(y[start:stop].reshape(-1, filters), windows)
        part = None if columns is None else columns[start * pixels : stop * pixels]
        matmul_rows(im2col(x[start:stop], windows, part), matrices, out)
        if bias is not None:
            add_per_channel(y[start:stop], bias)

    shards.for_shards(block, len(x), _sample_bytes(windows, filters, x.itemsize), _least_samples(windows, weight))
    return y, columns


def forward_rows(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """Convolve ``x`` with ``weight``, by rows of windows; for vertical stride 1."""
    (kh, kw, c, filters), (out_h, out_w), dilation = weight.shape, windows.out, windows.dilation[0]
    y = engine.empty((len(x), out_h, out_w, filters), x.dtype)

    def block(start: int, stop: int) -> None:
        out = y[start:stop].reshape(stop - start, out_h * out_w, filters)
        copied = rows(x[start:stop], windows)
        for row in range(kh):
            shifted = copied[:, row * dilation : row * dilation + out_h].reshape(stop - start, out_h * out_w, kw * c)
            write_or_add(matmul_rows, shifted, weight[row].reshape(kw * c, filters), out=out, add=row > 0)
        if bias is not None:
            add_per_channel(y[start:stop], bias)

    shards.for_shards(block, len(x), _sample_bytes_of_rows(windows, filters, x.itemsize))
    return y


def input_gradient(dy: Array, weight: Array, windows: Windows) -> Array:
    """Gradient with respect to the input, for any stride: the transpose of each step of `forward` (col2im)."""
    filters, groups = weight.shape[3], windows.groups
    transposed = _by_group(weight.reshape(-1, filters), windows).swapaxes(1, 2)
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)

    def block(start: int, stop: int) -> None:
        part = _by_group(dy[start:stop].reshape(-1, filters), windows)
        if windows.is_reshape:
            np.matmul(part, transposed, out=_by_group(dx[start:stop].reshape(part.shape[1], -1), windows))
        else:
            matrix = engine.scratch("unfold.columns", (groups, part.shape[1], transposed.shape[2]), dy.dtype)
            shape = (groups, stop - start, *windows.out, -1, windows.channels // groups)
            taps = np.matmul(part, transposed, out=matrix).reshape(shape)
            windows.scatter(taps.transpose(4, 1, 2, 3, 0, 5), dx[start:stop])

    shards.for_shards(block, len(dy), _sample_bytes(windows, filters, dy.itemsize), _least_samples(windows, weight))
    return dx


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array, columns: Array | None = None) -> None:
    """Write the gradient of the weights to ``dweight``, by whole windows: those in ``columns`` if given."""
    filters, pixels = dweight.shape[3], math.prod(windows.out)

    def product(start: int, stop: int, out: Array) -> None:
        matrix = im2col(x[start:stop], windows) if columns is None else columns[None, start * pixels : stop * pixels]
        gradients, parts = (_by_group(array.reshape(-1, filters), windows) for array in (dy[start:stop], out))
        for left, right, part in zip(matrix, gradients, parts, strict=True):
            sum_of_products(left[None], right[None], part)

    def shard(first: int, last: int, out: Array) -> None:
        if columns is not None:
            product(first, last, out)
        elif dweight.nbytes <= LARGE_WEIGHTS or windows.groups > 1:
            sum_over_blocks(product, first, last, _sample_bytes(windows, filters, x.itemsize), out)
        else:
            count, sample_bytes = last - first, pixels * dweight.nbytes // filters
            for start, stop in engine.even(count, min(count, math.ceil(count * sample_bytes / CHUNK_BYTES))):
                part = slice(first + start, first + stop)
                _add_chunk(x[part], dy[part], windows, out, add=start > 0)

    shards.sum_over_shards(shard, len(x), dweight)


def _add_chunk(x: Array, dy: Array, windows: Windows, dweight: Array, *, add: bool) -> None:
    """Compute im2col of a chunk, then the gradient: each piece of its rows is written, or added to, by one core."""
    filters, pixels = dweight.shape[3], math.prod(windows.out)
    gradient, right = dweight.reshape(-1, filters), dy.reshape(-1, filters)
    unfolded = engine.empty((len(x) * pixels, len(gradient)), x.dtype)
    pieces = engine.even(len(gradient), PIECES)

    def unfold(start: int, stop: int) -> None:
        unfolded[start * pixels : stop * pixels] = im2col(x[start:stop], windows)[0]

    def multiply(index: int) -> None:
        piece = slice(*pieces[index])
        write_or_add(np.matmul, unfolded[:, piece].T, right, out=gradient[piece], add=add)

    engine.for_blocks(unfold, len(x), unfolded.nbytes // len(x))
    engine.run(multiply, len(pieces))


def weight_gradient_rows(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    """Write the gradient of the weights to ``dweight``, by rows of windows; for vertical stride 1."""
    kh, kw, c, filters = dweight.shape
    out_h, pixels, dilation = windows.out[0], math.prod(windows.out), windows.dilation[0]

    def product(start: int, stop: int, out: Array) -> None:
        copied = rows(x[start:stop], windows)
        right = dy[start:stop].reshape(-1, pixels, filters)
        for row in range(kh):
            shifted = copied[:, row * dilation : row * dilation + out_h].reshape(-1, pixels, kw * c)
            sum_of_products(shifted, right, out[row].reshape(kw * c, filters))

    def shard(first: int, last: int, out: Array) -> None:
        sum_over_blocks(product, first, last, _sample_bytes_of_rows(windows, filters, x.itemsize), out)

    shards.sum_over_shards(shard, len(x), dweight)


def _sample_bytes(windows: Windows, filters: int, itemsize: int) -> int:
    """Bytes that im2col of one sample touches: its copied windows and the output."""
    return math.prod(windows.out) * (math.prod(windows.kernel) * windows.channels + filters) * itemsize


def _sample_bytes_of_rows(windows: Windows, filters: int, itemsize: int) -> int:
    """Bytes that im2col of one sample by rows touches: its copied rows, the output and one part of it."""
    copied = windows.padded[0] * windows.kernel[1] * windows.channels
    return windows.out[1] * (copied + 2 * windows.out[0] * filters) * itemsize


def _least_samples(windows: Windows, weight: Array) -> int:
    """Minimum number of samples whose product has enough rows to pay for loading large weights."""
    return math.ceil(LEAST_ROWS / math.prod(windows.out)) if weight.nbytes > LARGE_WEIGHTS else 1
