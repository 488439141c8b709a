"""Convolution as a matrix product: windows are copied into the rows of a matrix, the weights are its partner.

Chellapilla, Puri & Simard 2006, "High performance convolutional neural networks for document processing". Two ways of
copying: whole windows (kernel_h * kernel_w copies of each pixel, one product), or their rows alone (kernel_w copies,
and kernel_h products that are added up), which is cheaper where channels are few and copying outweighs multiplying.

Weights are (kernel_h, kernel_w, C, F) throughout, images (N, H, W, C), outputs (N, out_h, out_w, F).
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from cnnlite import engine
from cnnlite.kernels.products import matmul_rows, sum_of_products
from cnnlite.kernels.rows import add_per_channel
from cnnlite.kernels.windows import Windows
from cnnlite.types import Array

LARGE_WEIGHTS = 512 * 1024
"""Bytes of weights from which on a matrix product needs many rows, and partial sums of gradients cost too much."""
CHUNKS = 16
"""Partial sums of the gradient of smaller weights."""
CHUNK_BYTES = 32 * 2**20
"""What the unfolded images of a chunk of samples may take where they are unfolded before being multiplied."""

KEPT_BYTES = 2**20
"""Unfolded images that take more are unfolded again for the gradient: that costs less than reading them from memory."""

Product: TypeAlias = Callable[[Array, Array, Windows, Array], None]


def columns(x: Array, windows: Windows, out: Array | None = None) -> Array:
    """Windows of a block as rows: (n * out_h * out_w, kernel_h * kernel_w * C).

    They are written to ``out``, or to scratch memory if there is none; or they are a view of ``x`` where they can be.
    """
    count = len(x) * math.prod(windows.out)
    if windows.is_reshape:
        return x.reshape(count, -1)
    if out is None:
        out = engine.scratch("unfold.columns", (count, math.prod(windows.kernel) * windows.channels), x.dtype)
    windows.copy(windows.pad(x), out)
    return out


def room_for_columns(x: Array, windows: Windows) -> Array | None:
    """Memory for the columns of a small batch, which `forward` fills for `weight_gradient`; None for a larger batch."""
    shape = (len(x) * math.prod(windows.out), math.prod(windows.kernel) * windows.channels)
    if windows.is_reshape or math.prod(shape) * x.itemsize > KEPT_BYTES:
        return None
    return engine.empty(shape, x.dtype)


def rows(x: Array, windows: Windows) -> Array:
    """The rows of all windows of a block: (n, padded_h, out_w, kernel_w * C), in scratch memory."""
    image = windows.pad(x)
    sn, sy, sx, sc = image.strides
    (padded_h, _), (_, out_w), (_, kw), c = windows.padded, windows.out, windows.kernel, windows.channels
    copy = engine.scratch("unfold.rows", (len(x), padded_h, out_w, kw * c), x.dtype)
    row = np.dtype((np.void, kw * c * sc))  # copied as one element, as in Windows.copy
    shape = (len(x), padded_h, out_w)
    np.copyto(np.ndarray(shape, row, copy), np.ndarray(shape, row, image, 0, (sn, sy, sx * windows.stride[1])))
    return copy


def fold(matrix: Array, windows: Windows, dx: Array) -> None:
    """The transpose of `columns`: add the rows of ``matrix`` to where their windows lay, into ``dx`` (n, H, W, C)."""
    kh, kw = windows.kernel
    parts = matrix.reshape(len(dx), *windows.out, kh, kw, windows.channels)
    bordered = windows.padded != windows.size
    image = engine.scratch("unfold.fold", (len(dx), *windows.padded, windows.channels), dx.dtype) if bordered else dx
    image[...] = 0
    for row in range(kh):
        for column in range(kw):
            target = windows.columns(windows.rows(image, row), column)
            target += parts[:, :, :, row, column]
    if bordered:
        dx[...] = windows.inside(image)


def forward(x: Array, weight: Array, bias: Array | None, windows: Windows, kept: Array | None = None) -> Array:
    """The convolution of ``x`` with ``weight``, by whole windows, which are written to ``kept`` if it is given."""
    filters = weight.shape[3]
    matrix = weight.reshape(-1, filters)
    pixels = math.prod(windows.out)
    y = engine.empty((len(x), *windows.out, filters), x.dtype)

    def block(_: int, start: int, stop: int) -> None:
        out = y[start:stop].reshape(-1, filters)
        kept_part = None if kept is None else kept[start * pixels : stop * pixels]
        matmul_rows(columns(x[start:stop], windows, kept_part), matrix, out)
        if bias is not None:
            add_per_channel(y[start:stop], bias)

    engine.for_blocks(block, len(x), _sample_bytes(windows, filters, x.itemsize), _least_samples(windows, weight))
    return y


def forward_rows(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """The convolution of ``x`` with ``weight``, by rows of windows; for vertical stride 1."""
    kh, kw, c, filters = weight.shape
    out_h, out_w = windows.out
    y = engine.empty((len(x), out_h, out_w, filters), x.dtype)

    def block(_: int, start: int, stop: int) -> None:
        out = y[start:stop].reshape(stop - start, out_h * out_w, filters)
        part = engine.scratch("unfold.part", out.shape, x.dtype)
        copied = rows(x[start:stop], windows)
        for row in range(kh):
            shifted = copied[:, row : row + out_h].reshape(stop - start, out_h * out_w, kw * c)
            matmul_rows(shifted, weight[row].reshape(kw * c, filters), part if row else out)
            if row:
                out += part
        if bias is not None:
            add_per_channel(y[start:stop], bias)

    engine.for_blocks(block, len(x), _sample_bytes_of_rows(windows, filters, x.itemsize))
    return y


def input_gradient(dy: Array, weight: Array, windows: Windows) -> Array:
    """The gradient for the input of a convolution of any stride: the transpose of each step of `forward`."""
    filters = weight.shape[3]
    transposed = weight.reshape(-1, filters).T
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)

    def block(_: int, start: int, stop: int) -> None:
        part = dy[start:stop].reshape(-1, filters)
        if windows.is_reshape:
            np.matmul(part, transposed, out=dx[start:stop].reshape(len(part), -1))
        else:
            matrix = engine.scratch("unfold.columns", (len(part), transposed.shape[1]), dy.dtype)
            fold(np.matmul(part, transposed, out=matrix), windows, dx[start:stop])

    engine.for_blocks(block, len(dy), _sample_bytes(windows, filters, dy.itemsize), _least_samples(windows, weight))
    return dx


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array, kept: Array | None = None) -> None:
    """Write the gradient for the weights to ``dweight``, by whole windows: those in ``kept`` if it is given."""
    if kept is not None:
        _product(kept, dy, dweight)
    elif dweight.nbytes > LARGE_WEIGHTS:
        _large_weight_gradient(x, dy, windows, dweight)
    else:
        per_sample = _sample_bytes(windows, dweight.shape[3], x.itemsize)
        _sum_over_blocks(_product_of_columns, x, dy, windows, dweight, per_sample)


def weight_gradient_rows(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    """Write the gradient for the weights to ``dweight``, by rows of windows; for vertical stride 1."""
    per_sample = _sample_bytes_of_rows(windows, dweight.shape[3], x.itemsize)
    _sum_over_blocks(_product_of_rows, x, dy, windows, dweight, per_sample)


def _sum_over_blocks(product: Product, x: Array, dy: Array, windows: Windows, dweight: Array, per_sample: int) -> None:
    """Add up ``product`` over blocks of samples: block after block within a chunk, then chunk after chunk."""
    chunks = engine.even(len(x), min(CHUNKS, len(engine.blocks(len(x), per_sample))))
    sums = engine.empty((len(chunks), *dweight.shape), x.dtype) if len(chunks) > 1 else dweight[None]

    def chunk(index: int) -> None:
        first, last = chunks[index]
        for start, stop in engine.cache_blocks(last - first, per_sample):
            part = engine.scratch("unfold.product", dweight.shape, x.dtype) if start else sums[index]
            product(x[first + start : first + stop], dy[first + start : first + stop], windows, part)
            if start:
                sums[index] += part

    engine.run(chunk, len(chunks))
    if len(chunks) > 1:
        np.add.reduce(sums, axis=0, out=dweight)


def _product_of_columns(x: Array, dy: Array, windows: Windows, out: Array) -> None:
    _product(columns(x, windows), dy, out)


def _product(matrix: Array, dy: Array, out: Array) -> None:
    filters = dy.shape[3]
    sum_of_products(matrix[None], dy.reshape(1, -1, filters), out.reshape(-1, filters))


def _product_of_rows(x: Array, dy: Array, windows: Windows, out: Array) -> None:
    kh, kw, c, filters = out.shape
    out_h, out_w = windows.out
    copied = rows(x, windows)
    right = dy.reshape(len(x), out_h * out_w, filters)
    for row in range(kh):
        shifted = copied[:, row : row + out_h].reshape(len(x), out_h * out_w, kw * c)
        sum_of_products(shifted, right, out[row].reshape(kw * c, filters))


def _large_weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    """Unfold a chunk of samples, then share out the rows of the gradient: each is written by one core."""
    filters = dweight.shape[3]
    gradient = dweight.reshape(-1, filters)
    width, per_sample = len(gradient), math.prod(windows.out)
    chunks = engine.even(len(x), min(len(x), math.ceil(len(x) * per_sample * width * x.itemsize / CHUNK_BYTES)))
    pieces = engine.even(width, 16)
    for first, last in chunks:
        unfolded = engine.empty(((last - first) * per_sample, width), x.dtype)
        right = dy[first:last].reshape(-1, filters)

        def unfold(_: int, start: int, stop: int, first: int = first, unfolded: Array = unfolded) -> None:
            block = columns(x[first + start : first + stop], windows)
            unfolded[start * per_sample : stop * per_sample] = block

        def multiply(index: int, first: int = first, unfolded: Array = unfolded, right: Array = right) -> None:
            start, stop = pieces[index]
            part = engine.scratch("unfold.product", (stop - start, filters), x.dtype) if first else gradient[start:stop]
            np.matmul(unfolded[:, start:stop].T, right, out=part)
            if first:
                gradient[start:stop] += part

        engine.for_blocks(unfold, last - first, per_sample * width * x.itemsize)
        engine.run(multiply, len(pieces))


def _sample_bytes(windows: Windows, filters: int, itemsize: int) -> int:
    """What unfolding one sample touches: the unfolded image and the output."""
    return math.prod(windows.out) * (math.prod(windows.kernel) * windows.channels + filters) * itemsize


def _sample_bytes_of_rows(windows: Windows, filters: int, itemsize: int) -> int:
    """What unfolding the rows of one sample touches: its copied rows, the output and one part of it."""
    copied = windows.padded[0] * windows.kernel[1] * windows.channels
    return windows.out[1] * (copied + 2 * windows.out[0] * filters) * itemsize


def _least_samples(windows: Windows, weight: Array) -> int:
    """Samples that give a product rows enough to pay for loading large weights."""
    return math.ceil(256 / math.prod(windows.out)) if weight.nbytes > LARGE_WEIGHTS else 1
