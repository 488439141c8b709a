"""Winograd's convolution F(4x4, 3x3) for 3x3 kernels of stride 1: a quarter of the multiplications.

Lavin & Gray 2015, arXiv:1509.09308: Y = A^T [ (G g G^T) * (B^T d B) ] A over tiles d of 6x6 pixels, 4 apart, each
giving 4x4 outputs. A two-sided transform of a tile is one product with a Kronecker square: vec(B^T d B) =
(B kron B)^T vec(d). With the 36 places (taps) of a tile as the first axis, transforms are single matrix products over
all tiles and channels, and the elementwise product, summed over channels, becomes 36 independent matrix products.
"""

import math
from functools import partial

import numpy as np

from cnnlite import engine
from cnnlite.kernels.rows import add_per_channel
from cnnlite.kernels.windows import Windows, strided
from cnnlite.types import Array

_BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])

_INPUT = np.kron(_BT, _BT)  # (36, 36)
_WEIGHT = np.kron(_G, _G)  # (36, 9)
_OUTPUT = np.kron(_AT, _AT)  # (16, 36)
TAPS, OUTPUTS = 36, 16
LOCAL_WEIGHTS = 128 * 128
"""Up to this many channels times filters, a core does all steps of a block by itself, in its own cache."""
LOCAL_TILES = 128
"""Tiles of such a block: enough rows for the matrix products."""
CHUNK_BYTES = 24 * 2**20
"""What the tiles of a chunk may take where all cores do one step of it after the other."""
COLUMNS = 1024
"""Columns of a transform that are done at a time, so that they stay in the L1 and L2 caches."""


def fits(windows: Windows) -> bool:
    """Whether this algorithm can be used."""
    return windows.kernel == (3, 3) and windows.stride == (1, 1)


def tile_counts(windows: Windows) -> tuple[int, int]:
    """Rows and columns of tiles on an image."""
    return math.ceil(windows.out[0] / 4), math.ceil(windows.out[1] / 4)


def _pad_to_tiles(x: Array, windows: Windows) -> Array:
    """``x`` with its border, and more zeros to the right and below until whole tiles fit."""
    (top, left), (height, width) = windows.top_left, windows.size
    rows, columns = tile_counts(windows)
    image = engine.scratch("winograd.image", (len(x), 4 * rows + 2, 4 * columns + 2, x.shape[3]), x.dtype)
    bottom, right = top + height, left + width
    image[:, :top] = 0
    image[:, bottom:] = 0
    image[:, top:bottom, :left] = 0
    image[:, top:bottom, right:] = 0
    image[:, top:bottom, left:right] = x
    return image


def transform_input(x: Array, windows: Windows, out: Array) -> None:
    """Write B^T d B for all tiles d of a block ``x`` (n, H, W, C) to ``out`` (36, tiles, C)."""
    image = _pad_to_tiles(x, windows)
    rows, columns = tile_counts(windows)
    sn, sy, sx, sc = image.strides
    shape = (6, 6, len(x), rows, columns, x.shape[3])
    tiles = strided(image, shape, (sy, sx, sn, 4 * sy, 4 * sx, sc))
    gathered = engine.scratch("winograd.tiles", shape, x.dtype)
    np.copyto(gathered, tiles)
    _transform(_INPUT, gathered.reshape(TAPS, -1, x.shape[3]), out)


def transform_output(products: Array, bias: Array | None, windows: Windows, y: Array) -> None:
    """Write A^T m A for all tiles m of ``products`` (36, tiles, F) to their places in ``y`` (n, out_h, out_w, F)."""
    rows, columns = tile_counts(windows)
    n, out_h, out_w, filters = y.shape
    results = engine.scratch("winograd.tiles", (OUTPUTS, products.shape[1], filters), y.dtype)
    _transform(_OUTPUT, products, results)
    if bias is not None:
        add_per_channel(results, bias)
    placed = results.reshape(4, 4, n, rows, columns, filters).transpose(2, 3, 0, 4, 1, 5)
    if (out_h, out_w) == (4 * rows, 4 * columns):
        np.copyto(y.reshape(placed.shape), placed)
    else:
        image = engine.scratch("winograd.image", placed.shape, y.dtype)
        np.copyto(image, placed)
        np.copyto(y, image.reshape(n, 4 * rows, 4 * columns, filters)[:, :out_h, :out_w])


def transform_output_gradient(dy: Array, windows: Windows, out: Array) -> None:
    """Write A dy A^T for all 4x4 tiles of ``dy`` (n, out_h, out_w, F) to ``out`` (36, tiles, F)."""
    rows, columns = tile_counts(windows)
    n, out_h, out_w, filters = dy.shape
    image = dy
    if (out_h, out_w) != (4 * rows, 4 * columns):
        image = engine.scratch("winograd.image", (n, 4 * rows, 4 * columns, filters), dy.dtype)
        image[:, out_h:] = 0
        image[:, :out_h, out_w:] = 0
        image[:, :out_h, :out_w] = dy
    gathered = engine.scratch("winograd.tiles", (4, 4, n, rows, columns, filters), dy.dtype)
    np.copyto(gathered, image.reshape(n, rows, 4, columns, 4, filters).transpose(2, 4, 0, 1, 3, 5))
    _transform(_OUTPUT.T, gathered.reshape(OUTPUTS, -1, filters), out)


