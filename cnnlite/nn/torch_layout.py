"""Names and layouts of a network's arrays in PyTorch: both ways between its state dict and ours.

PyTorch is channels first. Its convolution weights are (out, in, kernel_h, kernel_w), ours (kernel_h, kernel_w, in,
out); its linear weights (out, in), ours (in, out). Behind a flatten its features are in the order (C, H, W), ours in
the order (H, W, C). A normalization's gamma and beta are its weight and bias, the slopes of `prelu` its weight.
"""

import math
from typing import NamedTuple

import numpy as np

from cnnlite.nn.layers.base import Layer, dotted
from cnnlite.nn.layers.containers import Parallel
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.shape import Flatten
from cnnlite.utils.types import Array

_KEYS = {"gamma": "weight", "beta": "bias", "slope": "weight"}


class Layout(NamedTuple):
    """An array of a network as PyTorch has it."""

    name: str
    """Dotted name; ``0.weight`` is the same in a `torch.nn.Sequential`."""
    order: Array | None
    """Index in PyTorch's order of each of our features, along our first axis; None if they are in one order."""

    def to_ours(self, array: Array) -> Array:
        """View or copy PyTorch's array in our layout; one of another shape than ours never fails, and never fits."""
        if array.ndim == 4:
            return array.transpose(2, 3, 1, 0)
        array = array.T if array.ndim == 2 else array
        return array if self.order is None or array.shape[:1] != self.order.shape else array[self.order]

    def to_torch(self, array: Array) -> Array:
        """View or copy our array in PyTorch's layout."""
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1)
        return (array if self.order is None else array[np.argsort(self.order)]).T


def layouts(model: Layer) -> dict[str, Layout]:
    """Find the layout of each array of an inferred model, by the array's dotted name."""
    found: dict[str, Layout] = {}
    _follow(model, "", None, found)
    return found


def _follow(layer: Layer, prefix: str, order: Array | None, found: dict[str, Layout]) -> Array | None:
    """Add the arrays of a layer whose input has its features in ``order``, as in `Layout`; returns its output's."""
    for key, spec in layer.specs.items():
        along = order if order is not None and spec.shape[:1] == order.shape else None
        bias_of_outputs = isinstance(layer, Linear) and key == "bias"
        found[dotted(prefix, key)] = Layout(dotted(prefix, _KEYS.get(key, key)), None if bias_of_outputs else along)
    if isinstance(layer, Linear):
        return None
    if isinstance(layer, Flatten):
        return _flattened(layer, order)
    ends = []
    for name, child in layer.children.items():
        ends.append(_follow(child, dotted(prefix, name), order, found))
        if not isinstance(layer, Parallel):
            order = ends[-1]
    return _joined(layer, ends) if isinstance(layer, Parallel) else order


def _flattened(layer: Flatten, order: Array | None) -> Array | None:
    if len(layer.in_shape) != 3 or math.prod(layer.in_shape[:2]) == 1:
        return order
    height, width, channels = layer.in_shape
    return np.arange(math.prod(layer.in_shape)).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)


def _joined(layer: Parallel, ends: list[Array | None]) -> Array | None:
    """Order behind branches whose outputs have these orders: of sums, that of each; of joined ones, side by side."""
    if layer.merge != "concat" or all(end is None for end in ends):
        return ends[0]
    sizes = [branch.out_shape[-1] for branch in layer.branches]
    starts = np.cumsum([0, *sizes])
    orders = [np.arange(size) if end is None else end for size, end in zip(sizes, ends, strict=True)]
    return np.concatenate([start + order for start, order in zip(starts, orders, strict=False)])
