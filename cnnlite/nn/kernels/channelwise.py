"""Per-channel arithmetic on long rows.

A channels-last block seen as (rows, C) has innermost runs of C numbers, and NumPy pays for each run. Seen as rows of
W * C or H * W * C numbers, with the per-channel operand repeated to that length, it goes in long vector loops.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from cnnlite.runtime import engine
from cnnlite.utils.types import Array, DType, Shape

LONGEST = 16384
"""Maximum length of a row, so that a repeated operand stays in the caches; NumPy is slower below 8192."""


@lru_cache(maxsize=256)
def row_length(sample_shape: Shape) -> int:
    """Length of a row for samples of this shape: as many trailing axes as `LONGEST` allows, the first one in part."""
    length = sample_shape[-1]
    for axis in reversed(sample_shape[:-1]):
        part = next(divisor for divisor in range(axis, 0, -1) if axis % divisor == 0 and length * divisor <= LONGEST)
        length *= part
        if part < axis:
            break
    return length


def for_rows(task: Callable[..., object], *arrays: Array) -> None:
    """Call ``task`` with blocks of ``arrays``, all (N, ...) of one shape, as rows (n, length), on all threads."""
    count, *sample_shape = arrays[0].shape
    length = row_length(tuple(sample_shape))

    def block(start: int, stop: int) -> None:
        task(*(array[start:stop].reshape(-1, length) for array in arrays))

    touched = len({id(array) for array in arrays})  # some may be given twice
    engine.for_blocks(block, count, touched * math.prod(sample_shape) * arrays[0].itemsize)


def times(x: Array, factor: float) -> Array:
    """``factor * x`` for ``x`` (N, ...), in a new array; ``x`` itself if the factor is 1."""
    if factor == 1:
        return x
    y, number = engine.empty(x.shape, x.dtype), x.dtype.type(factor)
    for_rows(lambda part, out: np.multiply(part, number, out=out), x, y)
    return y


def per_row(length: int, dtype: DType, *operands: Array) -> Array:
    """Repeat each of the (C,) operands to a row: (operands, length)."""
    count = len(operands[0])
    rows = np.empty((len(operands), length // count, count), dtype)
    for row, operand in zip(rows, operands, strict=True):
        row[...] = operand
    return rows.reshape(-1, length)


def add_per_channel(y: Array, channels: Array) -> None:
    """Add (C,) to each pixel of a contiguous block (n, ..., C), in place."""
    length = row_length(y.shape[1:])
    y.reshape(-1, length)[...] += per_row(length, y.dtype, channels)


def channel_sums(rows: Array, channels: int) -> Array:
    """Sums over a block, (rows, length) -> (C,): a product with ones is the fastest way to read memory once."""
    return add_folds(np.matmul(_ones(len(rows), rows.dtype), rows), channels)


@lru_cache(maxsize=256)
def _ones(count: int, dtype: DType) -> Array:
    return np.ones(count, dtype)


def channel_dots(a: Array, b: Array, channels: int) -> Array:
    """Sums of ``a * b`` over a block, both (rows, length) -> (C,), without storing the products."""
    return add_folds(np.einsum("ij,ij->j", a, b), channels)


def add_folds(row: Array, channels: int) -> Array:
    """Sum of the stretches of ``channels`` numbers in one row, (length,) -> (C,)."""
    folds = row.reshape(-1, channels)
    total: Array = np.matmul(_ones(len(folds), row.dtype), folds)
    return total


def channel_rows(x: Array) -> Array:
    """View a contiguous block (n, ..., W, C) as rows that do not cross samples: (n, rows, W * C); (n, 1, C) if flat."""
    return x.reshape(len(x), -1, math.prod(x.shape[-2:]) if x.ndim > 2 else x.shape[-1])


def pixel_sums(rows: Array, channels: int) -> Array:
    """Sums over the pixels of each sample, (n, rows, length) -> (n, channels)."""
    sums = np.add.reduce(rows, axis=1)
    total: Array = np.add.reduce(sums.reshape(len(rows), -1, channels), axis=1)
    return total


def repeated(channels: Array, length: int, name: str) -> Array:
    """Repeat numbers of each sample and channel along a row, (n, C) -> (n, 1, length), in scratch memory ``name``."""
    count, width = channels.shape
    rows = engine.scratch(name, (count, length // width, width), channels.dtype)
    rows[...] = channels[:, None]
    return rows.reshape(count, 1, length)