def _transform(matrix: Array, tiles: Array, out: Array) -> None:
    """Write the product of a transform and ``tiles`` (taps, tiles, C); the taps may lie apart in memory."""
    matrix = matrix.astype(out.dtype)
    source, target = _flat(tiles), _flat(out)
    for start in range(0, source.shape[1], COLUMNS):
        np.matmul(matrix, source[:, start : start + COLUMNS], out=target[:, start : start + COLUMNS])


def _flat(tiles: Array) -> Array:
    """(taps, tiles, C) seen as (taps, tiles * C)."""
    view = tiles.view()
    view.shape = (len(tiles), tiles.shape[1] * tiles.shape[2])  # unlike reshape, never copies
    return view


def transform_weight(weight: Array) -> Array:
    """G g G^T for all filters g: (3, 3, C, F) -> (36, C, F)."""
    transformed: Array = np.matmul(_WEIGHT.astype(weight.dtype), weight.reshape(9, -1))
    return transformed.reshape(TAPS, *weight.shape[2:])


def forward(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """The convolution of ``x`` (N, H, W, C) with ``weight`` (3, 3, C, F).

    In float32 the largest error is about 1e-5 of the largest output.
    """
    channels, filters = weight.shape[2:]
    per_sample = math.prod(tile_counts(windows))
    transformed = transform_weight(weight)
    y = engine.empty((len(x), *windows.out, filters), x.dtype)
    if channels * filters <= LOCAL_WEIGHTS:

        def block(_: int, start: int, stop: int) -> None:
            tiles = (stop - start) * per_sample
            inputs = engine.scratch("winograd.inputs", (TAPS, tiles, channels), x.dtype)
            products = engine.scratch("winograd.products", (TAPS, tiles, filters), x.dtype)
            transform_input(x[start:stop], windows, inputs)
            np.matmul(inputs, transformed, out=products)
            transform_output(products, bias, windows, y[start:stop])

        engine.for_blocks(block, len(x), _block_bytes(per_sample))
    else:
        for first, last in _chunks(len(x), per_sample * (channels + filters), x.itemsize):
            _forward_chunk(x[first:last], transformed, bias, windows, y[first:last])
    return y


def _forward_chunk(x: Array, transformed: Array, bias: Array | None, windows: Windows, y: Array) -> None:
    """Each step for all samples before the next, so that products have many rows for their many weights."""
    channels, filters = transformed.shape[1:]
    per_sample = math.prod(tile_counts(windows))
    inputs = engine.empty((TAPS, len(x) * per_sample, channels), x.dtype)
    products = engine.empty((TAPS, len(x) * per_sample, filters), x.dtype)
    _transform_inputs(x, windows, inputs)
    engine.run(lambda tap: np.matmul(inputs[tap], transformed[tap], out=products[tap]), TAPS)

    def block(_: int, start: int, stop: int) -> None:
        transform_output(products[:, start * per_sample : stop * per_sample], bias, windows, y[start:stop])

    engine.for_blocks(block, len(x), TAPS * per_sample * filters * x.itemsize)


def _transform_inputs(x: Array, windows: Windows, inputs: Array) -> None:
    per_sample = math.prod(tile_counts(windows))

    def block(_: int, start: int, stop: int) -> None:
        transform_input(x[start:stop], windows, inputs[:, start * per_sample : stop * per_sample])

    engine.for_blocks(block, len(x), TAPS * per_sample * x.shape[3] * x.itemsize)


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    """Write G^T dU G to ``dweight`` (3, 3, C, F).

    dU[tap] = V[tap]^T Z[tap], summed over all tiles, for transformed inputs V and transformed gradients Z.
    """
    channels, filters = dweight.shape[2:]
    per_sample = math.prod(tile_counts(windows))
    gradient = engine.empty((TAPS, channels, filters), x.dtype)
    gradient[...] = 0
    for first, last in _chunks(len(x), per_sample * (channels + filters), x.itemsize):
        tiles = (last - first) * per_sample
        inputs = engine.empty((TAPS, tiles, channels), x.dtype)
        outputs = engine.empty((TAPS, tiles, filters), x.dtype)
        _transform_inputs(x[first:last], windows, inputs)
        _transform_output_gradients(dy[first:last], windows, outputs)
        engine.run(partial(_add_product, inputs, outputs, gradient), TAPS)
    np.matmul(_WEIGHT.T.astype(x.dtype), gradient.reshape(TAPS, -1), out=dweight.reshape(9, -1))


def _transform_output_gradients(dy: Array, windows: Windows, outputs: Array) -> None:
    per_sample = math.prod(tile_counts(windows))

    def block(_: int, start: int, stop: int) -> None:
        transform_output_gradient(dy[start:stop], windows, outputs[:, start * per_sample : stop * per_sample])

    engine.for_blocks(block, len(dy), TAPS * per_sample * dy.shape[3] * dy.itemsize)


def _add_product(inputs: Array, outputs: Array, gradient: Array, tap: int) -> None:
    product = engine.scratch("winograd.product", gradient[tap].shape, gradient.dtype)
    gradient[tap] += np.matmul(inputs[tap].T, outputs[tap], out=product)


def _block_bytes(per_sample: int) -> int:
    """What to tell the engine of a sample so that blocks come to about `LOCAL_TILES`."""
    return max(1, engine.BLOCK_BYTES * per_sample // LOCAL_TILES)


def _chunks(count: int, numbers_per_tap: int, itemsize: int) -> tuple[tuple[int, int], ...]:
    """Even chunks of samples whose tiles take `CHUNK_BYTES` at the most."""
    return engine.even(count, min(count, math.ceil(count * TAPS * numbers_per_tap * itemsize / CHUNK_BYTES)))
