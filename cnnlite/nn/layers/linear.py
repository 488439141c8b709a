"""The fully connected layer."""

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels.matmul import is_large, matmul, matmul_samples
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.nn.layers.initializers import Initializer, initializers
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array, Shape


@layers.register("linear")
class Linear(Layer):
    """y = x @ weight + bias: ``(N, in_features) -> (N, out_features)``; images first need flatten or a global pooling.

    Args:
        out_features: number of outputs.
        bias: add a bias to each output.
        init: ``he``, ``glorot``, ``normal`` (deviation 0.01), ``unit`` (deviation 1), or ``dirac`` (copies the input).

    Parameters: ``weight`` (in_features, out_features), ``bias`` (out_features,).
    """

    by_shards = True

    def __init__(self, out_features: int, bias: bool = True, init: Initializer = "he"):
        super().__init__()
        if out_features < 1:
            raise OptionError(f"out_features must be at least 1, not {out_features}", "out_features")
        self.out_features = out_features
        self.has_bias = bias
        self.init = init

    def infer(self, in_shape: Shape) -> Shape:
        if len(in_shape) != 1:
            raise ValueError(f"expects flat features, but its input has shape {in_shape}; put `flatten` before it")
        self.add_param("weight", (in_shape[0], self.out_features), initializers[self.init])
        if self.has_bias:
            self.add_param("bias", (self.out_features,))
        self.multiply_adds = in_shape[0] * self.out_features
        self.is_large = is_large(self.multiply_adds, in_shape[0] + self.out_features)
        return (self.out_features,)

    def forward(self, x: Array, context: Context) -> Array:
        self._kept = x if context.training else None
        y = matmul_samples(x, self.params["weight"], engine.empty((len(x), self.out_features), x.dtype))
        if self.has_bias:
            y += self.params["bias"]
        return y

    def backward(self, dy: Array) -> Array | None:
        x = self.kept()
        if not self.is_frozen:
            self._write_gradients(x, dy)
        if not self.needs_dx:
            return None
        return matmul_samples(dy, self.params["weight"].T, engine.empty(x.shape, x.dtype))

    def _write_gradients(self, x: Array, dy: Array) -> None:
        if self.has_bias:
            shards.sum_over_shards(
                lambda i, j, out: np.add.reduce(dy[i:j], axis=0, out=out), len(x), self.grads["bias"]
            )
        if self.is_large:
            whole, dwhole = shards.whole(x), shards.whole(dy)
            with shards.lockstep():
                matmul(whole.T, dwhole, self.grads["weight"])
        else:
            shards.sum_over_shards(lambda i, j, out: matmul(x[i:j].T, dy[i:j], out), len(x), self.grads["weight"])
