"""The layers, one family a file; importing this package registers them all."""

from cnnlite.layers import activations, containers, convolution, dropout, linear, normalization, pooling, shape
from cnnlite.layers.base import Layer, layers

__all__ = [
    "Layer",
    "activations",
    "containers",
    "convolution",
    "dropout",
    "layers",
    "linear",
    "normalization",
    "pooling",
    "shape",
]
