import copy

import numpy as np
import pytest

from cnnlite.nn.layers.activations import ReLU, Tanh
from cnnlite.nn.layers.base import Context, Layer
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
    passes = (Context(training=True, step=step) for step in range(count))
    return [context.step for context in passes if (layer.factors(context)[0] == 0) == dropped]


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

    without, with_body = (Context(True, steps_of(layer, dropped=dropped)[0]) for dropped in (True, False))
    running = layer.branches[0].children["1"].buffers["running_mean"].copy()
    np.testing.assert_allclose(whole.forward(x, without), after(way.forward(x, without)))
    np.testing.assert_array_equal(layer.branches[0].children["1"].buffers["running_mean"], running)
    expected = body.forward(x, with_body) / 0.6 + way.forward(x, with_body)
    np.testing.assert_allclose(whole.forward(x, with_body), after(expected))
    tested = body.forward(x, Context()) + way.forward(x, Context())
    np.testing.assert_allclose(whole.forward(x, Context()), after(tested))


@pytest.mark.parametrize("shortcut", [None, Conv2d(2, 1)], ids=["identity", "projection"])
@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "kept"])
def test_gradients_are_right_whether_the_body_is_dropped_or_not(dropped: bool, shortcut: Layer | None) -> None:
    layer = stochastic(copy.deepcopy(shortcut))
    for _, part in layer.walk():
        for gradient in part.grads.values():
            gradient[...] = 7  # what an earlier step left there
    context, rng = Context(True, steps_of(layer, dropped=dropped)[0]), np.random.default_rng(2)
    assert_layer_gradients(layer, rng.standard_normal((6, 4, 5, 2)), rng, context)


def test_a_probability_of_dropping_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drop_probability must be in \[0, 1\), not 1"):
        Residual(Tanh(), drop_probability=1.0)
