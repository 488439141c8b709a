import copy

import numpy as np
import pytest

from cnnlite.nn.layers.activations import ReLU, Tanh
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.utils.types import Array, Shape
from tests.support.gradcheck import assert_layer_gradients


def build(layer: Layer, in_shape: Shape) -> None:
    layer.build(in_shape, np.random.default_rng(0), np.dtype(np.float64))


def stochastic(shortcut: Layer | None = None) -> Residual:
    body = Sequential([Conv2d(2, 3, padding="same"), BatchNorm(), Tanh(), Conv2d(2, 1)])
    layer = Residual(body, shortcut, drop_probability=0.4)
    build(layer, (4, 5, 2))
    return layer


def steps_of(layer: Residual, *, dropped: bool, count: int = 200) -> list[int]:
    found = []
    for step in range(count):
        layer.start_step(step)
        if (layer.factors[0] == 0) == dropped:
            found.append(step)
    return found


def test_a_body_is_dropped_as_often_as_told_and_each_block_by_its_own_draws() -> None:
    model = Sequential([stochastic(), stochastic()])
    build(model, (4, 5, 2))
    blocks = [block for block in model.layers if isinstance(block, Residual)]
    first, second = (set(steps_of(block, dropped=True, count=2000)) for block in blocks)
    assert len(first) / 2000 == pytest.approx(0.4, abs=0.04)
    assert len(first & second) / 2000 == pytest.approx(0.16, abs=0.03)
    assert len(first) == len(steps_of(blocks[0], dropped=True, count=2000))


@pytest.mark.parametrize("shortcut", [None, Conv2d(2, 1)], ids=["identity", "projection"])
@pytest.mark.parametrize("following", [[], [ReLU()]], ids=["sum", "relu"])
def test_a_dropped_body_leaves_the_shortcut_and_a_kept_one_counts_more(
    shortcut: Layer | None, following: list[Layer]
) -> None:
    layer = stochastic(copy.deepcopy(shortcut))
    whole = Sequential([layer, *copy.deepcopy(following)])
    build(whole, (4, 5, 2))
    x = np.random.default_rng(1).standard_normal((6, 4, 5, 2))
    body, way = copy.deepcopy(layer.branches)

    def after(y: Array) -> Array:
        return np.maximum(y, 0) if following else y

    whole.start_step(steps_of(layer, dropped=True)[0])
    running = layer.branches[0].children["1"].buffers["running_mean"].copy()
    np.testing.assert_allclose(whole.forward(x, training=True), after(way.forward(x, training=True)))
    np.testing.assert_array_equal(layer.branches[0].children["1"].buffers["running_mean"], running)
    whole.start_step(steps_of(layer, dropped=False)[0])
    expected = body.forward(x, training=True) / 0.6 + way.forward(x, training=True)
    np.testing.assert_allclose(whole.forward(x, training=True), after(expected))
    tested = body.forward(x, training=False) + way.forward(x, training=False)
    np.testing.assert_allclose(whole.forward(x, training=False), after(tested))


@pytest.mark.parametrize("shortcut", [None, Conv2d(2, 1)], ids=["identity", "projection"])
@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "kept"])
def test_gradients_are_right_whether_the_body_is_dropped_or_not(dropped: bool, shortcut: Layer | None) -> None:
    layer = stochastic(copy.deepcopy(shortcut))
    for _, part in layer.walk():
        for gradient in part.grads.values():
            gradient[...] = 7  # what an earlier step left there
    layer.start_step(steps_of(layer, dropped=dropped)[0])
    rng = np.random.default_rng(2)
    assert_layer_gradients(layer, rng.standard_normal((6, 4, 5, 2)), rng)


def test_a_probability_of_dropping_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drop_probability must be in \[0, 1\), not 1"):
        Residual(Tanh(), drop_probability=1.0)
