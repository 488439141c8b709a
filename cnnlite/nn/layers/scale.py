"""Multiplication by a constant."""

import math

from cnnlite.errors import OptionError
from cnnlite.nn.kernels.channelwise import times
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.utils.types import Array


@layers.register("scale")
class Scale(Layer):
    """y = factor * x, any shape; after the last layer, a temperature for the logits.

    Args:
        factor: not trained; 1 / in_features of the last layer in Jordan 2024 (airbench94_muon).
    """

    by_shards = True

    def __init__(self, factor: float):
        super().__init__()
        if not 0 < abs(factor) < math.inf:
            raise OptionError(f"factor must be finite and not 0, not {factor}", "factor")
        self.factor = factor

    def forward(self, x: Array, context: Context) -> Array:
        return times(x, self.factor)

    def backward(self, dy: Array) -> Array | None:
        return times(dy, self.factor) if self.needs_dx else None
