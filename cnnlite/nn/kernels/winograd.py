"""Winograd's convolution F(4x4, 3x3) for 3x3 kernels of stride 1: a quarter of the multiplications.

Lavin & Gray 2015, arXiv:1509.09308: Y = A^T [ (G g G^T) * (B^T d B) ] A over tiles d of 6x6 pixels, 4 apart, each
giving 4x4 outputs. In (36, tiles, C), the elementwise product of transformed tiles and weights, summed over channels,
is 36 independent matrix products, one for each of the 36 places (taps) in a tile. The two-sided transforms of outputs
and of their gradients are products with a Kronecker square, vec(A^T m A) = (A kron A)^T vec(m), for all channels of a
tile at once: more operations than one side after the other, but in larger products.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from cnnlite.nn.kernels.channelwise import add_per_channel
from cnnlite.nn.kernels.geometry import Windows, framed, strides
from cnnlite.nn.kernels.matmul import matmul_rows, sum_of_products, sum_over_blocks, write_or_add
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array

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

_WEIGHT = np.kron(_G, _G)  # (36, 9)
_OUTPUT = np.kron(_AT, _AT)  # (16, 36)
TAPS, OUTPUTS = 36, 16
LOCAL_WEIGHTS = 128 * 256
"""Up to this many channels times filters, a core does all steps of a block by itself, in its own cache."""
LOCAL_NUMBERS = 128 * 128
"""Tiles times channels and filters of such a block."""
LEAST_TILES, MOST_TILES = 48, 128
"""Tiles of such a block: enough rows for the matrix products."""
CHUNK_BYTES = 24 * 2**20
"""Bytes that the tiles of a chunk may take where all cores do one step of it after the other."""
WEIGHTS = 512
"""Weights that are transformed in each product of a batch, small enough for the L1 cache."""


def fits(windows: Windows) -> bool:
    """True if the kernel is 3x3, stride and dilation are 1, and there are no groups."""
    return windows.kernel == (3, 3) and windows.stride == windows.dilation == (1, 1) and windows.groups == 1


def tile_counts(windows: Windows) -> tuple[int, int]:
    """Number of rows and columns of tiles on an image."""
    return math.ceil(windows.out[0] / 4), math.ceil(windows.out[1] / 4)


def forward(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """Convolve ``x`` (N, H, W, C) with ``weight``, (3, 3, C, F) or transformed already (36, C, F), and add ``bias``.

    In float32 the largest error is about 1e-5 of the largest output.
    """
    channels, filters = weight.shape[-2:]
    per_sample = math.prod(tile_counts(windows))
    transformed = weight if weight.ndim == 3 else transform_weight(weight)
    y = engine.empty((len(x), *windows.out, filters), x.dtype)
    if channels * filters > LOCAL_WEIGHTS:
        for start, stop in shards.bounds(len(x)):
            for first, last in _chunks(start, stop, per_sample * (channels + filters), x.itemsize):
                _forward_chunk(x[first:last], transformed, bias, windows, y[first:last])
        return y

    def block(start: int, stop: int) -> None:
        tiles = (stop - start) * per_sample
        inputs = engine.scratch("winograd.inputs", (TAPS, tiles, channels), x.dtype)
        products = engine.scratch("winograd.products", (TAPS, tiles, filters), x.dtype)
        _transform_input(x[start:stop], windows, inputs)
        matmul_rows(inputs, transformed, products)
        _transform_output(bias, y[start:stop], windows, products)

    shards.for_shards(block, len(x), _local_bytes(per_sample, channels, filters))
    return y


def _forward_chunk(x: Array, transformed: Array, bias: Array | None, windows: Windows, y: Array) -> None:
    """Do each step for all samples before the next, so that products have many rows for their many weights."""
    tiles = len(x) * math.prod(tile_counts(windows))
    inputs, products = (engine.empty((TAPS, tiles, channels), x.dtype) for channels in transformed.shape[1:])
    _for_tiles(_transform_input, x, windows, inputs)
    engine.run(lambda tap: matmul_rows(inputs[tap], transformed[tap], products[tap]), TAPS)
    _for_tiles(partial(_transform_output, bias), y, windows, products)


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array) -> None:
    """Write G^T dU G to ``dweight`` (3, 3, C, F).

    dU[tap] = V[tap]^T Z[tap], summed over all tiles, for transformed inputs V and transformed gradients Z.
    """
    channels, filters = dweight.shape[2:]
    per_sample = math.prod(tile_counts(windows))
    is_local = channels * filters <= LOCAL_WEIGHTS

    def product(start: int, stop: int, out: Array) -> None:
        tiles = (stop - start) * per_sample
        inputs = engine.scratch("winograd.inputs", (TAPS, tiles, channels), x.dtype)
        outputs = engine.scratch("winograd.products", (TAPS, tiles, filters), x.dtype)
        _transform_input(x[start:stop], windows, inputs)
        _transform_output_gradient(dy[start:stop], windows, outputs)
        np.matmul(inputs.transpose(0, 2, 1), outputs, out=out)

    def shard(start: int, stop: int, out: Array) -> None:
        shape = (TAPS, channels, filters)
        gradient = engine.scratch("winograd.gradient", shape, x.dtype) if is_local else engine.empty(shape, x.dtype)
        if is_local:
            sum_over_blocks(product, start, stop, _local_bytes(per_sample, channels, filters), gradient)
        else:
            for first, last in _chunks(start, stop, per_sample * (channels + filters), x.itemsize):
                _add_chunk(x[first:last], dy[first:last], windows, gradient, add=first > start)
        _for_weights(_WEIGHT.T, gradient.reshape(TAPS, -1), out.reshape(9, -1))

    shards.sum_over_shards(shard, len(x), dweight)


def _add_chunk(x: Array, dy: Array, windows: Windows, gradient: Array, *, add: bool) -> None:
    """Write, or ``add``, dU of a chunk to ``gradient`` (36, C, F): one step for all samples before the next."""
    tiles = len(x) * math.prod(tile_counts(windows))
    inputs, outputs = (engine.empty((TAPS, tiles, channels), x.dtype) for channels in gradient.shape[1:])
    _for_tiles(_transform_input, x, windows, inputs)
    _for_tiles(_transform_output_gradient, dy, windows, outputs)

    def multiply(tap: int) -> None:
        write_or_add(sum_of_products, inputs[tap, None], outputs[tap, None], out=gradient[tap], add=add)

    engine.run(multiply, TAPS)


def _for_tiles(transform: Callable[[Array, Windows, Array], None], x: Array, windows: Windows, tiles: Array) -> None:
    """Call ``transform`` for blocks of images ``x`` (N, ..., C) and their ``tiles`` (36, tiles, C)."""
    per_sample = math.prod(tile_counts(windows))

    def block(start: int, stop: int) -> None:
        transform(x[start:stop], windows, tiles[:, start * per_sample : stop * per_sample])

    engine.for_blocks(block, len(x), TAPS * per_sample * x.shape[3] * x.itemsize)


def transform_weight(weight: Array) -> Array:
    """G g G^T for all filters g: (3, 3, C, F) -> (36, C, F)."""
    transformed = engine.empty((TAPS, *weight.shape[2:]), weight.dtype)
    _for_weights(_WEIGHT, weight.reshape(9, -1), transformed.reshape(TAPS, -1))
    return transformed


def _for_weights(matrix: Array, weights: Array, out: Array) -> None:
    """Write ``matrix @ weights`` to ``out``, in blocks of columns."""
    matrix = matrix.astype(weights.dtype)

    def block(start: int, stop: int) -> None:
        rest = stop - (stop - start) % WEIGHTS
        for columns, width in ((slice(start, rest), WEIGHTS), (slice(rest, stop), stop - rest)):
            if columns.start < columns.stop:
                pieces, products = (a[:, columns].reshape(len(a), -1, width).swapaxes(0, 1) for a in (weights, out))
                np.matmul(matrix, pieces, out=products)

    engine.for_blocks(block, weights.shape[1], (len(weights) + len(out)) * weights.itemsize)


def _transform_input(x: Array, windows: Windows, out: Array) -> None:
    """Write B^T d B for all tiles d of a block ``x`` (n, H, W, C) to ``out`` (36, tiles, C).

    First down the columns of rows of tiles, which overlap in memory but need no copies, then along each row of a tile.
    """
    rows, columns = tile_counts(windows)
    image = framed(x, windows.top_left, (4 * rows + 2, 4 * columns + 2))
    n, _, width, channels = image.shape
    matrix = _BT.astype(x.dtype)
    sn, sy, _, sc = strides(image)
    strips = np.ndarray((n, rows, 6, width * channels), x.dtype, image, 0, (sn, 4 * sy, sy, sc))
    half = engine.scratch("winograd.half", (n, rows, 6, width, channels), x.dtype)
    np.matmul(matrix, strips, out=half.reshape(strips.shape))
    sn, sr, sy, sx, sc = strides(half)
    tiles = np.ndarray((n, rows, columns, 6, 6, channels), x.dtype, half, 0, (sn, sr, 4 * sx, sy, sx, sc))
    np.matmul(matrix, tiles, out=out.reshape(6, 6, n, rows, columns, channels).transpose(2, 3, 4, 0, 1, 5))


def _transform_output(bias: Array | None, y: Array, windows: Windows, products: Array) -> None:
    """Write A^T m A for all tiles m of ``products`` (36, tiles, F) to their places in ``y`` (n, out_h, out_w, F)."""
    rows, columns = tile_counts(windows)
    n, out_h, out_w, filters = y.shape
    results = engine.scratch("winograd.tiles", (products.shape[1], OUTPUTS, filters), y.dtype)
    np.matmul(_OUTPUT.astype(y.dtype), products.transpose(1, 0, 2), out=results)
    if bias is not None:
        add_per_channel(results, bias)
    placed = results.reshape(n, rows, columns, 4, 4, filters).transpose(0, 1, 3, 2, 4, 5)
    if (out_h, out_w) == (4 * rows, 4 * columns):
        np.copyto(y.reshape(placed.shape), placed)
    else:
        image = engine.scratch("winograd.image", placed.shape, y.dtype)
        np.copyto(image, placed)
        np.copyto(y, image.reshape(n, 4 * rows, 4 * columns, filters)[:, :out_h, :out_w])


def _transform_output_gradient(dy: Array, windows: Windows, out: Array) -> None:
    """Write A dy A^T for all 4x4 tiles of ``dy`` (n, out_h, out_w, F) to ``out`` (36, tiles, F)."""
    rows, columns = tile_counts(windows)
    n, filters = len(dy), dy.shape[3]
    image = framed(dy, (0, 0), (4 * rows, 4 * columns))
    gathered = engine.scratch("winograd.tiles", (n, rows, columns, 4, 4, filters), dy.dtype)
    np.copyto(gathered, image.reshape(n, rows, 4, columns, 4, filters).transpose(0, 1, 3, 2, 4, 5))
    np.matmul(_OUTPUT.T.astype(dy.dtype), gathered.reshape(-1, OUTPUTS, filters), out=out.transpose(1, 0, 2))


def _local_bytes(per_sample: int, channels: int, filters: int) -> int:
    """Bytes that a sample counts for where a core does all steps of a block by itself."""
    tiles = max(LEAST_TILES, min(MOST_TILES, LOCAL_NUMBERS // (channels + filters)))
    return engine.BLOCK_BYTES * per_sample // tiles


def _chunks(start: int, stop: int, numbers_per_tap: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Split samples from ``start`` to ``stop`` evenly into chunks whose tiles take `CHUNK_BYTES` at most."""
    count = stop - start
    for first, last in engine.even(
        count, min(count, math.ceil(count * TAPS * numbers_per_tap * itemsize / CHUNK_BYTES))
    ):
        yield start + first, start + last
