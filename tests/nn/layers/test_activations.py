"""What activations claim about themselves, and what batch normalization and pooling make of the claims."""

import numpy as np
import pytest

from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import Activation, Tanh
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Residual, Sequential
from cnnlite.nn.layers.fused import FusedBatchNorm
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import MaxPool2d
from cnnlite.utils.types import Array
from tests.support.gradcheck import assert_layer_gradients, backward
from tests.support.layer_cases import build_fused

ACTIVATIONS = [name for name in layers if issubclass(layers[name], Activation)]
IN_SHAPE = (6, 6, 5)
GAMMA = np.array([1.3, -0.8, 0.6, -1.1, 0.4])


class Square(Activation):
    """y = x * x, of a user who has claimed nothing for it."""

    def apply(self, x: Array, out: Array) -> None:
        np.multiply(x, x, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.multiply(dy, x, out=out)
        out *= 2


def made(name: str) -> Activation:
    activation = Square() if name == "square" else layers[name]()
    assert isinstance(activation, Activation)
    return activation


def built(parts: list[Layer]) -> Sequential:
    network = Sequential(parts)
    build_fused(network, IN_SHAPE)
    for _, part in network.walk():
        if isinstance(part, BatchNorm):
            part.params["gamma"][...] = GAMMA
            part.params["beta"][...] = GAMMA[::-1] / 3
    return network


def run(networks: list[Sequential], x: Array) -> list[Array]:
    """Output and gradients of networks one after the other."""
    for network in networks:
        x = network.forward(x, Context(training=True))
    results, dy = [x], np.random.default_rng(1).standard_normal(x.shape)
    for network in reversed(networks):
        dy = backward(network, dy)
    parts = [part for network in networks for _, part in network.walk()]
    return [*results, dy, *(gradient.copy() for part in parts for gradient in part.grads.values())]


def assert_agree(first: list[Array], second: list[Array]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


MAGNITUDES = [
    0,
    1e-45,
    1e-40,
    1.1754944e-38,
    1e-20,
    1e-4,
    1,
    5,
    9,
    10,
    17,
    89,
    104,
    1e3,
    1e9,
    2e13,
    1e15,
    2e19,
    1e30,
    3e38,
]
EDGES = np.array([[sign * size for size in MAGNITUDES for sign in (1, -1)]], np.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_from_the_smallest_to_the_greatest_numbers_of_float32_they_are_what_they_are_in_float64(name: str) -> None:
    results = {}
    for dtype in (np.float32, np.float64):
        activation, x = made(name), EDGES.astype(dtype)
        activation.build(x.shape[1:], np.random.default_rng(0), np.dtype(dtype))
        with np.errstate(over="ignore"):  # as in training
            y = activation.forward(x, Context(training=True))
            dx = backward(activation, np.ones_like(x))
        assert np.isfinite(y).all()
        assert np.isfinite(dx).all()
        results[dtype] = y, dx
    for narrow, wide in zip(results[np.float32], results[np.float64], strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-6, atol=2e-6)


def test_gelu_has_the_gradient_0_or_1_far_from_zero_behind_batch_norm_too() -> None:
    far = np.array([[1e13], [1e15], [3e38], [-1e13], [-1e15], [-3e38]], np.float32)
    gelu = made("gelu")
    with np.errstate(over="ignore"):  # as in training
        gelu.forward(far, Context(training=True))
        assert backward(gelu, np.ones_like(far)).ravel().tolist() == [1, 1, 1, 0, 0, 0]
    network = Sequential([BatchNorm(), GELU()])
    build_fused(network, (1,), np.float32)
    _, norm = next(part for part in network.walk() if isinstance(part[1], BatchNorm))
    norm.params["gamma"][...] = 1e20
    with np.errstate(over="ignore"):
        network.forward(np.arange(6, dtype=np.float32)[:, None], Context(training=True))
        backward(network, np.ones((6, 1), np.float32))
    assert norm.grads["beta"] == 3


def test_these_are_all_activations() -> None:
    assert {
        "relu",
        "leaky_relu",
        "elu",
        "sigmoid",
        "tanh",
        "silu",
        "gelu",
        "softplus",
        "hard_sigmoid",
        "hard_swish",
    } <= set(ACTIVATIONS)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if made(name).monotonic])
def test_an_activation_that_claims_it_monotonic(name: str) -> None:
    x = np.linspace(-20, 20, 400_001)[None]
    y = np.empty_like(x)
    made(name).apply(x, y)
    assert (np.diff(y) >= 0).all()


@pytest.mark.parametrize("name", [*ACTIVATIONS, "square"])
def test_norm_activation_and_pooling_together_are_the_three_by_themselves(name: str) -> None:
    x = np.random.default_rng(2).standard_normal((4, *IN_SHAPE)) * 2
    activation = made(name)
    together = built([BatchNorm(), activation, MaxPool2d(2)])
    norm = together.layers[0]
    assert isinstance(norm, FusedBatchNorm)
    assert norm.activation is activation
    assert (norm.pool is not None) == activation.monotonic
    assert_agree(run([together], x), run([built([layer]) for layer in (BatchNorm(), made(name), MaxPool2d(2))], x))


@pytest.mark.parametrize("name", [*ACTIVATIONS, "square"])
def test_a_sum_and_an_activation_together_are_the_two_by_themselves(name: str) -> None:
    x = np.random.default_rng(3).standard_normal((4, *IN_SHAPE))
    together, alone = Residual(Sequential([BatchNorm(), Tanh()])), Residual(Sequential([BatchNorm(), Tanh()]))
    activation = made(name)
    network = built([together, activation])
    assert (together.activation is activation) == activation.from_output
    assert_agree(run([network], x), run([built([alone]), built([made(name)])], x))


def test_an_activation_that_claims_nothing_gets_the_input_for_its_gradient() -> None:
    rng = np.random.default_rng(5)
    assert_layer_gradients(built([Square()]), rng.standard_normal((3, *IN_SHAPE)), rng)
    assert_layer_gradients(built([BatchNorm(), Square()]), rng.standard_normal((3, *IN_SHAPE)), rng)
