"""Where numbers stopped being finite, for the message that ends a diverged run."""

from collections.abc import Callable

import numpy as np

from cnnlite.layers.base import Layer
from cnnlite.network import Network
from cnnlite.types import Array


def first_not_finite(network: Network, x: Array, step: int) -> str:
    """Name the first thing that holds NaN or infinity: the input, a parameter, a layer's output, or a gradient.

    Runs the forward pass of training step ``step`` on the batch ``x`` once more; the network is of no use afterwards.
    """
    if not np.isfinite(x).all():
        return "the input"
    for name, parameter in network.parameters.items():
        if not np.isfinite(parameter.value).all():
            return f"parameter {name}, changed by an earlier update"
    found: list[str] = []
    for _, layer in network.model.walk():
        if not layer.children:
            _watch(layer, found)
    network.forward(x, training=True, step=step)
    if found:
        return f"the output of {found[0]}"
    for name, parameter in reversed(network.parameters.items()):  # the backward pass goes from the end to the start
        if not np.isfinite(parameter.grad).all():
            return f"the gradient of parameter {name}"
    return "the loss itself"


def _watch(layer: Layer, found: list[str]) -> None:
    """Make the layer report an output that is not finite."""
    forward: Callable[..., Array] = layer.forward

    def watched(x: Array, *, training: bool) -> Array:
        y = forward(x, training=training)
        if not np.isfinite(y).all():
            found.append(layer.path or type(layer).__name__)
        return y

    layer.forward = watched  # type: ignore[method-assign]
