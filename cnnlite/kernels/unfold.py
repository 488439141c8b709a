"""Convolution as a matrix product: windows are copied into the rows of a matrix, the weights are its partner.

Chellapilla, Puri & Simard 2006, "High performance convolutional neural networks for document processing". Two ways of
copying: whole windows (kernel_h * kernel_w copies of each pixel, one product), or their rows alone (kernel_w copies,
and kernel_h products that are added up), which is cheaper where channels are few and copying outweighs multiplying.

Weights are (kernel_h, kernel_w, C, F) throughout, images (N, H, W, C), outputs (N, out_h, out_w, F).
"""

import math

import numpy as np

from cnnlite import engine
from cnnlite.kernels.windows import Windows
from cnnlite.types import Array

GRADIENT_BYTES = 16 * 2**20
"""The most that partial weight gradients, one per block, may take together."""


def columns(x: Array, windows: Windows) -> Array:
    """Windows of a block as rows: (n * out_h * out_w, kernel_h * kernel_w * C), in scratch memory or viewing x."""
    if windows.is_pointwise:
        return x.reshape(-1, windows.channels)
    view = windows.view(windows.pad(x))
    matrix = engine.scratch("unfold.columns", view.shape, x.dtype)
    np.copyto(matrix, view)
    return matrix.reshape(math.prod(view.shape[:3]), -1)


def rows(x: Array, windows: Windows) -> Array:
    """The rows of all windows of a block: (n, padded_h, out_w, kernel_w * C), in scratch memory."""
    image = windows.pad(x)
    sn, sy, sx, sc = image.strides
    (padded_h, _), (_, out_w), (_, kw), c = windows.padded, windows.out, windows.kernel, windows.channels
    shape = (len(x), padded_h, out_w, kw, c)
    view = np.lib.stride_tricks.as_strided(image, shape, (sn, sy, sx * windows.stride[1], sx, sc), writeable=False)
    copy = engine.scratch("unfold.rows", shape, x.dtype)
    np.copyto(copy, view)
    return copy.reshape(len(x), padded_h, out_w, kw * c)


def fold(matrix: Array, windows: Windows, dx: Array) -> None:
    """The transpose of `columns`: add the rows of ``matrix`` to where their windows lay, into ``dx`` (n, H, W, C)."""
    kh, kw = windows.kernel
    parts = matrix.reshape(len(dx), *windows.out, kh, kw, windows.channels)
    bordered = windows.padded != windows.size
    image = engine.scratch("unfold.fold", (len(dx), *windows.padded, windows.channels), dx.dtype) if bordered else dx
    image[...] = 0
    for row in range(kh):
        for column in range(kw):
            target = windows.tap(image, row, column)
            target += parts[:, :, :, row, column]
    if bordered:
        dx[...] = windows.inside(image)


def forward(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """The convolution of ``x`` with ``weight``, by whole windows."""
    filters = weight.shape[3]
    matrix = weight.reshape(-1, filters)
    y = engine.empty((len(x), *windows.out, filters), x.dtype)

    def block(_: int, start: int, stop: int) -> None:
        out = y[start:stop].reshape(-1, filters)
        np.matmul(columns(x[start:stop], windows), matrix, out=out)
        if bias is not None:
            out += bias

    engine.for_blocks(block, len(x), sample_bytes(windows, filters, x.itemsize))
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
            np.matmul(shifted, weight[row].reshape(kw * c, filters), out=part if row else out)
            if row:
                out += part
        if bias is not None:
            out += bias

    engine.for_blocks(block, len(x), sample_bytes(windows, filters, x.itemsize))
    return y


def sample_bytes(windows: Windows, filters: int, itemsize: int) -> int:
    """What unfolding one sample touches: the unfolded image and the output."""
    return math.prod(windows.out) * (math.prod(windows.kernel) * windows.channels + filters) * itemsize


def input_gradient_strided(dy: Array, weight: Array, windows: Windows) -> Array:
    """The gradient for the input of a convolution of any stride."""
    filters = weight.shape[3]
    transposed = weight.reshape(-1, filters).T
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)

    def block(_: int, start: int, stop: int) -> None:
        part = dy[start:stop].reshape(-1, filters)
        if windows.is_pointwise:
            np.matmul(part, transposed, out=dx[start:stop].reshape(-1, windows.channels))
        else:
            matrix = engine.scratch("unfold.columns", (len(part), len(weight.reshape(-1, filters))), dy.dtype)
            fold(np.matmul(part, transposed, out=matrix), windows, dx[start:stop])

    engine.for_blocks(block, len(dy), sample_bytes(windows, filters, dy.itemsize))
    return dx


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array, dbias: Array | None) -> None:
    """Write the gradients for the weights and the bias of a convolution.

    Few large chunks of samples give a partial sum each; a chunk goes through the cache in blocks.
    """
    filters = dweight.shape[3]
    by_rows = cheaper_by_rows(windows)
    per_sample = sample_bytes(windows, filters, x.itemsize)
    chunks = engine.blocks(len(x), max(per_sample, dweight.nbytes * engine.BLOCK_BYTES // GRADIENT_BYTES))
    dweights = np.zeros((len(chunks), *dweight.shape), x.dtype) if len(chunks) > 1 else dweight[None]
    dbiases = np.empty((len(chunks), filters), x.dtype)
    if len(chunks) == 1:
        dweight[...] = 0
    multiply = _add_products_of_rows if by_rows else _add_products_of_columns

    def chunk(index: int) -> None:
        first, last = chunks[index]
        for start, stop in engine.blocks(last - first, per_sample):
            multiply(x[first + start : first + stop], dy[first + start : first + stop], windows, dweights[index])
        if dbias is not None:
            flat = dy[first:last].reshape(-1, filters)
            np.matmul(np.ones(len(flat), x.dtype), flat, out=dbiases[index])

    engine.run(chunk, len(chunks))
    if len(chunks) > 1:
        np.add.reduce(dweights, axis=0, out=dweight)
    if dbias is not None:
        np.add.reduce(dbiases, axis=0, out=dbias)


def _add_products_of_columns(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    filters = dy.shape[3]
    matrix = columns(x, windows)
    product = engine.scratch("unfold.product", (matrix.shape[1], filters), x.dtype)
    np.matmul(matrix.T, dy.reshape(-1, filters), out=product)
    dweight += product.reshape(dweight.shape)


def _add_products_of_rows(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    kh, kw, c, filters = dweight.shape
    out_h, out_w = windows.out
    copied = rows(x, windows)
    right = dy.reshape(len(x), out_h * out_w, filters)
    product = engine.scratch("unfold.product", (len(x), kw * c, filters), x.dtype)
    for row in range(kh):
        shifted = copied[:, row : row + out_h].reshape(len(x), out_h * out_w, kw * c)
        np.matmul(shifted.transpose(0, 2, 1), right, out=product)
        dweight[row] += np.add.reduce(product, axis=0).reshape(kw, c, filters)


def cheaper_by_rows(windows: Windows) -> bool:
    """Whether copying rows of windows beats copying windows: few channels, many rows, vertical stride 1."""
    return windows.stride[0] == 1 and windows.kernel[0] > 1 and 8 <= windows.channels <= 48 and windows.out[0] >= 12
