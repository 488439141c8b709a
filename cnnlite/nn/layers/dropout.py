"""Dropout."""

import math

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import engine
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array, DType


@layers.register("dropout")
class Dropout(Layer):
    """Zero each number with probability ``p`` in training and scale the others by 1 / (1 - p) (Srivastava et al. 2014).

    Args:
        p: probability of a number being dropped, in [0, 1).
    """

    by_shards = True

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p < 1:
            raise OptionError(f"p must be in [0, 1), not {p}", "p")
        self.p = p

    def allocate(self, rng: np.random.Generator, dtype: DType) -> None:
        self._seed = int(rng.integers(2**63))  # differs from layer to layer, follows from the network's seed

    def forward(self, x: Array, context: Context) -> Array:
        if not context.training:
            self._kept = None
            return x
        factors = self._kept = engine.empty(x.shape, x.dtype)
        y = engine.empty(x.shape, x.dtype)
        kept_scale = x.dtype.type(1 / (1 - self.p))
        length = math.prod(x.shape[1:])
        # Values of Philox's counter that a sample uses up, each good for 8 draws of float32: a sample's draws follow
        # from its place in the whole batch, whatever rank and block computes it.
        counters = -(-length // 8)
        offset = context.ranks.offset

        def block(start: int, stop: int) -> None:
            draws = engine.scratch("dropout.draws", (stop - start, 8 * counters), np.float32)
            rng = stream(self._seed, "dropout", context.step, skip=(offset + start) * counters)
            rng.random(out=draws, dtype=np.float32)
            kept = (draws[:, :length] >= self.p).reshape(factors[start:stop].shape)
            np.multiply(kept, kept_scale, out=factors[start:stop])
            np.multiply(x[start:stop], factors[start:stop], out=y[start:stop])

        engine.for_blocks(block, len(x), 3 * length * x.itemsize)
        return y

    def backward(self, dy: Array) -> Array | None:
        factors: Array = self.kept()
        return np.multiply(dy, factors, out=engine.empty(dy.shape, dy.dtype))
