"""The rectifier with trained slopes."""

import math

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels.channelwise import channel_dots, per_row, row_length
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array, Shape


@layers.register("prelu")
class PReLU(Layer):
    """y = x for x > 0, slope * x otherwise, the slope being trained (He et al. 2015, arXiv:1502.01852).

    Args:
        per_channel: train a slope for each channel; otherwise one for all.
        init: slope before training.

    Parameters: ``slope`` (C,) or (1,).
    """

    by_shards = True

    def __init__(self, per_channel: bool = False, init: float = 0.25):
        super().__init__()
        if not math.isfinite(init):
            raise OptionError(f"init must be finite, not {init}", "init")
        self.per_channel = per_channel
        self.init = init

    def infer(self, in_shape: Shape) -> Shape:
        self.in_shape = in_shape
        self.add_param("slope", in_shape[-1:] if self.per_channel else (1,), self.init)
        return in_shape

    def forward(self, x: Array, context: Context) -> Array:
        self._kept = x if context.training else None
        y = engine.empty(x.shape, x.dtype)
        slopes = self._slopes(x)

        def block(start: int, stop: int) -> None:
            part, out = (array[start:stop].reshape(-1, len(slopes)) for array in (x, y))
            np.minimum(part, 0, out=out)
            out *= slopes
            out += np.maximum(part, 0, out=engine.scratch("activation.part", part.shape, part.dtype))

        engine.for_blocks(block, len(x), 3 * x[0].nbytes)
        return y

    def backward(self, dy: Array) -> Array | None:
        x = self.kept()
        dx, channels = engine.empty(x.shape, x.dtype), x.shape[-1]
        slopes = self._slopes(x)
        rest = 1 - slopes

        def block(start: int, stop: int) -> Array:
            part, gradient, out = (array[start:stop].reshape(-1, len(slopes)) for array in (x, dy, dx))
            np.copyto(out, part > 0)  # then f' = 1 * (1 - slope) + slope, or 0 * (1 - slope) + slope
            out *= rest
            out += slopes
            out *= gradient
            below = np.minimum(part, 0, out=engine.scratch("activation.part", part.shape, part.dtype))
            return channel_dots(gradient, below, channels)

        found = shards.for_shards(block, len(x), 4 * x[0].nbytes)
        sums = np.array([np.add.reduce(parts, axis=0) for parts in found])
        if not self.per_channel:  # in each shard, before workers add what they have
            sums = np.add.reduce(sums, axis=1, keepdims=True)
        self.grads["slope"][...] = shards.sum_by_pairs(sums)
        return dx

    def _slopes(self, x: Array) -> Array:
        """The slopes repeated to a long row of ``x``."""
        slope = np.broadcast_to(self.params["slope"], x.shape[-1:])
        rows = per_row(row_length(x.shape[1:]), x.dtype, slope)
        return rows.reshape(-1)
