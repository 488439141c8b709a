"""The layers, one family a file; importing this package registers them all."""

from cnnlite.nn.layers import (  # noqa: F401
    activations,
    containers,
    convolution,
    dropout,
    gelu,
    hard,
    linear,
    normalization,
    pooling,
    prelu,
    sample_norms,
    scale,
    shape,
    whitening,
)
from cnnlite.nn.layers.base import Layer, layers

__all__ = ["Layer", "layers"]
