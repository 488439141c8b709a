"""Layers to be tested, found through the registry: options and input shapes for each.

A layer that needs options gets them in `TABLE`. One that is not there is made with its defaults, small numbers for
required integers, and the shapes of `ANY_SHAPE` that it accepts; where that fails, the test says so.
"""

import copy
import inspect
import typing
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnlite.nn.fusion import fuse
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU, Tanh
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.hard import HardSigmoid
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import GlobalAvgPool2d, MaxPool2d
from cnnlite.utils.types import Shape

ANY_SHAPE: tuple[Shape, ...] = ((1,), (7,), (1, 1, 1), (5, 3, 1), (4, 6, 3), (3, 3, 16))


def build_fused(layer: Layer, in_shape: Shape, dtype: Any = np.float64) -> Shape:
    """Build a layer as a network builds its model: neighbours inside it are fused."""
    out_shape = layer.infer(in_shape)
    fuse(layer)
    layer.allocate(np.random.default_rng(0), np.dtype(dtype))
    return out_shape


@dataclass(frozen=True)
class Case:
    """One layer with options, for inputs of one shape."""

    name: str
    in_shape: Shape
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items() if "<" not in str(value))
        return f"{self.name}({options}){'x'.join(map(str, self.in_shape))}".replace(" ", "")

    def layer(self, dtype: Any = np.float64, *, seed: int = 0) -> Layer:
        """A built layer whose parameters are all random."""
        layer = layers[self.name](**copy.deepcopy(dict(self.options)))
        rng = np.random.default_rng(seed)
        layer.build(self.in_shape, rng, np.dtype(dtype))
        for _, part in layer.walk():
            for key, value in part.params.items():
                value[...] = rng.standard_normal(value.shape) * 0.5 + (key == "gamma")
        return layer

    def out_shape(self) -> Shape:
        """What ``infer`` says comes out."""
        layer = layers[self.name](**copy.deepcopy(dict(self.options)))
        return layer.infer(self.in_shape)


Row = tuple[Shape, dict[str, Any]]


def _windows(rng: np.random.Generator, most_padding: Callable[[int], int]) -> Row:
    """Random kernel, stride, padding and an image they fit on."""
    kernel = tuple(rng.integers(1, 6, 2).tolist())
    stride = tuple(rng.integers(1, 7, 2).tolist())
    numbers = tuple(int(rng.integers(0, most_padding(k) + 1)) for k in kernel)
    padding = ("same", "valid", 0, numbers, numbers, numbers)[rng.integers(6)]
    height, width = (k + int(rng.integers(0, 7)) for k in kernel)
    shape = (height, width, int(rng.integers(1, 5)))
    return shape, {"kernel_size": kernel, "stride": stride, "padding": padding}


