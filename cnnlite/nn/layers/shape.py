"""Layers that change the shape of activations, not their numbers."""

import math

from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.utils.types import Array, Shape


@layers.register("flatten")
class Flatten(Layer):
    """Flatten all axes of a sample to one: ``(N, H, W, C) -> (N, H * W * C)``."""

    by_shards = True

    def infer(self, in_shape: Shape) -> Shape:
        self.in_shape = in_shape
        return (math.prod(in_shape),)

    def forward(self, x: Array, context: Context) -> Array:
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array | None:
        return dy.reshape(len(dy), *self.in_shape)
