"""Batch normalization in two passes over blocks: statistics, then scale and shift.

Ioffe & Szegedy 2015, arXiv:1502.03167. ``x`` is (N, ..., C); statistics are over all axes but the last.
"""

import math
from collections.abc import Callable

import numpy as np

from cnnlite.nn.kernels.channelwise import channel_dots, channel_sums, for_rows, per_row, row_length
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array

CANCELLATION = 8.0
"""Where mean^2 exceeds this many variances, E[x^2] - E[x]^2 would lose more than a digit."""
FAR = 32.0
"""Where a mean is more deviations than this from 0, sum dz * x - mean * sum dz would lose more than two digits."""


def moments(x: Array) -> Array:
    """Compute count, means and squared deviations of the channels in each shard, float64 rows (shards, 1 + 2 C).

    Each block gives its sum and its squared deviations from its own mean; see `combine`.
    """
    channels = x.shape[-1]
    length = row_length(x.shape[1:])
    per_sample = math.prod(x.shape[1:])

    def block(start: int, stop: int) -> Array:
        rows = x[start:stop].reshape(-1, length)
        count = rows.size // channels
        mean = channel_sums(rows, channels) / count
        deviations = channel_dots(rows, rows, channels) - count * mean * mean
        if np.logical_or.reduce(mean * mean > CANCELLATION / count * deviations):
            centred = engine.scratch("normalization.centred", rows.shape, rows.dtype)
            np.subtract(rows, per_row(length, x.dtype, mean), out=centred)
            # The mean of a float32 sum is off by a little; what is left of it belongs to the mean, not to the squares.
            rest = channel_sums(centred, channels) / count
            deviations = channel_dots(centred, centred, channels) - count * rest * rest
            mean = mean.astype(np.float64) + rest
        row = np.empty(1 + 2 * channels)
        row[0], row[1 : 1 + channels], row[1 + channels :] = count, mean, deviations
        return row

    found = shards.for_shards(block, len(x), per_sample * x.itemsize)
    return np.array([combine(np.array(rows)) for rows in found])


def combine(rows: Array) -> Array:
    """Combine rows of `moments` into that of all their numbers, by Chan, Golub & LeVeque 1979.

    M2 = sum of M2_b + n_b * (mean_b - mean)^2.
    """
    if len(rows) == 1:
        first: Array = rows[0]
        return first
    counts, (means, squares) = rows[:, :1], np.split(rows[:, 1:], 2, axis=1)
    total = counts.sum()
    mean = (counts * means).sum(axis=0) / total
    return np.concatenate([[total], mean, (squares + counts * (means - mean) ** 2).sum(axis=0)])


def mean_and_variance(rows: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel, (C,) in float64, from the rows of `moments` of a whole batch."""
    row = combine(rows)
    mean, squares = np.split(row[1:], 2)
    return mean, np.maximum(squares, 0) / row[0]


def forward(x: Array, scale: Array, shift: Array) -> Array:
    """Scale and shift: y = x * scale + shift, for ``x`` (N, ..., C) and float64 ``scale`` and ``shift`` (C,)."""
    scales, shifts = per_row(row_length(x.shape[1:]), x.dtype, scale, shift)
    y = engine.empty(x.shape, x.dtype)

    def block(part: Array, out: Array) -> None:
        np.multiply(part, scales, out=out)
        out += shifts

    for_rows(block, x, y)
    return y


def parameter_gradients(
    dy: Array, x: Array, mean: Array, inv_std: Array, before: Callable[[int, int], None] | None = None
) -> Array:
    """Gradients dbeta = sum dy and dgamma = sum dy * xhat, xhat = (x - mean) * inv_std: (shards, 2, C) in float64.

    ``before(start, stop)`` is called before that block of ``dy`` is read, which it may write.
    """
    channels, length, centres = x.shape[-1], row_length(x.shape[1:]), None
    far = np.abs(mean) * inv_std > FAR
    if np.logical_or.reduce(far):
        centre = np.where(far, mean, 0).astype(x.dtype)
        mean, centres = mean - centre, per_row(length, x.dtype, centre)[0]

    def block(start: int, stop: int) -> tuple[Array, Array]:
        if before is not None:
            before(start, stop)
        part, gradient = (array[start:stop].reshape(-1, length) for array in (x, dy))
        if centres is not None:
            part = np.subtract(part, centres, out=engine.scratch("normalization.centred", part.shape, part.dtype))
        return channel_sums(gradient, channels), channel_dots(gradient, part, channels)

    found = shards.for_shards(block, len(x), 3 * x[0].nbytes)
    rows = np.array([np.add.reduce(np.array(parts, np.float64), axis=0) for parts in found])
    rows[:, 1] = (rows[:, 1] - mean * rows[:, 0]) * inv_std
    return rows


def slope_and_offset(sums: Array, m: int, mean: Array, inv_std: Array, scale: Array) -> tuple[Array, Array]:
    """Last two terms of dx = gamma * inv_std * (dy - dbeta / m - xhat * dgamma / m) as x * slope + offset.

    In the whole batch, ``sums`` (2, C) are dbeta and dgamma, and a channel has ``m`` numbers.
    """
    dbeta, dgamma = sums
    factor = scale / -m
    slope = factor * inv_std * dgamma
    return slope, factor * dbeta - mean * slope


def input_gradient(dy: Array, x: Array, scale: Array, slope: Array, offset: Array) -> Array:
    """Gradient with respect to ``x``: dx = dy * scale + x * slope + offset; see `slope_and_offset`."""
    scales, slopes, offsets = per_row(row_length(x.shape[1:]), x.dtype, scale, slope, offset)
    dx = engine.empty(x.shape, x.dtype)

    def block(gradient: Array, part: Array, out: Array) -> None:
        np.multiply(gradient, scales, out=out)
        sloped = engine.scratch("normalization.sloped", out.shape, out.dtype)
        out += np.multiply(part, slopes, out=sloped)
        out += offsets

    for_rows(block, dy, x, dx)
    return dx
