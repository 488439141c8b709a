"""PyTorch twin of a network: the same layers, copies of the same parameters, the same training step."""

import copy
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlite.nn.layers import activations
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.hard import HardSigmoid, HardSwish
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.layers.sample_norms import LayerNorm
from cnnlite.nn.layers.scale import Scale
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.layers.whitening import WhiteningConv2d
from cnnlite.nn.losses import CrossEntropy, Loss
from cnnlite.nn.network import Network
from cnnlite.optim import SGD
from cnnlite.tools.bench import Step
from cnnlite.utils.types import Array, Shape

torch: Any = importlib.import_module("torch")  # not `import torch`: types are checked alike without it
nn = torch.nn
_Module: Any = nn.Module
_OWN_OUTPUT = (BatchNorm, Conv2d, Linear, Residual)
"""Layers whose output is not used elsewhere: PyTorch may overwrite it, as its own networks do."""


def twin(network: Network) -> Any:
    """Return the PyTorch module of ``network``, for images (N, C, H, W).

    It has the default layout; ``.to(memory_format=torch.channels_last)`` converts it.

    Raises:
        TypeError: If there is no twin for a layer.
    """
    return _Translator().module(network.model)


def tensor(x: Array) -> Any:
    """Return a batch of images (N, H, W, C) as a tensor (N, C, H, W), in the default layout."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def parity(step: Step) -> float:
    """Return the largest difference between the outputs of network and twin, relative to the largest output."""
    rng = np.random.default_rng(0)
    for parameter in step.network.parameters.values():
        if parameter.value.ndim == 1:  # initially zeros and ones, which would hide mistakes
            parameter.value[...] += rng.uniform(-0.3, 0.3, parameter.value.shape)
    expected = twin(step.network)(tensor(step.x)).detach().numpy()
    found = step.network.forward(step.x, training=True)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def training_step(step: Step, variant: str) -> Callable[[], float]:
    """Return PyTorch's training step for ``step``: the same parameters, batch, loss (returned) and update by SGD.

    ``variant`` may hold the words ``channels_last`` and ``compiled``.

    Raises:
        TypeError: If there is no twin for the loss or the optimizer.
    """
    if not isinstance(step.optimizer, SGD):
        raise TypeError("there is a twin for sgd only")
    loss = criterion(step.loss)
    module, x = twin(step.network), tensor(step.x)
    if "channels_last" in variant:
        module, x = module.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=step.optimizer.lr / 1000, momentum=step.optimizer.momentum, fused=True
    )
    labels = torch.from_numpy(step.labels)

    def loss_of(x: Any, labels: Any) -> Any:
        return loss(module(x), labels)

    forward = torch.compile(loss_of) if "compiled" in variant else loss_of

    def make_step() -> float:
        optimizer.zero_grad(set_to_none=True)
        found = forward(x, labels)
        found.backward()
        optimizer.step()
        return float(found.item())

    return make_step


def criterion(loss: Loss) -> Any:
    """Return PyTorch's function for ``loss``; TypeError if there is none."""
    if not isinstance(loss, CrossEntropy):
        raise TypeError("there is a twin for cross_entropy only")
    if loss.class_weights is not None:
        raise TypeError("there is no twin for class_weights")
    return nn.CrossEntropyLoss(label_smoothing=loss.label_smoothing)


class _Merged(_Module):  # type: ignore[misc] # PyTorch is Any
    """Parallel branches with merged outputs."""

    def __init__(self, branches: list[Any], merge: str):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.merge = merge

    def forward(self, x: Any) -> Any:
        """Merge the outputs of the branches for ``x``."""
        first, *others = (branch(x) for branch in self.branches)
        if self.merge == "concat":
            return torch.cat([first, *others], dim=1)
        if self.merge == "multiply":
            first, *others = (out if out.dim() == 4 else out[..., None, None] for out in (first, *others))
        for other in others:
            first = first + other if self.merge == "sum" else first * other
        return first


