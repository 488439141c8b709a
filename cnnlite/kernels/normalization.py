"""Batch normalization in two passes over blocks: statistics, then scale and shift with the activation that follows.

Ioffe & Szegedy 2015, arXiv:1502.03167. ``x`` is (N, ..., C); statistics are over all axes but the last.
"""

import math
from typing import Protocol

import numpy as np

from cnnlite import engine
from cnnlite.kernels.rows import channel_dots, channel_sums, per_row, row_length
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


def scale_and_shift(x: Array, scale: Array, shift: Array, activation: Elementwise | None) -> Array:
    """f(x * scale + shift) for per-channel ``scale`` and ``shift`` (C,)."""
    length = row_length(x.shape[1:])
    scales, shifts = per_row(scale, length), per_row(shift, length)
    y = engine.empty(x.shape, x.dtype)

    def block(_: int, start: int, stop: int) -> None:
        out = y[start:stop].reshape(-1, length)
        np.multiply(x[start:stop].reshape(-1, length), scales, out=out)
        out += shifts
        if activation is not None:
            activation.apply(out, out)

    engine.for_blocks(block, len(x), 2 * math.prod(x.shape[1:]) * x.itemsize)
    return y


def backward(
    dy: Array, x: Array, y: Array, scale: Array, shift: Array, mean: Array, inv_std: Array,
    activation: Elementwise | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Gradients for the input, the scale gamma and the shift beta.

    With z = gamma * xhat + beta, dz = dy * f'(z) and m numbers a channel: dbeta = sum dz, dgamma = sum dz * xhat,
    dx = gamma * inv_std * (dz - dbeta / m - xhat * dgamma / m), which is dz * scale + x * slope + offset.

    Args:
        dy: gradient for the output, (N, ..., C).
        x: input of the forward pass.
        y: its output.
        scale: gamma * inv_std, (C,).
        shift: beta - mean * scale, (C,).
        mean: batch mean, (C,) in float64.
        inv_std: 1 / sqrt(variance + eps), (C,) in float64.
        activation: what follows the shift, if anything.

    Returns:
        dx like ``x``; dgamma and dbeta (C,) in float64.
    """
    channels = x.shape[-1]
    length = row_length(x.shape[1:])
    per_sample = math.prod(x.shape[1:]) * x.itemsize
    bounds = engine.blocks(len(x), 3 * per_sample)
    sums = np.empty((len(bounds), channels), np.float64)
    dots = np.empty((len(bounds), channels), np.float64)
    dx = engine.empty(x.shape, x.dtype)
    recompute = activation is not None and not activation.from_output
    scales, shifts = per_row(scale, length), per_row(shift, length)

    def first_pass(index: int, start: int, stop: int) -> None:
        rows = x[start:stop].reshape(-1, length)
        dz = dy[start:stop].reshape(-1, length)
        if activation is not None:
            z = rows
            if recompute:
                z = engine.scratch("normalization.z", rows.shape, rows.dtype)
                np.multiply(rows, scales, out=z)
                z += shifts
            out = dx[start:stop].reshape(-1, length)
            activation.gradient(dz, z, y[start:stop].reshape(-1, length), out)
            dz = out
        sums[index] = channel_sums(dz, channels)
        dots[index] = channel_dots(dz, rows, channels)

    engine.for_blocks(first_pass, len(x), 3 * per_sample)
    dbeta = sums.sum(axis=0)
    dgamma = (dots.sum(axis=0) - mean * dbeta) * inv_std
    m = x.size // channels
    slope = -scale * inv_std * dgamma / m
    offset = -scale * dbeta / m - mean * slope
    slopes = per_row(slope.astype(x.dtype), length)
    offsets = per_row(offset.astype(x.dtype), length)

    def second_pass(_: int, start: int, stop: int) -> None:
        out = dx[start:stop].reshape(-1, length)
        dz = dy[start:stop].reshape(-1, length) if activation is None else out
        np.multiply(dz, scales, out=out)
        part = engine.scratch("normalization.part", out.shape, out.dtype)
        np.multiply(x[start:stop].reshape(-1, length), slopes, out=part)
        out += part
        out += offsets

    engine.for_blocks(second_pass, len(x), 3 * per_sample)
    return dx, dgamma, dbeta
