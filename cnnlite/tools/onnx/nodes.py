"""Exporters of the layer classes; operators as in opset 17 of https://onnx.ai/onnx/operators/."""

import math
from typing import Any

import numpy as np

from cnnlite.nn.kernels import pooling
from cnnlite.nn.kernels.geometry import Windows
from cnnlite.nn.layers import activations as act
from cnnlite.nn.layers.base import dotted
from cnnlite.nn.layers.containers import Parallel, Repeat, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.fused import FusedBatchNorm
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.hard import HardSigmoid, HardSwish
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.layers.prelu import PReLU
from cnnlite.nn.layers.sample_norms import GroupNorm, LayerNorm
from cnnlite.nn.layers.scale import Scale
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.layers.whitening import WhiteningConv2d
from cnnlite.tools.onnx.graph import Graph, exports


def _geometry(windows: Windows) -> dict[str, Any]:
    return {
        "kernel_shape": windows.kernel,
        "strides": windows.stride,
        "pads": (*windows.top_left, *windows.bottom_right),
    }


@exports(Conv2d, WhiteningConv2d)
def conv2d(graph: Graph, layer: Any, x: str, name: str) -> str:
    """Conv with filters (out, in / groups, kernel_h, kernel_w), of images that Pad has mirrored if they are to be."""
    windows = layer.windows
    if isinstance(layer, Conv2d) and layer.reflects:
        pads = [0, 0, *windows.top_left, 0, 0, *windows.bottom_right]
        x, windows = graph.add("Pad", x, graph.constant(f"{name}.pads", pads), name=name, mode="reflect"), layer.inner
    arrays = layer.params | layer.buffers
    inputs = [graph.constant(f"{name}.weight", arrays["weight"].transpose(3, 2, 0, 1))]
    if "bias" in arrays:
        inputs.append(graph.constant(f"{name}.bias", arrays["bias"]))
    more = {"dilations": windows.dilation, "group": windows.groups}
    return graph.add("Conv", x, *inputs, name=name, **_geometry(windows), **more)


@exports(MaxPool2d)
def max_pool2d(graph: Graph, layer: MaxPool2d, x: str, name: str) -> str:
    """MaxPool, which ignores padding as ours does."""
    return graph.add("MaxPool", x, name=name, **_geometry(layer.windows))


@exports(AvgPool2d)
def avg_pool2d(graph: Graph, layer: AvgPool2d, x: str, name: str) -> str:
    """AveragePool in which padding counts as zeros; what is beyond it, too, which is then put right by Mul."""
    y = graph.add("AveragePool", x, name=name, count_include_pad=1, **_geometry(layer.windows))
    if layer.windows.overhang == (0, 0):
        return y
    factors = math.prod(layer.kernel) / pooling.counted(layer.windows)
    return graph.add("Mul", y, graph.constant(f"{name}.factors", factors), name=name)