class _Scale(_Module):  # type: ignore[misc] # PyTorch is Any
    """Multiplication by a number that is not trained."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Any) -> Any:
        """Multiply ``x``."""
        return x * self.factor


class _LayerNorm(nn.LayerNorm):  # type: ignore[misc, name-defined] # PyTorch is Any
    """Layer normalization of the channels of images (N, C, H, W)."""

    def forward(self, x: Any) -> Any:
        """Normalize ``x`` with its channels last."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _Translator:
    """Translates the layers in order, and tracks the shape of the features."""

    def __init__(self) -> None:
        self.flat = False
        self.flattened: Shape | None = None
        """Shape (H, W, C) that `flatten` turned into features; PyTorch's are in the order (C, H, W)."""

    def module(self, layer: Layer) -> Any:
        match layer:
            case Sequential():
                return self._sequential(layer)
            case Parallel():
                return self._parallel(layer)
            case WhiteningConv2d():
                module = nn.Conv2d(layer.windows.channels, layer.buffers["weight"].shape[-1], layer.windows.kernel)
                _fill(module, weight=layer.buffers["weight"].transpose(3, 2, 0, 1), bias=layer.params["bias"])
                module.weight.requires_grad = False
                return module
            case Scale():
                return _Scale(layer.factor)
            case Conv2d():
                return self._conv2d(layer)
            case Linear():
                module = nn.Linear(*layer.params["weight"].shape, bias=layer.has_bias)
                _fill(module, weight=self._channels_first(layer.params["weight"]).T, bias=layer.params.get("bias"))
                self.flattened = None
                return module
            case BatchNorm():
                return self._batch_norm(layer)
            case LayerNorm():
                return self._layer_norm(layer)
            case MaxPool2d():
                padding, border = _padding(layer, -math.inf)
                return _bordered(border, nn.MaxPool2d(layer.kernel, layer.stride, padding, ceil_mode=layer.ceil_mode))
            case AvgPool2d():
                padding, border = _padding(layer, 0.0)
                return _bordered(border, nn.AvgPool2d(layer.kernel, layer.stride, padding, ceil_mode=layer.ceil_mode))
            case AdaptiveAvgPool2d():
                return nn.AdaptiveAvgPool2d(layer.output_size)
            case GlobalAvgPool2d():
                self.flat = True
                return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            case Flatten():
                if not self.flat:
                    self.flat, self.flattened = True, layer.in_shape
                return nn.Flatten()
            case activations.Activation():
                return _activation(layer)
        raise TypeError(f"{layer.path or type(layer).__name__}: there is no twin for this layer")

    def _sequential(self, layer: Sequential) -> Any:
        modules, before = [], None
        for part in layer.layers:
            module = self.module(part)
            if isinstance(module, nn.ReLU) and isinstance(before, _OWN_OUTPUT):
                module.inplace = True
            modules.append(module)
            before = part
        return nn.Sequential(*modules)

    def _parallel(self, layer: Parallel) -> Any:
        branches, ends = [], []
        for branch in layer.branches:
            translator = copy.copy(self)
            branches.append(translator.module(branch))
            ends.append(translator)
        if any(end.flattened != self.flattened for end in ends):
            raise TypeError(f"{layer.path or 'parallel'}: there is no twin for a flatten inside branches")
        self.flat = all(end.flat for end in ends)  # a gate may be flat
        return _Merged(branches, layer.merge)

    def _conv2d(self, layer: Conv2d) -> Any:
        padding, border = _padding(layer, 0.0)
        in_channels = layer.windows.channels
        module = nn.Conv2d(
            *(in_channels, layer.out_channels, layer.kernel, layer.stride),
            padding=padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.has_bias,
            padding_mode=layer.padding_mode,
        )
        _fill(module, weight=layer.params["weight"].transpose(3, 2, 0, 1), bias=layer.params.get("bias"))
        return _bordered(border, module)

    def _batch_norm(self, layer: BatchNorm) -> Any:
        kind = nn.BatchNorm1d if self.flat else nn.BatchNorm2d
        (channels,) = layer.buffers["running_mean"].shape
        module = kind(channels, eps=layer.eps, momentum=layer.momentum, affine=layer.affine)
        if layer.affine:
            for name, theirs in (("gamma", module.weight), ("beta", module.bias)):
                if name in layer.params:
                    with torch.no_grad():
                        theirs.copy_(torch.from_numpy(self._channels_first(layer.params[name]).copy()))
                else:
                    theirs.requires_grad = False
        return module

    def _layer_norm(self, layer: LayerNorm) -> Any:
        module = (nn.LayerNorm if self.flat else _LayerNorm)(layer.in_shape[-1], layer.eps, layer.affine)
        if layer.affine:
            gamma, beta = (self._channels_first(layer.params[name]) for name in ("gamma", "beta"))
            _fill(module, weight=gamma, bias=beta)
        return module

    def _channels_first(self, array: Array) -> Array:
        """Return ``array`` (features, ...) with the features in PyTorch's order."""
        if self.flattened is None:
            return array
        split = array.reshape(*self.flattened, -1)
        return split.transpose(2, 0, 1, 3).reshape(array.shape)


def _fill(module: Any, **values: Array | None) -> None:
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(module, name).copy_(torch.from_numpy(value.copy()))


def _padding(layer: Conv2d | MaxPool2d | AvgPool2d, value: float) -> tuple[tuple[int, int], Any]:
    """Return the padding that PyTorch's layer can do itself, and a layer that pads with ``value`` if it cannot."""
    windows = layer.windows
    (top, left), (bottom, right), beyond = windows.top_left, windows.bottom_right, windows.overhang
    if (top, left) == (bottom - beyond[0], right - beyond[1]):
        return windows.top_left, None
    if isinstance(layer, Conv2d) and layer.padding_mode == "reflect":
        return (0, 0), nn.ReflectionPad2d((left, right, top, bottom))
    return (0, 0), nn.ConstantPad2d((left, right, top, bottom), value)


def _bordered(border: Any, module: Any) -> Any:
    return module if border is None else nn.Sequential(border, module)


def _activation(layer: activations.Activation) -> Any:
    match layer:
        case activations.LeakyReLU():
            return nn.LeakyReLU(layer.slope)
        case activations.ELU():
            return nn.ELU(layer.alpha)
        case GELU():
            return nn.GELU(approximate=layer.approximate)
    return {
        activations.ReLU: nn.ReLU,
        activations.SiLU: nn.SiLU,
        activations.Sigmoid: nn.Sigmoid,
        activations.Softplus: nn.Softplus,
        activations.Tanh: nn.Tanh,
        HardSigmoid: nn.Hardsigmoid,
        HardSwish: nn.Hardswish,
    }[type(layer)]()
