"""Facts from which the page computes a layer again, by the kind of the layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnlite.nn.kernels import convolution, reflection
from cnnlite.nn.kernels.geometry import Axis, Windows
from cnnlite.nn.layers.activations import ELU, Activation, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.hard import HardSigmoid, HardSwish
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.layers.sample_norms import GroupNorm, LayerNorm
from cnnlite.nn.layers.scale import Scale
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.layers.whitening import WhiteningConv2d
from cnnlite.tools.show.evaluated import class_of
from cnnlite.tools.show.numbers import Numbers, planar
from cnnlite.utils.types import Array

Facts = dict[str, Any]
CURVE = np.linspace(-6, 6, 241, dtype=np.float32)
"""Inputs at which the curve of an activation is drawn."""
_FUNCTIONS = (ReLU, LeakyReLU, ELU, Sigmoid, Tanh, SiLU, Softplus, HardSigmoid, HardSwish, GELU)
"""Activations whose formulas the page knows."""
MOST_LISTED = 4096
"""Maximum numbers of a parameter of an unknown layer that a page lists."""


@dataclass(frozen=True)
class Seen:
    """A layer, what it was given for one image, and the channels of its input and output that are shown."""

    layer: Any
    """Layer of an `evaluated` model, of the class that its function below is for."""
    x: Array
    dy: Array | None
    inside: Array
    outside: Array
    numbers: Numbers
    step: int
    """Training step of the checkpoint."""

    @property
    def hidden_inside(self) -> Array:
        """Channels of the input that are not shown."""
        return np.setdiff1d(np.arange(self.x.shape[-1]), self.inside)

    def hidden_outside(self, count: int) -> Array:
        """Channels of the ``count`` of the output that are not shown."""
        return np.setdiff1d(np.arange(count), self.outside)


def facts_of(seen: Seen) -> Facts:
    """Return the facts about a layer; ``view`` names the way to show it."""
    cls = class_of(seen.layer)
    if issubclass(cls, Activation):
        return _activation(seen)
    return _FACTS.get(cls, _unknown)(seen)


def _arrays(seen: Seen, name: str, shown: Callable[[Array], Array]) -> Facts:
    """Facts about a parameter or buffer, ``shown`` in part, and its gradient."""
    layer = seen.layer
    array = layer.params.get(name, layer.buffers.get(name))
    facts = {} if array is None else {name: seen.numbers.add(shown(array))}
    if name in layer.params and seen.dy is not None:
        facts[f"d{name}"] = seen.numbers.add(shown(layer.grads[name]))
    return facts


def _windows(windows: Windows) -> Facts:
    names = ("size", "kernel", "stride", "top_left", "bottom_right", "out", "dilation", "overhang")
    return {"windows": {name: list(getattr(windows, name)) for name in names}}


def _convolution(seen: Seen) -> Facts:
    layer, inside, outside = seen.layer, seen.inside, seen.outside
    windows, groups = layer.windows, layer.windows.groups
    weight = _dense((layer.params | layer.buffers)["weight"], groups)
    hidden, others = seen.hidden_inside, seen.hidden_outside(weight.shape[3])
    facts: Facts = {"view": "convolution", **_windows(windows), "trained": "weight" in layer.params}
    if groups > 1:  # filters then have their own channels, all of them
        facts["groups"] = groups
    shown = inside if groups == 1 else slice(None)
    facts |= _arrays(seen, "weight", lambda w: w[:, :, shown][..., outside].transpose(3, 2, 0, 1))
    facts |= _arrays(seen, "bias", lambda b: b[outside])
    mirrored = isinstance(layer, Conv2d) and layer.reflects
    facts["windows"]["mirrored"] = mirrored
    dense = replace(windows.on_padded if mirrored else windows, groups=1)

    def forward(x: Array, part: Array) -> Array:
        x = reflection.pad(x[None], windows) if mirrored else x[None]
        y: Array = convolution.forward(x, part, None, replace(dense, channels=part.shape[2]), "unfold")[0][0]
        return y

    def backward(dy: Array, part: Array) -> Array:
        dx = convolution.input_gradient(dy[None], part, replace(dense, channels=part.shape[2]), "unfold")
        total: Array = (reflection.pad_gradient(dx, windows) if mirrored else dx)[0]
        return total

    unseen, back = weight[:, :, hidden][..., outside], weight[:, :, inside][..., others]
    if unseen.any():  # of groups, filters may see no hidden channel
        facts["rest"] = _rest(seen, lambda f: forward(f(seen.x[..., hidden]), f(unseen)))
    if back.any() and seen.dy is not None:
        dy = seen.dy[..., others]
        facts["rest_back"] = _rest(seen, lambda f: backward(f(dy), f(back)))
    return facts


def _dense(weight: Array, groups: int) -> Array:
    """Return weights (kernel_h, kernel_w, C, F) without groups, 0 between channels and filters of different ones."""
    if groups == 1:
        return weight
    *kernel, channels, filters = weight.shape
    dense = np.zeros((*kernel, groups, channels, groups, filters // groups), weight.dtype)
    each = np.arange(groups)
    dense[:, :, each, :, each] = weight.reshape(*kernel, channels, groups, -1).transpose(3, 0, 1, 2, 4)
    return dense.reshape(*kernel, groups * channels, filters)


def _linear(seen: Seen) -> Facts:
    layer, inside, outside = seen.layer, seen.inside, seen.outside
    weight = layer.params["weight"]
    hidden, others = seen.hidden_inside, seen.hidden_outside(weight.shape[1])
    facts: Facts = {"view": "linear"}
    facts |= _arrays(seen, "weight", lambda w: w[inside][:, outside].T)
    facts |= _arrays(seen, "bias", lambda b: b[outside])
    if len(hidden):
        facts["rest"] = _rest(seen, lambda f: f(seen.x[hidden]) @ f(weight[hidden][:, outside]))
    if len(others) and seen.dy is not None:
        dy = seen.dy[others]
        facts["rest_back"] = _rest(seen, lambda f: f(dy) @ f(weight[inside][:, others].T))
    return facts


def _rest(seen: Seen, product: Callable[[Callable[[Array], Array]], Array]) -> Facts:
    """Sums of products over channels that are not shown, in float64, and the greatest sum of absolute products."""
    total = product(lambda array: np.ascontiguousarray(array, np.float64))
    sizes = product(lambda array: np.abs(array, dtype=np.float64))
    channels = np.arange(total.shape[-1])
    return {
        "sum": seen.numbers.add(planar(total, channels)),
        "size": np.nan_to_num(sizes.reshape(-1, sizes.shape[-1]).max(axis=0)).tolist(),
    }


def _norm(seen: Seen) -> Facts:
    layer = seen.layer
    facts: Facts = {"view": "norm", "eps": layer.eps}
    for name in ("gamma", "beta", "running_mean", "running_var"):
        facts |= _arrays(seen, name, lambda array: array[seen.outside])
    return facts


def _sample_norm(seen: Seen) -> Facts:
    """Facts about layer or group norm; ``statistics`` and ``means`` are NumPy's, of the channels that belong together.

    The latter are those of g = dy * gamma and of g * xhat, and of their absolute values, which bound the rounding.
    """
    layer = seen.layer
    groups = layer.num_groups if isinstance(layer, GroupNorm) else None
    facts: Facts = {"view": "norm", "eps": layer.eps, "groups": groups or 0}
    for name in ("gamma", "beta"):
        facts |= _arrays(seen, name, lambda array: array[seen.outside])
    _, mean, inv_std = (array[0] for array in layer.normalized(seen.x[None]))
    shown = np.arange(1) if groups is None else seen.outside

    def add(array: Array) -> int:
        return seen.numbers.add(planar(array, shown))

    facts["statistics"] = [add(mean), add(1 / np.square(inv_std, dtype=np.float64) - layer.eps)]
    if seen.dy is not None:
        g = seen.dy.astype(np.float64) * layer.params.get("gamma", 1.0)
        products = g * (seen.x - mean) * inv_std
        facts["means"] = [add(_means(array, groups)) for array in (g, products, np.abs(g), np.abs(products))]
        facts["numbers"] = seen.x.shape[-1] if groups is None else seen.x.size // groups
    return facts


def _means(array: Array, groups: int | None) -> Array:
    """Means over the channels of each pixel, (..., 1), or of each channel's group over all pixels, (C,)."""
    if groups is None:
        means: Array = array.mean(axis=-1, keepdims=True)
        return means
    parts = array.reshape(-1, groups, array.shape[-1] // groups)
    return np.repeat(parts.mean(axis=(0, 2)), parts.shape[2])


def _activation(seen: Seen) -> Facts:
    layer = seen.layer
    with np.errstate(all="ignore"):
        curve = layer.forward(CURVE[:, None], Context())[:, 0]
    options = {name: getattr(layer, name) for name in ("slope", "alpha") if hasattr(layer, name)}
    ends = [float(CURVE[0]), float(CURVE[-1])]
    function = layers.name_of(type(layer)) if type(layer) in _FUNCTIONS else ""
    if isinstance(layer, GELU) and layer.approximate == "none":
        function = "exact gelu"
    return {
        "view": "activation",
        "function": function,
        "curve": seen.numbers.add(curve),
        "ends": ends,
        **options,
    }


def _max_pool(seen: Seen) -> Facts:
    return {"view": "max", **_windows(seen.layer.windows)}


def _average_pool(seen: Seen) -> Facts:
    return {"view": "average", **_windows(seen.layer.windows)}


def _adaptive_pool(seen: Seen) -> Facts:
    """Facts where all windows have one size; windows of several sizes are not shown."""
    *size, channels = seen.x.shape
    axes = [Axis(n, n // out, n // out, 0, 0, out) for n, out in zip(size, seen.layer.output_size, strict=True)]
    if any(axis.kernel * axis.out != axis.size for axis in axes):
        return _unknown(seen)
    return {"view": "average", **_windows(Windows.of_axes(channels, *axes))}


def _mean(seen: Seen) -> Facts:
    height, width, channels = seen.x.shape
    axes = (Axis(size, size, size, 0, 0, 1) for size in (height, width))
    return {"view": "mean", **_windows(Windows.of_axes(channels, *axes))}


def _dropout(seen: Seen) -> Facts:
    layer = seen.layer
    ones = np.ones((1, *seen.x.shape), np.float32)
    factors = Dropout.forward(layer, ones, Context(training=True, step=seen.step))[0]
    layer.forget()
    return {"view": "dropout", "p": layer.p, "factors": seen.numbers.add(planar(factors, seen.outside))}


def _scale(seen: Seen) -> Facts:
    return {"view": "scale", "factor": seen.layer.factor}


def _flatten(seen: Seen) -> Facts:
    return {"view": "flatten"}


def _unknown(seen: Seen) -> Facts:
    """Facts about a layer that was registered by somebody else: its parameters, as far as they are few."""
    layer = seen.layer
    listed = []
    for name, array in (layer.params | layer.buffers).items():
        entry: Facts = {"name": name, "shape": list(array.shape), "trained": name in layer.params}
        if array.size <= MOST_LISTED:
            entry["values"] = seen.numbers.add(array.reshape(-1))
        listed.append(entry)
    return {"view": "generic", "listed": listed}


_FACTS: dict[type[Layer], Callable[[Seen], Facts]] = {
    Conv2d: _convolution,
    WhiteningConv2d: _convolution,
    Linear: _linear,
    BatchNorm: _norm,
    GroupNorm: _sample_norm,
    LayerNorm: _sample_norm,
    MaxPool2d: _max_pool,
    AvgPool2d: _average_pool,
    AdaptiveAvgPool2d: _adaptive_pool,
    GlobalAvgPool2d: _mean,
    Dropout: _dropout,
    Scale: _scale,
    Flatten: _flatten,
}
