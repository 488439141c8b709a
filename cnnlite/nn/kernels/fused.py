"""Batch normalization fused with the activation and the max pooling after it, in the same passes over memory.

Scale, shift and a monotonic activation keep the order of numbers, or reverse it: so pooling can come first and leave
less to do. Results equal those of the three layers in turn, within rounding.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cnnlite.nn.kernels import normalization, pooling
from cnnlite.nn.kernels.channelwise import for_rows, per_row, row_length
from cnnlite.nn.kernels.geometry import Windows
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


class Elementwise(Protocol):
    """An activation as the kernels use it, on blocks."""

    from_output: bool
    """True if `gradient` needs only the output ``y``, not the input ``x``."""

    def apply(self, x: Array, out: Array) -> None:
        """Write f(x) to ``out``, which may be ``x``."""

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        """Write dy * f'(x) to ``out``."""


@dataclass
class Epilogue:
    """Affine transform after a max pooling, and activation: y = f(pooled(x) * scale + shift).

    scale = gamma * inv_std, shift = beta - mean * scale, inv_std = 1 / sqrt(variance + eps).
    """

    mean: Array
    """(C,) in float64, as are the next three."""
    inv_std: Array
    scale: Array
    shift: Array
    activation: Elementwise | None
    """The function f, or None."""
    windows: Windows | None
    """Geometry of the max pooling, or None."""
    length: int = 0
    """Of a row, once known."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Compute pooled(x) and y for ``x`` (N, ..., C)."""
        pooled = x
        if self.windows is not None:
            signs = np.where(self.scale < 0, -1, 1).astype(x.dtype) if np.minimum.reduce(self.scale) < 0 else None
            pooled = pooling.max_forward(x, self.windows, signs)
        if not self.length:  # it is used once in training, and many times for a network that is fixed
            self.length = row_length(pooled.shape[1:])
            self.scales, self.shifts = per_row(self.length, x.dtype, self.scale, self.shift)
        y = engine.empty(pooled.shape, x.dtype)
        for_rows(self.apply, pooled, y)
        return pooled, y

    def apply(self, x: Array, out: Array, *, activated: bool = True) -> None:
        """Write y of a block of rows to ``out``; without ``activated``, the input of the activation."""
        np.multiply(x, self.scales, out=out)
        out += self.shifts
        if activated and self.activation is not None:
            self.activation.apply(out, out)


def parameter_gradients(dy: Array, x: Array, y: Array, epilogue: Epilogue) -> tuple[Array, Array]:
    """Gradient dz of the activation's input, and dbeta and dgamma of each shard, (shards, 2, C) in float64.

    The latter are computed as in `normalization`, from dz and the pooled ``x`` (N, ..., C).
    """
    length, activation = epilogue.length, epilogue.activation
    if activation is None:
        return dy, normalization.parameter_gradients(dy, x, epilogue.mean, epilogue.inv_std)
    dz = engine.empty(dy.shape, dy.dtype)

    def write(start: int, stop: int) -> None:
        dy_, z, y_, out = (array[start:stop].reshape(-1, length) for array in (dy, x, y, dz))
        if not activation.from_output:
            z = engine.scratch("normalization.z", out.shape, out.dtype)
            epilogue.apply(x[start:stop].reshape(-1, length), z, activated=False)
        activation.gradient(dy_, z, y_, out)

    return dz, normalization.parameter_gradients(dz, x, epilogue.mean, epilogue.inv_std, write)


def input_gradient(dz: Array, x: Array, pooled: Array, sums: Array, m: int, epilogue: Epilogue) -> Array:
    """Gradient with respect to the input ``x`` (N, ..., C), given ``pooled``, its values after pooling.

    dx = dz * scale + x * slope + offset, as in `normalization`. With max pooling, only maxima have a dz.
    """
    windows = epilogue.windows
    slope, offset = normalization.slope_and_offset(sums, m, epilogue.mean, epilogue.inv_std, epilogue.scale)
    length = row_length(x.shape[1:])
    slopes, offsets = per_row(length, x.dtype, slope, offset)
    dx = engine.empty(x.shape, x.dtype)

    def block(start: int, stop: int) -> None:
        out = dx[start:stop].reshape(-1, length)
        part = engine.scratch("normalization.part", dz[start:stop].shape, dz.dtype)
        scaled = out if windows is None else part.reshape(-1, epilogue.length)
        np.multiply(dz[start:stop].reshape(scaled.shape), epilogue.scales, out=scaled)
        if windows is not None:
            pooling.max_gradient_of_block(part, x[start:stop], pooled[start:stop], windows, dx[start:stop])
        sloped = engine.scratch("normalization.sloped", out.shape, out.dtype)
        np.multiply(x[start:stop].reshape(-1, length), slopes, out=sloped)
        out += sloped
        out += offsets

    arrays = 3 if windows is None else 5
    engine.for_blocks(block, len(x), arrays * x[0].nbytes)
    return dx