def _convolutions() -> list[Row]:
    rows: list[Row] = [
        ((1, 1, 1), {"out_channels": 1, "kernel_size": 1}),
        ((5, 4, 3), {"out_channels": 2, "kernel_size": 1}),
        ((5, 8, 3), {"out_channels": 2, "kernel_size": 1, "stride": 2}),
        ((5, 4, 2), {"out_channels": 2, "kernel_size": 1, "padding": 1}),
        ((7, 5, 1), {"out_channels": 1, "kernel_size": 3}),
        ((6, 9, 2), {"out_channels": 3, "kernel_size": (2, 5), "padding": (1, 2)}),
        ((3, 3, 2), {"out_channels": 2, "kernel_size": 2, "padding": 3}),  # windows of padding alone
        ((9, 8, 2), {"out_channels": 2, "kernel_size": 2, "stride": 5, "padding": 1}),
        ((9, 8, 2), {"out_channels": 2, "kernel_size": 2, "stride": (1, 3)}),
        ((9, 8, 2), {"out_channels": 2, "kernel_size": (3, 2), "stride": (3, 1), "bias": False}),
        ((7, 6, 3), {"out_channels": 2, "kernel_size": 4, "padding": "same"}),
        ((7, 10, 3), {"out_channels": 2, "kernel_size": 3, "stride": 2, "padding": "same"}),
        ((7, 9, 1), {"out_channels": 2, "kernel_size": 2, "stride": 4, "padding": "same"}),
        ((2, 2, 5), {"out_channels": 4, "kernel_size": 3, "padding": 1}),
        ((8, 8, 4), {"out_channels": 6, "kernel_size": 3, "padding": "same", "bias": False}),
        ((13, 15, 8), {"out_channels": 8, "kernel_size": 3, "padding": "same"}),
        ((15, 13, 9), {"out_channels": 5, "kernel_size": 3}),
        ((14, 13, 8), {"out_channels": 3, "kernel_size": (3, 2), "stride": (1, 2), "padding": 1}),
        ((6, 6, 24), {"out_channels": 20, "kernel_size": 3, "padding": "same"}),
    ]
    for name in ("unfold", "unfold_rows", "winograd"):
        rows += [
            ((4, 4, 2), {"out_channels": 3, "kernel_size": 3, "padding": "same", "algorithm": name}),
            ((9, 6, 3), {"out_channels": 2, "kernel_size": 3, "padding": 1, "algorithm": name}),
            ((3, 11, 1), {"out_channels": 1, "kernel_size": 3, "algorithm": name}),
            ((6, 5, 130), {"out_channels": 130, "kernel_size": 3, "padding": (2, 1), "algorithm": name}),
        ]
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape, options = _windows(rng, lambda k: k + 1)
        rows.append((shape, options | {"out_channels": int(rng.integers(1, 5))}))
    return rows + GROUPED_DILATED_MIRRORED


