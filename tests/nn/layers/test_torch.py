"""Every layer against its PyTorch counterpart, forward and backward, in float64; skipped where PyTorch is missing."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest

from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Parallel, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.hard import HardSigmoid, HardSwish
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.utils.types import Array
from tests.support.gradcheck import backward
from tests.support.layer_cases import Case, cases_of, generator

Tensor: TypeAlias = Any
Counterpart: TypeAlias = Callable[[Any, Layer, Tensor, Mapping[str, Tensor]], Tensor]
"""Called with the torch module, the built layer, the input and the parameters, all channels last."""


def _images(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x.movedim(-1, 1)).movedim(1, -1)


def _bordered(torch: Any, layer: Any, x: Tensor, value: float) -> Tensor:
    """``x`` (N, C, H, W) with the layer's padding, which for `same` may be odd and then differs from side to side."""
    (top, left), (bottom, right) = layer.windows.top_left, layer.windows.bottom_right
    if getattr(layer, "padding_mode", "zeros") == "reflect":
        return torch.nn.functional.pad(x, (left, right, top, bottom), mode="reflect")
    return torch.nn.functional.pad(x, (left, right, top, bottom), value=value)


def _conv2d(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    weight = params["weight"].permute(3, 2, 0, 1).contiguous()
    windows = layer.windows
    options = {"stride": windows.stride, "dilation": windows.dilation, "groups": windows.groups}
    return _images(
        lambda z: torch.nn.functional.conv2d(_bordered(torch, layer, z, 0), weight, params.get("bias"), **options), x
    )


def _scale(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return x * layer.factor


def _whitening_conv2d(torch: Any, layer: Layer, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return _conv2d(torch, layer, x, {**params, "weight": torch.tensor(layer.buffers["weight"])})


def _max_pool2d(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return _pool2d(torch, "max_pool2d", layer, x, -math.inf)


def _avg_pool2d(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return _pool2d(torch, "avg_pool2d", layer, x, 0)


def _pool2d(torch: Any, name: str, layer: Any, x: Tensor, value: float) -> Tensor:
    def pool(z: Tensor) -> Tensor:
        function, padding = getattr(torch.nn.functional, name), 0 if layer.padding == "valid" else layer.padding
        if padding == "same":
            return function(_bordered(torch, layer, z, value), layer.kernel, layer.stride)
        return function(z, layer.kernel, layer.stride, padding, ceil_mode=layer.ceil_mode)

    return _images(pool, x)


def _adaptive_avg_pool2d(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return _images(lambda z: torch.nn.functional.adaptive_avg_pool2d(z, layer.output_size), x)


def _batch_norm(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return _images(
        lambda z: torch.nn.functional.batch_norm(
            z, None, None, params.get("gamma"), params.get("beta"), training=True, eps=layer.eps
        ),
        x,
    )


def _layer_norm(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], params.get("gamma"), params.get("beta"), layer.eps)


def _group_norm(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    affine = params.get("gamma"), params.get("beta")
    return _images(lambda z: torch.nn.functional.group_norm(z, layer.num_groups, *affine, layer.eps), x)


def _elementwise(name: str, **options: str) -> Counterpart:
    def apply(torch: Any, layer: Any, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        arguments = {argument: getattr(layer, option) for argument, option in options.items()}
        return getattr(torch.nn.functional, name)(x, **arguments)

    return apply


COUNTERPARTS: dict[str, Counterpart] = {
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "global_avg_pool2d": lambda torch, layer, x, params: x.mean(dim=(1, 2)),
    "batch_norm": _batch_norm,
    "scale": _scale,
    "whitening_conv2d": _whitening_conv2d,
    "linear": lambda torch, layer, x, params: torch.nn.functional.linear(x, params["weight"].T, params.get("bias")),
    "flatten": lambda torch, layer, x, params: x.flatten(1),
    "relu": _elementwise("relu"),
    "leaky_relu": _elementwise("leaky_relu", negative_slope="slope"),
    "elu": _elementwise("elu", alpha="alpha"),
    "gelu": _elementwise("gelu", approximate="approximate"),
    # as PyTorch defines it; its `hardsigmoid` of float64 takes the float32 nearest to 1/6
    "hard_sigmoid": lambda torch, layer, x, params: torch.nn.functional.relu6(x + 3) / 6,
    "hard_swish": _elementwise("hardswish"),
    "prelu": lambda torch, layer, x, params: _images(lambda z: torch.nn.functional.prelu(z, params["slope"]), x),
    "softplus": _elementwise("softplus"),
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "silu": _elementwise("silu"),
    "sigmoid": lambda torch, layer, x, params: torch.sigmoid(x),
    "tanh": lambda torch, layer, x, params: torch.tanh(x),
}

COMPARED_ELSEWHERE = {"dropout", "sequential", "parallel", "residual", "repeat"}
"""Dropout draws its own numbers (test_dropout.py); containers are compared below, with layers in them."""


def test_every_layer_has_a_counterpart_to_be_compared_with() -> None:
    assert set(layers) == COUNTERPARTS.keys() | COMPARED_ELSEWHERE, f"add the layer to COUNTERPARTS in {__file__}"


def compare(torch: Any, layer: Layer, counterpart: Counterpart, x: Array, *, tolerance: float = 1e-10) -> None:
    """Fail if output or a gradient differs."""
    params = {
        f"{prefix}.{key}".strip("."): torch.tensor(value, requires_grad=True)
        for prefix, part in layer.walk()
        for key, value in part.params.items()
    }
    grads = {f"{prefix}.{key}".strip("."): part.grads for prefix, part in layer.walk() for key in part.grads}
    tensor = torch.tensor(x, requires_grad=True)
    expected = counterpart(torch, layer, tensor, params)
    y = layer.forward(x, Context(training=True))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    dy = np.random.default_rng(0).standard_normal(y.shape).astype(x.dtype)
    expected.backward(torch.tensor(dy))
    dx = backward(layer, dy)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=tolerance, atol=tolerance)
    for name, param in params.items():
        grad = grads[name][name.rpartition(".")[2]]
        np.testing.assert_allclose(grad, param.grad.numpy(), rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", [case for name in COUNTERPARTS for case in cases_of(name)], ids=str)
def test_layer_agrees(torch: Any, case: Case) -> None:
    for batch in (1, 3):
        if case.name == "batch_norm" and batch * math.prod(case.in_shape[:-1]) == 1:
            continue  # one number a channel: PyTorch refuses
        x = generator(case, batch).standard_normal((batch, *case.in_shape))
        compare(torch, case.layer(), COUNTERPARTS[case.name], x)


@pytest.mark.parametrize(
    "name", sorted(COUNTERPARTS.keys() - {"linear", "conv2d", "batch_norm", "layer_norm", "group_norm"})
)
def test_layer_agrees_on_ties_zeros_and_large_numbers(torch: Any, name: str) -> None:
    for case in cases_of(name):
        rng = generator(case)
        values = np.array([-300.0, -20.0, -2.0, -1.0, 0.0, 1.0, 2.0, 20.0, 300.0])
        compare(torch, case.layer(), COUNTERPARTS[name], rng.choice(values, (5, *case.in_shape)))


@pytest.mark.parametrize("padding", [0, 1, (0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_padding_of_pools_means_what_it_means_there(torch: Any, name: str, padding: Any) -> None:
    layer = layers[name](kernel_size=3, stride=2, padding=padding)  # type: ignore[call-arg]
    layer.build((7, 8, 2), np.random.default_rng(0), np.dtype(np.float64))
    pool = getattr(torch.nn.functional, name)
    x = np.random.default_rng(0).standard_normal((3, 7, 8, 2)) - 3
    compare(torch, layer, lambda t, _, z, params: _images(lambda c: pool(c, 3, 2, padding), z), x)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.3, 0.05), (1.0, 1e-3)])
@pytest.mark.parametrize("shape", [(6,), (5, 3, 6)])
def test_running_statistics_and_evaluation_agree_after_several_batches(
    torch: Any, shape: tuple[int, ...], momentum: float, eps: float, affine: bool
) -> None:
    layer = BatchNorm(momentum=momentum, eps=eps, affine=affine)
    layer.build(shape, np.random.default_rng(0), np.dtype(np.float64))
    make = torch.nn.BatchNorm1d if len(shape) == 1 else torch.nn.BatchNorm2d
    twin = make(6, momentum=momentum, eps=eps, affine=affine, dtype=torch.float64)
    rng = np.random.default_rng(0)
    if affine:
        for key, name in (("gamma", "weight"), ("beta", "bias")):
            layer.params[key][...] = rng.standard_normal(6)
            getattr(twin, name).data = torch.tensor(layer.params[key])
    for batch in (4, 7, 2):
        x = 3 + 2 * rng.standard_normal((batch, *shape))
        y, expected = layer.forward(x, Context(training=True)), _images(twin, torch.tensor(x))
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(layer.buffers[name], getattr(twin, name).numpy(), rtol=1e-10)
    twin.eval()
    y, expected = layer.forward(x, Context()), _images(twin, torch.tensor(x))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-10)


def _network(torch: Any, layer: Layer, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    """What the layers of `test_a_network_of_containers_agrees` compute, written out."""
    F = torch.nn.functional

    def conv(z: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(z, p[f"{name}.weight"].permute(3, 2, 0, 1), p.get(f"{name}.bias"), stride, padding)

    def norm(z: Tensor, name: str) -> Tensor:
        return F.batch_norm(z, None, None, p[f"{name}.gamma"], p[f"{name}.beta"], training=True, eps=1e-5)

    z = F.relu(norm(conv(x.movedim(-1, 1), "0", 1, 1), "1"))
    body = norm(conv(F.relu(norm(conv(z, "3.body.0", 2, 1), "3.body.1")), "3.body.3", 1, 1), "3.body.4")
    z = F.relu(body + norm(conv(z, "3.shortcut.0", 2, 0), "3.shortcut.1"))
    left = F.gelu(norm(conv(z, "5.0.0", 1, 0), "5.0.1"), approximate="tanh")
    z = torch.cat([left, F.max_pool2d(z, 3, 1, 1), z], dim=1)
    z = F.avg_pool2d(z, 2).movedim(1, -1).flatten(1)
    return z @ p["8.weight"] + p["8.bias"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 2e-4)])
def test_a_network_of_containers_agrees(torch: Any, dtype: Any, tolerance: float) -> None:
    layer = Sequential(
        [
            Conv2d(8, 3, padding="same", bias=False),
            BatchNorm(),
            ReLU(),
            Residual(
                Sequential(
                    [Conv2d(12, 3, stride=2, padding=1), BatchNorm(), ReLU(), Conv2d(12, 3, padding=1), BatchNorm()]
                ),
                Sequential([Conv2d(12, 1, stride=2), BatchNorm()]),
            ),
            ReLU(),
            Parallel(
                [Sequential([Conv2d(4, 1), BatchNorm(), GELU()]), MaxPool2d(3, stride=1, padding=1), Sequential([])]
            ),
            AvgPool2d(2),
            Flatten(),
            Linear(10),
        ]
    )
    layer.build((14, 12, 3), np.random.default_rng(0), np.dtype(dtype))
    x = np.random.default_rng(1).standard_normal((6, 14, 12, 3)).astype(dtype)
    compare(torch, layer, _network, x, tolerance=tolerance)


def _squeeze_and_excitation(torch: Any, layer: Layer, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    F = torch.nn.functional
    z = F.hardswish(x @ p["0.weight"][0, 0] + p["0.bias"])
    gate = F.relu(z.mean(dim=(1, 2)) @ p["2.1.1.weight"] + p["2.1.1.bias"])
    gate = F.relu6(gate @ p["2.1.3.weight"] + p["2.1.3.bias"] + 3) / 6
    return z * gate[:, None, None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 2e-4)])
def test_squeeze_and_excitation_agrees(torch: Any, dtype: Any, tolerance: float) -> None:
    gate = Sequential([GlobalAvgPool2d(), Linear(4), ReLU(), Linear(16), HardSigmoid()])
    product = Parallel([Sequential([]), gate], merge="multiply")
    layer = Sequential([Conv2d(16, 1), HardSwish(), product])
    layer.build((7, 9, 3), np.random.default_rng(0), np.dtype(dtype))
    x = np.random.default_rng(1).standard_normal((40, 7, 9, 3)).astype(dtype)
    compare(torch, layer, _squeeze_and_excitation, x, tolerance=tolerance)


@pytest.mark.parametrize(("size", "channels", "kernel", "stride"), [(32, 3, 3, 1), (16, 64, 3, 1), (15, 32, 3, 2)])
def test_float32_convolutions_of_realistic_size_agree(
    torch: Any, size: int, channels: int, kernel: int, stride: int
) -> None:
    layer = Conv2d(32, kernel, stride=stride, padding="same")
    layer.build((size, size, channels), np.random.default_rng(0), np.dtype(np.float32))
    x = np.random.default_rng(1).standard_normal((8, size, size, channels), np.float32)
    compare(torch, layer, _conv2d, x, tolerance=2e-3)
