"""Matrix products of shapes that BLAS does not do well by itself."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array

SMALL = 1_000_000
"""OpenBLAS multiplies matrices with at most this many multiply-adds without first copying them into another order.

For products of many rows with a small matrix that is up to 1.6 times as fast, so they are cut into pieces this small.
"""
LEAST_ROWS = 32
LEAST_SUM, MOST_SUM = 96, 128
"""Rows in a piece of a sum of products; with fewer, adding the pieces costs more than it saves."""


LARGE_WEIGHTS, LARGE_SHARE = 2**19, 16
"""Weights are large from so many numbers on, if they are so many times the numbers in a sample's input and output."""


def is_large(weights: int, per_sample: int) -> bool:
    """True if workers should gather ``per_sample`` numbers of each sample, rather than sums of each for all weights."""
    return weights > max(LARGE_WEIGHTS, LARGE_SHARE * per_sample)


def matmul(a: Array, b: Array, out: Array) -> Array:
    """Write ``a @ b`` to ``out``, on all threads: (M, K) @ (K, N) -> (M, N), in blocks of rows of ``a``."""

    def block(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=out[start:stop])

    engine.for_blocks(block, len(a), (a.shape[1] + b.shape[1]) * a.itemsize)
    return out


def matmul_samples(a: Array, b: Array, out: Array) -> Array:
    """Write ``a @ b`` to ``out`` as `matmul` does, where the rows of ``a`` are samples of a batch."""

    def block(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=out[start:stop])

    shards.for_shards(block, len(a), (a.shape[1] + b.shape[1]) * a.itemsize)
    return out


def matmul_rows(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to contiguous ``out``, on this thread: (..., M, K) @ (..., K, N) -> (..., M, N), M large."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    rows = _rows(m, LEAST_ROWS, SMALL // (k * n))
    if rows == m:
        np.matmul(a, b, out=out)
    else:
        shape = (*batch, m // rows, rows)
        np.matmul(a.reshape(*shape, k), b[..., None, :, :], out=out.reshape(*shape, n))


def sum_of_products(a: Array, b: Array, out: Array) -> None:
    """Write the sum of ``a.T @ b`` over a batch to ``out``, on this thread: (B, M, K), (B, M, N) -> (K, N)."""
    batch, m, k = a.shape
    n = b.shape[2]
    rows = _rows(m, LEAST_SUM, min(MOST_SUM, SMALL // (k * n)))
    if batch == 1 and (rows == m or m * k * n <= SMALL):
        np.matmul(a[0].T, b[0], out=out)
        return
    parts = engine.scratch("products.parts", (batch, m // rows, k, n), out.dtype)
    left = a.reshape(batch, m // rows, rows, k).transpose(0, 1, 3, 2)
    np.matmul(left, b.reshape(batch, m // rows, rows, n), out=parts)
    np.add.reduce(parts, axis=(0, 1), out=out)


def sum_over_blocks(
    product: Callable[[int, int, Array], None], first: int, last: int, item_bytes: int, out: Array
) -> None:
    """Sum what ``product(start, stop, part)`` writes to ``part`` for blocks of items from ``first`` to ``last``.

    On this thread, into ``out``.
    """
    for start, stop in engine.cache_blocks(last - first, item_bytes):
        write_or_add(product, first + start, first + stop, out=out, add=start > 0)


def write_or_add(product: Callable[..., object], *arguments: Any, out: Array, add: bool) -> None:
    """Call ``product(*arguments, out)`` to write to ``out``, or ``add`` to ``out`` what it would write."""
    part = engine.scratch("products.added", out.shape, out.dtype) if add else out
    product(*arguments, part)
    if add:
        out += part


@lru_cache(maxsize=1024)
def _rows(count: int, least: int, most: int) -> int:
    """Largest divisor of ``count`` from ``least`` to ``most``, or ``count`` itself if there is none."""
    for rows in range(min(count, most), least - 1, -1):
        if count % rows == 0:
            return rows
    return count
