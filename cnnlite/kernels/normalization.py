"""Batch normalization in two passes over blocks: statistics, then scale and shift with what follows.

Ioffe & Szegedy 2015, arXiv:1502.03167. ``x`` is (N, ..., C); statistics are over all axes but the last.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from cnnlite import engine
from cnnlite.kernels import pooling
from cnnlite.kernels.rows import channel_dots, channel_sums, per_row, row_length
from cnnlite.kernels.windows import Windows
from cnnlite.types import Array

CANCELLATION = 8.0
"""Where mean^2 exceeds this many variances, E[x^2] - E[x]^2 would lose more than a digit."""


class Elementwise(Protocol):
    """An activation as the kernels use it, on blocks."""

    from_output: bool
    """Whether `gradient` needs the output ``y`` only and not the input ``x``."""

    def apply(self, x: Array, out: Array) -> None:
        """Write f(x) to ``out``, which may be ``x``."""

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        """Write dy * f'(x) to ``out``."""


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel, (C,) in float64.

    Each block gives its sum and its squared deviations from its own mean; Chan, Golub & LeVeque 1979 combine them:
    M2 = sum of M2_b + n_b * (mean_b - mean)^2.
    """
    channels = x.shape[-1]
    length = row_length(x.shape[1:])
    per_sample = math.prod(x.shape[1:])
    bounds = engine.blocks(len(x), per_sample * x.itemsize)
    means = np.empty((len(bounds), channels), np.float64)
    squares = np.empty((len(bounds), channels), np.float64)

    def block(index: int, start: int, stop: int) -> None:
        rows = x[start:stop].reshape(-1, length)
        count = rows.size // channels
        mean = channel_sums(rows, channels) / count
        deviations = channel_dots(rows, rows, channels) - count * mean * mean
        if (count * mean * mean > CANCELLATION * deviations).any():
            centred = engine.scratch("normalization.centred", rows.shape, rows.dtype)
            np.subtract(rows, per_row(mean, length), out=centred)
            # The mean of a float32 sum is off by a little; what is left of it belongs to the mean, not to the squares.
            rest = channel_sums(centred, channels) / count
            deviations = channel_dots(centred, centred, channels) - count * rest * rest
            mean = mean.astype(np.float64) + rest
        means[index] = mean
        squares[index] = deviations

    engine.for_blocks(block, len(x), per_sample * x.itemsize)
    if len(bounds) == 1:
        return means[0], np.maximum(squares[0], 0) * (channels / x.size)
    counts = np.array([[(stop - start) * (per_sample // channels)] for start, stop in bounds], np.float64)
    total = counts.sum()
    mean = (counts * means).sum(axis=0) / total
    variance = (squares + counts * (means - mean) ** 2).sum(axis=0) / total
    return mean, np.maximum(variance, 0)


@dataclass(frozen=True)
class Transform:
    """What is done to each block once the statistics are known: y = pool(f(z)), z = x * scale + shift."""

    scale: Array
    """gamma * inv_std, (C,), where inv_std = 1 / sqrt(variance + eps)."""
    shift: Array
    """beta - mean * scale, (C,)."""
    activation: Elementwise | None
    pool: Windows | None
    """Windows of a max pooling."""
    length: int
    """Numbers in a row of the input."""

    @cached_property
    def rows(self) -> tuple[Array, Array]:
        """Scale and shift, repeated to rows."""
        return per_row(self.scale, self.length), per_row(self.shift, self.length)


def forward(x: Array, transform: Transform) -> Array:
    """``y`` for a batch ``x`` (N, ..., C); what is pooled never leaves the cache."""
    pool = transform.pool
    y = engine.empty(x.shape if pool is None else (len(x), *pool.out, pool.channels), x.dtype)
    rows = transform.rows

    def block(_: int, start: int, stop: int) -> None:
        part = x[start:stop]
        out = y[start:stop] if pool is None else engine.scratch("normalization.y", part.shape, x.dtype)
        _activated(part, rows, transform.activation, out)
        if pool is not None:
            pooling.max_of_block(out, pool, y[start:stop])

    engine.for_blocks(block, len(x), 2 * x[0].nbytes)
    return y


def _activated(x: Array, rows: tuple[Array, Array], activation: Elementwise | None, out: Array) -> None:
    """Write f(x * scale + shift) of a block to ``out``."""
    scales, shifts = rows
    flat = out.reshape(-1, len(scales))
    np.multiply(x.reshape(flat.shape), scales, out=flat)
    flat += shifts
    if activation is not None:
        activation.apply(flat, flat)


def backward(
    dy: Array, x: Array, y: Array, transform: Transform, mean: Array, inv_std: Array
) -> tuple[Array, Array, Array]:
    """Gradients for the input, the scale gamma and the shift beta.

    With dz the gradient for z and m numbers a channel: dbeta = sum dz, dgamma = sum dz * xhat,
    dx = gamma * inv_std * (dz - dbeta / m - xhat * dgamma / m), which is dz * scale + x * slope + offset.

    Args:
        dy: gradient for the output of `forward`.
        x: its input, (N, ..., C).
        y: its output.
        transform: what it did.
        mean: batch mean, (C,) in float64.
        inv_std: (C,) in float64.

    Returns:
        dx like ``x``; dgamma and dbeta (C,) in float64.
    """
    channels, length = x.shape[-1], transform.length
    sample_bytes = 3 * x[0].nbytes
    bounds = engine.blocks(len(x), sample_bytes)
    sums = np.empty((len(bounds), channels), np.float64)
    dots = np.empty((len(bounds), channels), np.float64)
    dx = engine.empty(x.shape, x.dtype)
    rows = transform.rows
    is_plain = transform.activation is None and transform.pool is None  # then dz is dy

    def first_pass(index: int, start: int, stop: int) -> None:
        dz = dy[start:stop]
        if not is_plain:
            dz = dx[start:stop]
            _gradient_for_z(dy[start:stop], x[start:stop], y[start:stop], transform, rows, dz)
        flat = dz.reshape(-1, length)
        sums[index] = channel_sums(flat, channels)
        dots[index] = channel_dots(flat, x[start:stop].reshape(-1, length), channels)

    engine.for_blocks(first_pass, len(x), sample_bytes)
    dbeta = sums.sum(axis=0)
    dgamma = (dots.sum(axis=0) - mean * dbeta) * inv_std
    m = x.size // channels
    slope = -transform.scale * inv_std * dgamma / m
    offset = -transform.scale * dbeta / m - mean * slope
    slopes = per_row(slope.astype(x.dtype), length)
    offsets = per_row(offset.astype(x.dtype), length)

    def second_pass(_: int, start: int, stop: int) -> None:
        out = dx[start:stop].reshape(-1, length)
        np.multiply(dy[start:stop].reshape(-1, length) if is_plain else out, rows[0], out=out)
        part = engine.scratch("normalization.part", out.shape, out.dtype)
        np.multiply(x[start:stop].reshape(-1, length), slopes, out=part)
        out += part
        out += offsets

    engine.for_blocks(second_pass, len(x), sample_bytes)
    return dx, dgamma, dbeta


def _gradient_for_z(dy: Array, x: Array, y: Array, transform: Transform, rows: tuple[Array, Array], dz: Array) -> None:
    """Write the gradient for z of a block to ``dz``, computing again what the forward pass did not store."""
    activation, pool, length = transform.activation, transform.pool, transform.length
    if pool is not None:
        y = engine.scratch("normalization.y", x.shape, x.dtype)
        _activated(x, rows, activation, y)
        pooled = dz if activation is None else engine.scratch("normalization.dy", x.shape, x.dtype)
        pooling.max_gradient_of_block(dy, y, pool, pooled)
        dy = pooled
    if activation is not None:
        z = x
        if not activation.from_output:
            z = engine.scratch("normalization.z", x.shape, x.dtype)
            _activated(x, rows, None, z)
        activation.gradient(*(array.reshape(-1, length) for array in (dy, z, y, dz)))
