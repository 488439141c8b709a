"""Multiplication by a number."""

import math

import numpy as np

from cnnlite import engine
from cnnlite.kernels.rows import row_length
from cnnlite.layers.base import Layer, layers
from cnnlite.types import Array, DType, Shape


@layers.register("scale")
class Scale(Layer):
    """y = factor * x, any shape; after the last layer, a temperature for the logits.

    Args:
        factor: not trained; 1 / in_features of the last layer in Jordan 2024 (airbench94_muon).
    """

    def __init__(self, factor: float):
        super().__init__()
        if not 0 < abs(factor) < math.inf:
            raise ValueError(f"factor must be finite and not 0, not {factor}")
        self.factor = factor

    def build(self, in_shape: Shape, rng: np.random.Generator, dtype: DType) -> Shape:
        return in_shape

    def forward(self, x: Array, *, training: bool) -> Array:
        return self._scaled(x)

    def backward(self, dy: Array) -> Array | None:
        return self._scaled(dy) if self.needs_dx else None

    def _scaled(self, x: Array) -> Array:
        y = engine.empty(x.shape, x.dtype)
        length, factor = row_length(x.shape[1:]), x.dtype.type(self.factor)

        def block(start: int, stop: int) -> None:
            np.multiply(x[start:stop].reshape(-1, length), factor, out=y[start:stop].reshape(-1, length))

        engine.for_blocks(block, len(x), 2 * x[0].nbytes)
        return y