@exports(AdaptiveAvgPool2d)
def adaptive_avg_pool2d(graph: Graph, layer: AdaptiveAvgPool2d, x: str, name: str) -> str:
    """AveragePool where all windows have one size, else MatMul with the shares of rows and of columns."""
    (height, width), (out_h, out_w) = layer.size, layer.output_size
    if height % out_h == width % out_w == 0:
        kernel = (height // out_h, width // out_w)
        return graph.add("AveragePool", x, name=name, kernel_shape=kernel, strides=kernel)
    rows, columns = pooling.shares(height, out_h), pooling.shares(width, out_w).T
    x = graph.add("MatMul", graph.constant(f"{name}.rows", rows), x, name=name)
    return graph.add("MatMul", x, graph.constant(f"{name}.columns", columns), name=name)


@exports(GlobalAvgPool2d)
def global_avg_pool2d(graph: Graph, layer: GlobalAvgPool2d, x: str, name: str) -> str:
    """ReduceMean over height and width."""
    return graph.add("ReduceMean", x, name=name, axes=(2, 3), keepdims=0)


@exports(BatchNorm, FusedBatchNorm)
def batch_norm(graph: Graph, layer: BatchNorm, x: str, name: str) -> str:
    """BatchNormalization with the running statistics."""
    mean, variance = layer.buffers["running_mean"], layer.buffers["running_var"]
    arrays = {
        "gamma": layer.params.get("gamma", np.ones_like(mean)),
        "beta": layer.params.get("beta", np.zeros_like(mean)),
        "running_mean": mean,
        "running_var": variance,
    }
    inputs = [graph.constant(f"{name}.{key}", array) for key, array in arrays.items()]
    return graph.add("BatchNormalization", x, *inputs, name=name, epsilon=layer.eps)


def _affine(graph: Graph, layer: LayerNorm | GroupNorm, channels: int, name: str) -> list[str]:
    """Gamma and beta as constants, 1 and 0 where they are not trained."""
    gamma, beta = layer.params.get("gamma", np.ones(channels)), layer.params.get("beta", np.zeros(channels))
    return [graph.constant(f"{name}.gamma", gamma), graph.constant(f"{name}.beta", beta)]


@exports(LayerNorm)
def layer_norm(graph: Graph, layer: LayerNorm, x: str, name: str) -> str:
    """LayerNormalization over the last axis, which images have their channels on in between."""
    affine = _affine(graph, layer, layer.in_shape[-1], name)
    images = len(layer.in_shape) == 3
    if images:
        x = graph.add("Transpose", x, name=name, perm=(0, 2, 3, 1))
    x = graph.add("LayerNormalization", x, *affine, name=name, axis=-1, epsilon=layer.eps)
    return graph.add("Transpose", x, name=name, perm=(0, 3, 1, 2)) if images else x


@exports(GroupNorm)
def group_norm(graph: Graph, layer: GroupNorm, x: str, name: str) -> str:
    """InstanceNormalization of (N, groups, rest), as opset 17 has no operator for groups; then gamma and beta."""
    groups, (*pixels, channels) = layer.num_groups, layer.in_shape
    ones, zeros = graph.constant(f"{name}.one", np.ones(groups)), graph.constant(f"{name}.zero", np.zeros(groups))
    x = graph.add("Reshape", x, graph.constant(f"{name}.groups", [0, groups, -1]), name=name)
    x = graph.add("InstanceNormalization", x, ones, zeros, name=name, epsilon=layer.eps)
    x = graph.add("Reshape", x, graph.constant(f"{name}.shape", [0, channels, *pixels]), name=name)
    for op, key in (("Mul", "gamma"), ("Add", "beta")):
        if key in layer.params:
            array = layer.params[key].reshape(-1, *(1 for _ in pixels))
            x = graph.add(op, x, graph.constant(f"{name}.{key}", array), name=name)
    return x


@exports(Linear)
def linear(graph: Graph, layer: Linear, x: str, name: str) -> str:
    """Gemm: x @ weight + bias."""
    inputs = [graph.constant(f"{name}.{key}", layer.params[key]) for key in ("weight", "bias") if key in layer.params]
    return graph.add("Gemm", x, *inputs, name=name)


@exports(Scale)
def scale(graph: Graph, layer: Scale, x: str, name: str) -> str:
    """Mul with the factor."""
    return graph.add("Mul", x, graph.constant(f"{name}.factor", layer.factor), name=name)


_SAME: dict[type[act.Activation], str] = {
    act.ReLU: "Relu",
    act.Sigmoid: "Sigmoid",
    act.Softplus: "Softplus",
    act.Tanh: "Tanh",
    HardSwish: "HardSwish",
}


@exports(*_SAME)
def same_operator(graph: Graph, layer: act.Activation, x: str, name: str) -> str:
    """Relu, Sigmoid, Softplus, Tanh or HardSwish."""
    return graph.add(_SAME[type(layer)], x, name=name)


@exports(HardSigmoid)
def hard_sigmoid(graph: Graph, layer: HardSigmoid, x: str, name: str) -> str:
    """HardSigmoid, whose slope is 1/5 unless told."""
    return graph.add("HardSigmoid", x, name=name, alpha=1 / 6, beta=0.5)


@exports(PReLU)
def prelu(graph: Graph, layer: PReLU, x: str, name: str) -> str:
    """PRelu, with slopes for the axis of channels."""
    slope = layer.params["slope"].reshape(-1, *(1 for _ in layer.in_shape[:-1]))
    return graph.add("PRelu", x, graph.constant(f"{name}.slope", slope), name=name)


@exports(act.LeakyReLU)
def leaky_relu(graph: Graph, layer: act.LeakyReLU, x: str, name: str) -> str:
    """LeakyRelu, whose alpha is the slope."""
    return graph.add("LeakyRelu", x, name=name, alpha=layer.slope)


@exports(act.ELU)
def elu(graph: Graph, layer: act.ELU, x: str, name: str) -> str:
    """Elu."""
    return graph.add("Elu", x, name=name, alpha=layer.alpha)


@exports(act.SiLU)
def silu(graph: Graph, layer: act.SiLU, x: str, name: str) -> str:
    """Mul of x and its Sigmoid."""
    return graph.add("Mul", x, graph.add("Sigmoid", x, name=name), name=name)


@exports(GELU)
def gelu(graph: Graph, layer: GELU, x: str, name: str) -> str:
    """``x / 2 * (1 + t)``, as opset 17 has no operator for it.

    t is the Erf of x / sqrt(2), or the Tanh of x * (scale + scale * cubic * x^2).
    """

    def number(key: str, value: float) -> str:
        return graph.constant(f"{name}.{key}", value)

    if layer.approximate == "none":
        t = graph.add("Erf", graph.add("Mul", x, number("scale", math.sqrt(0.5)), name=name), name=name)
    else:
        square = graph.add("Mul", x, x, name=name)
        slope = graph.add("Mul", square, number("cubic", layer.SCALE * layer.CUBIC), name=name)
        slope = graph.add("Add", slope, number("scale", layer.SCALE), name=name)
        t = graph.add("Tanh", graph.add("Mul", x, slope, name=name), name=name)
    half = graph.add("Mul", x, number("half", 0.5), name=name)
    return graph.add("Mul", half, graph.add("Add", t, number("one", 1.0), name=name), name=name)


@exports(Dropout)
def nothing(graph: Graph, layer: Any, x: str, name: str) -> str:
    """No node, for layers that are active in training only."""
    return x


@exports(Flatten)
def flatten(graph: Graph, layer: Flatten, x: str, name: str) -> str:
    """Flatten of (N, H, W, C), so that the features are in channels-last order."""
    if len(layer.in_shape) == 3:
        x = graph.add("Transpose", x, name=name, perm=(0, 2, 3, 1))
    return graph.add("Flatten", x, name=name, axis=1)


@exports(Sequential, Repeat)
def sequential(graph: Graph, layer: Sequential, x: str, name: str) -> str:
    """The nodes of the layers, one after the other."""
    for key, child in layer.children.items():
        x = graph.layer(child, x, dotted(name, key))
    return x


@exports(Parallel, Residual)
def parallel(graph: Graph, layer: Parallel, x: str, name: str) -> str:
    """Concat of channels, Sum, or Mul of one branch after the other."""
    outputs = [graph.layer(child, x, dotted(name, key)) for key, child in layer.children.items()]
    if layer.merge == "concat":
        return graph.add("Concat", *outputs, name=name, axis=1)
    if layer.merge == "sum":
        return graph.add("Sum", *outputs, name=name)
    ranks = [len(child.out_shape) for child in layer.children.values()]
    for index, rank in enumerate(ranks):
        if rank < max(ranks):
            axes = graph.constant(f"{name}.axes", [2, 3])
            outputs[index] = graph.add("Unsqueeze", outputs[index], axes, name=name)
    y, *others = outputs
    for other in others:
        y = graph.add("Mul", y, other, name=name)
    return y