GROUPED_DILATED_MIRRORED: list[Row] = [
    ((6, 5, 4), {"out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 2}),
    ((5, 6, 4), {"out_channels": 4, "kernel_size": 3, "padding": "same", "groups": 4}),
    ((7, 6, 3), {"out_channels": 6, "kernel_size": (3, 2), "stride": (2, 1), "groups": 3, "bias": False}),
    ((7, 6, 3), {"out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 3}),
    ((7, 7, 4), {"out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1, "groups": 4}),
    ((6, 6, 4), {"out_channels": 4, "kernel_size": 2, "stride": 2, "groups": 4}),
    ((6, 6, 4), {"out_channels": 6, "kernel_size": 2, "stride": 2, "groups": 2}),
    ((6, 6, 4), {"out_channels": 6, "kernel_size": 1, "groups": 2}),
    ((4, 4, 4), {"out_channels": 2, "kernel_size": 4, "groups": 2}),
    ((5, 6, 6), {"out_channels": 6, "kernel_size": 1, "stride": 2, "groups": 3}),
    ((5, 6, 6), {"out_channels": 6, "kernel_size": 1, "groups": 6}),
    ((9, 8, 2), {"out_channels": 3, "kernel_size": 3, "padding": 2, "dilation": 2}),
    ((9, 10, 2), {"out_channels": 3, "kernel_size": (2, 3), "stride": 2, "padding": "same", "dilation": (3, 2)}),
    ((9, 9, 20), {"out_channels": 3, "kernel_size": 3, "padding": "same", "dilation": (2, 1)}),
    ((9, 8, 4), {"out_channels": 4, "kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4}),
    ((6, 8, 4), {"out_channels": 4, "kernel_size": 3, "padding": 4, "groups": 4}),  # windows of padding alone
    ((8, 7, 6), {"out_channels": 9, "kernel_size": 3, "padding": "same", "dilation": (1, 2), "groups": 3}),
    ((4, 5, 2), {"out_channels": 3, "kernel_size": 3, "padding": 2, "padding_mode": "reflect"}),
    ((6, 5, 4), {"out_channels": 4, "kernel_size": 4, "padding": "same", "groups": 4, "padding_mode": "reflect"}),
    (
        (7, 6, 2),
        {"out_channels": 2, "kernel_size": 3, "stride": 2, "padding": (1, 5), "dilation": 2, "padding_mode": "reflect"},
    ),
    ((6, 5, 4), {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4, "algorithm": "unfold"}),
    ((9, 8, 3), {"out_channels": 2, "kernel_size": 3, "padding": 2, "dilation": 2, "algorithm": "unfold_rows"}),
    ((6, 5, 3), {"out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 3, "algorithm": "depthwise"}),
]
"""Options of conv2d with groups, from two to depthwise, dilation, and padding that mirrors the image."""


def _pools() -> list[Row]:
    rows: list[Row] = [
        ((1, 1, 1), {"kernel_size": 1}),
        ((6, 4, 1), {"kernel_size": 2}),
        ((7, 5, 3), {"kernel_size": 2}),  # the last row and column belong to no window
        ((6, 6, 2), {"kernel_size": 2, "stride": 1}),
        ((5, 8, 2), {"kernel_size": (3, 2), "stride": (2, 3), "padding": 1}),
        ((9, 7, 2), {"kernel_size": 2, "stride": 4}),
        ((7, 6, 2), {"kernel_size": 3, "stride": 2, "padding": "same"}),
        ((4, 4, 2), {"kernel_size": 2, "padding": "same"}),
        ((6, 3, 2), {"kernel_size": 2, "stride": 2, "padding": 1}),
        ((4, 6, 2), {"kernel_size": (4, 6)}),
    ]
    rng = np.random.default_rng(1)
    rows += [_windows(rng, lambda k: k // 2) for _ in range(12)]
    return rows + ROUNDED_UP + [(shape, options | {"ceil_mode": True}) for shape, options in rows[-12::2]]


ROUNDED_UP: list[Row] = [
    ((7, 5, 2), {"kernel_size": 2, "ceil_mode": True}),
    ((6, 8, 2), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((5, 8, 2), {"kernel_size": (3, 2), "stride": (3, 4), "padding": 1, "ceil_mode": True}),
    ((3, 7, 2), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),  # the last would begin behind it
    ((2, 7, 1), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),  # larger than the image
]
"""Options of pools with `ceil_mode`."""


def _blocks() -> Layer:
    return Sequential([Conv2d(3, 3, padding="same", bias=False), BatchNorm(), Tanh()])


def _gate(channels: int) -> Layer:
    """One number between 0 and 1 for each channel, as in squeeze-and-excitation."""
    return Sequential([GlobalAvgPool2d(), Linear(2), Tanh(), Linear(channels), HardSigmoid()])


TABLE: dict[str, list[Row]] = {
    "conv2d": _convolutions(),
    "max_pool2d": _pools(),
    "avg_pool2d": _pools(),
    "adaptive_avg_pool2d": [
        ((7, 5, 3), {"output_size": 3}),
        ((6, 4, 2), {"output_size": (3, 2)}),
        ((3, 5, 2), {"output_size": (5, 1)}),
        ((4, 4, 1), {"output_size": 4}),
    ],
    "linear": [
        ((1,), {"out_features": 1}),
        ((5,), {"out_features": 3, "init": "glorot"}),
        ((3,), {"out_features": 8, "bias": False}),
    ],
    "batch_norm": [
        *((shape, {}) for shape in ANY_SHAPE),
        ((5,), {"eps": 0.1, "momentum": 1.0}),
        ((3, 4, 2), {"affine": False}),
        ((3, 4, 2), {"scale": False}),
    ],
    "scale": [((5, 3, 2), {"factor": -0.3}), ((9,), {"factor": 2.0})],
    "whitening_conv2d": [((6, 5, 3), {}), ((4, 4, 1), {"kernel_size": (3, 2)}), ((5, 3, 2), {"kernel_size": 1})],
    "leaky_relu": [((5, 3, 2), {"slope": 0.3}), ((9,), {})],
    "gelu": [(shape, {"approximate": way}) for way in ("none", "tanh") for shape in ANY_SHAPE],
    "prelu": [
        *((shape, {}) for shape in ANY_SHAPE),
        ((5, 3, 2), {"per_channel": True}),
        ((9,), {"per_channel": True, "init": -0.1}),
    ],
    "layer_norm": [
        *((shape, {}) for shape in ANY_SHAPE),
        ((5,), {"eps": 0.1}),
        ((3, 4, 6), {"affine": False}),
    ],
    "group_norm": [
        *((shape, {"num_groups": 1}) for shape in ANY_SHAPE if shape[-1] > 1),
        ((6,), {"num_groups": 2}),
        ((5, 3, 1), {"num_groups": 1}),
        ((5, 3, 6), {"num_groups": 3}),
        ((4, 6, 4), {"num_groups": 4, "eps": 0.1}),
        ((3, 4, 6), {"num_groups": 2, "affine": False}),
    ],
    "elu": [((5, 3, 2), {"alpha": 0.7}), ((9,), {}), ((9,), {"alpha": 2.5})],
    "dropout": [((5, 3, 2), {"p": 0.3}), ((9,), {}), ((9,), {"p": 0.0})],
    "sequential": [
        ((5, 4, 2), {"layers": [_blocks(), MaxPool2d(2, stride=1)]}),
        ((6,), {"layers": [Linear(4), BatchNorm(), ReLU(), Tanh(), Linear(3)]}),
    ],
    "parallel": [
        ((5, 4, 2), {"branches": [_blocks(), Sequential([]), Conv2d(1, 1)]}),
        ((5, 4, 2), {"branches": [_blocks(), Conv2d(3, 1), _blocks()], "merge": "sum"}),
        ((6,), {"branches": [Linear(2), Tanh()]}),
        ((6,), {"branches": [Linear(2)]}),
        ((5, 4, 2), {"branches": [_gate(3), _blocks()], "merge": "multiply"}),
        ((5, 4, 2), {"branches": [Sequential([]), MaxPool2d((5, 4)), Tanh(), _gate(2)], "merge": "multiply"}),
        ((1, 1, 3), {"branches": [Sequential([]), GlobalAvgPool2d()], "merge": "multiply"}),
        ((6,), {"branches": [Linear(6), Sequential([])], "merge": "multiply"}),
        ((6,), {"branches": [Tanh()], "merge": "multiply"}),
    ],
    "residual": [
        ((4, 5, 3), {"body": _blocks()}),
        ((4, 5, 2), {"body": _blocks(), "shortcut": Conv2d(3, 1)}),
        ((3,), {"body": Sequential([Tanh(), Linear(3)])}),
    ],
    "repeat": [((4, 5, 3), {"times": 3, "body": _blocks()}), ((3,), {"times": 1, "body": Tanh()})],
}

KEEPS_NOTHING = {"adaptive_avg_pool2d", "avg_pool2d", "flatten", "global_avg_pool2d", "scale", "whitening_conv2d"}
"""Layers whose gradient is a function of dy alone: they have no use for what forward could keep."""


def _guess(name: str) -> list[Row]:
    hints = typing.get_type_hints(layers[name].__init__)
    options: dict[str, Any] = {}
    for key, parameter in list(inspect.signature(layers[name].__init__).parameters.items())[1:]:
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            choices = typing.get_args(hints[key])
            if hints[key] is int or int in choices:
                options[key] = 2
            elif typing.get_origin(hints[key]) is typing.Literal:
                options[key] = choices[0]
            else:
                raise AssertionError(f"add options for layer {name!r} to TABLE in {__file__}: no guess for {key!r}")
    rows: list[Row] = []
    for shape in ANY_SHAPE:
        try:
            Case(name, shape, options).layer()
        except ValueError:
            continue
        rows.append((shape, options))
    assert rows, f"add options and shapes for layer {name!r} to TABLE in {__file__}: it takes none of {ANY_SHAPE}"
    return rows


def cases_of(name: str) -> list[Case]:
    """All cases of the layer called ``name``."""
    return [Case(name, shape, options) for shape, options in (TABLE.get(name) or _guess(name))]


def big_case(name: str, least_bytes: int = 2 * 2**20) -> tuple[Case, int]:
    """A case with a batch so large that the engine splits it into several blocks, in float32."""
    case = max(cases_of(name), key=lambda case: np.prod(case.in_shape))
    return case, least_bytes // (4 * int(np.prod(case.in_shape))) + 3


def generator(case: Case, batch: int = 0) -> np.random.Generator:
    """A generator of the case's own, so that adding a case does not change the others."""
    return np.random.default_rng([zlib.crc32(str(case).encode()), batch])
