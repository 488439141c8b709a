"""What activations claim about themselves, and what batch normalization and pooling make of the claims."""

import numpy as np
import pytest

from cnnlite.layers import layers
from cnnlite.layers.activations import Activation, Tanh
from cnnlite.layers.base import Layer
from cnnlite.layers.containers import Residual, Sequential
from cnnlite.layers.normalization import BatchNorm
from cnnlite.layers.pooling import MaxPool2d
from cnnlite.types import Array
from tests.gradcheck import assert_layer_gradients, backward

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
    network.build(IN_SHAPE, np.random.default_rng(0), np.dtype(np.float64))
    for _, part in network.walk():
        if isinstance(part, BatchNorm):
            part.params["gamma"][...] = GAMMA
            part.params["beta"][...] = GAMMA[::-1] / 3
    return network


def run(networks: list[Sequential], x: Array) -> list[Array]:
    """Output and gradients of networks one after the other."""
    for network in networks:
        x = network.forward(x, training=True)
    results, dy = [x], np.random.default_rng(1).standard_normal(x.shape)
    for network in reversed(networks):
        dy = backward(network, dy)
    parts = [part for network in networks for _, part in network.walk()]
    return [*results, dy, *(gradient.copy() for part in parts for gradient in part.grads.values())]


def assert_agree(first: list[Array], second: list[Array]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_these_are_all_activations() -> None:
    assert {"relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu"} <= set(ACTIVATIONS)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if made(name).never_falls])
def test_an_activation_that_claims_it_never_falls(name: str) -> None:
    x = np.linspace(-20, 20, 400_001)[None]
    y = np.empty_like(x)
    made(name).apply(x, y)
    assert (np.diff(y) >= 0).all()


@pytest.mark.parametrize("name", [*ACTIVATIONS, "square"])
def test_norm_activation_and_pooling_together_are_the_three_by_themselves(name: str) -> None:
    x = np.random.default_rng(2).standard_normal((4, *IN_SHAPE)) * 2
    norm, activation = BatchNorm(), made(name)
    together = built([norm, activation, MaxPool2d(2)])
    assert norm.activation is activation
    assert (norm.pool is not None) == activation.never_falls
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
