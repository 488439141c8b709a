"""Batch normalization in two passes over blocks: statistics, then scale and shift with what follows.

Ioffe & Szegedy 2015, arXiv:1502.03167. ``x`` is (N, ..., C); statistics are over all axes but the last.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cnnlite.nn.kernels import pooling
from cnnlite.nn.kernels.channelwise import channel_dots, channel_sums, for_rows, per_row, row_length
from cnnlite.nn.kernels.geometry import Windows
from cnnlite.runtime import engine
from cnnlite.utils.types import Array

CANCELLATION = 8.0
"""Where mean^2 exceeds this many variances, E[x^2] - E[x]^2 would lose more than a digit."""
FAR = 32.0
"""Where a mean is more deviations than this from 0, sum dz * x - mean * sum dz would lose more than two digits."""


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

    def block(start: int, stop: int) -> tuple[int, Array, Array]:
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
        return count, mean, deviations

    parts = zip(*engine.for_blocks(block, len(x), per_sample * x.itemsize), strict=True)
    counts, means, squares = (np.array(part, np.float64) for part in parts)
    if len(counts) == 1:
        return means[0], np.maximum(squares[0], 0) * (channels / x.size)
    counts, total = counts[:, None], counts.sum()
    mean = (counts * means).sum(axis=0) / total
    variance = (squares + counts * (means - mean) ** 2).sum(axis=0) / total
    return mean, np.maximum(variance, 0)


@dataclass
class Transform:
    """What is done once the statistics are known: y = f(x * scale + shift), on what is left after a max pooling.

    scale = gamma * inv_std, shift = beta - mean * scale, inv_std = 1 / sqrt(variance + eps).
    """

    mean: Array
    """(C,) in float64, as are the next three."""
    inv_std: Array
    scale: Array
    shift: Array
    activation: Elementwise | None
    """f; None for none."""
    windows: Windows | None
    """Of the max pooling; None for none."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        """What is left of ``x`` (N, ..., C) after the pooling, and ``y``."""
        pooled = x
        if self.windows is not None:
            signs = np.where(self.scale < 0, -1, 1).astype(x.dtype) if np.minimum.reduce(self.scale) < 0 else None
            pooled = pooling.max_forward(x, self.windows, signs)
        self.length = row_length(pooled.shape[1:])
        self.scales, self.shifts = per_row(self.length, x.dtype, self.scale, self.shift)
        y = engine.empty(pooled.shape, x.dtype)
        for_rows(self.apply, pooled, y)
        return pooled, y

    def apply(self, x: Array, out: Array, *, activated: bool = True) -> None:
        """Write y of a block of rows to ``out``, or what the activation is applied to."""
        np.multiply(x, self.scales, out=out)
        out += self.shifts
        if activated and self.activation is not None:
            self.activation.apply(out, out)


def parameter_gradients(dy: Array, x: Array, y: Array, transform: Transform) -> tuple[Array, Array]:
    """The gradient dz for what the activation was applied to, and dbeta and dgamma of these samples, (2, C) in float64.

    dbeta = sum dz, dgamma = sum dz * xhat, xhat = (x - mean) * inv_std, for what the pooling left, ``x`` (N, ..., C).
    """
    channels, length, activation = x.shape[-1], transform.length, transform.activation
    dz = dy if activation is None else engine.empty(dy.shape, dy.dtype)
    mean, centres = transform.mean, None
    far = np.abs(mean) * transform.inv_std > FAR
    if np.logical_or.reduce(far):
        centre = np.where(far, mean, 0).astype(x.dtype)
        mean, centres = mean - centre, per_row(length, x.dtype, centre)[0]

    def block(start: int, stop: int) -> tuple[Array, Array]:
        part, out = (array[start:stop].reshape(-1, length) for array in (x, dz))
        if activation is not None:
            z = part
            if not activation.from_output:
                z = engine.scratch("normalization.z", part.shape, part.dtype)
                transform.apply(part, z, activated=False)
            dy_, y_ = (array[start:stop].reshape(-1, length) for array in (dy, y))
            activation.gradient(dy_, z, y_, out)
        if centres is not None:
            part = np.subtract(part, centres, out=engine.scratch("normalization.centred", part.shape, part.dtype))
        return channel_sums(out, channels), channel_dots(out, part, channels)

    sums = np.array(engine.for_blocks(block, len(x), 3 * x[0].nbytes), np.float64)  # (blocks, 2, C)
    total: Array = np.add.reduce(sums, axis=0)
    total[1] = (total[1] - mean * total[0]) * transform.inv_std
    return dz, total


def input_gradient(dz: Array, x: Array, pooled: Array, sums: Array, m: int, transform: Transform) -> Array:
    """The gradient for the input ``x`` (N, ..., C), of which the pooling left ``pooled``.

    dx = gamma * inv_std * (dz - dbeta / m - xhat * dgamma / m), which is dz * scale + x * slope + offset. In the whole
    batch, ``sums`` (2, C) are dbeta and dgamma, and a channel has ``m`` numbers. Behind a max pooling, only
    the greatest of each window have a dz.
    """
    windows, (dbeta, dgamma) = transform.windows, sums
    factor = transform.scale / -m
    slope = factor * transform.inv_std * dgamma
    offset = factor * dbeta - transform.mean * slope
    length = row_length(x.shape[1:])
    slopes, offsets = per_row(length, x.dtype, slope, offset)
    dx = engine.empty(x.shape, x.dtype)

    def block(start: int, stop: int) -> None:
        out = dx[start:stop].reshape(-1, length)
        part = engine.scratch("normalization.part", dz[start:stop].shape, dz.dtype)
        scaled = out if windows is None else part.reshape(-1, transform.length)
        np.multiply(dz[start:stop].reshape(scaled.shape), transform.scales, out=scaled)
        if windows is not None:
            pooling.max_gradient_of_block(part, x[start:stop], pooled[start:stop], windows, dx[start:stop])
        sloped = engine.scratch("normalization.sloped", out.shape, out.dtype)
        np.multiply(x[start:stop].reshape(-1, length), slopes, out=sloped)
        out += sloped
        out += offsets

    arrays = 3 if windows is None else 5
    engine.for_blocks(block, len(x), arrays * x[0].nbytes)
    return dx
