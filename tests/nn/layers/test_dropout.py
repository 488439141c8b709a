import numpy as np
import pytest

from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.containers import Repeat, Sequential
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.utils.types import Array


def built(p: float, seed: int = 0, shape: tuple[int, ...] = (50, 40, 3)) -> Dropout:
    layer = Dropout(p)
    layer.build(shape, np.random.default_rng(seed), np.dtype(np.float32))
    return layer


ONES = np.ones((30, 50, 40, 3), np.float32)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_p_is_the_share_that_is_dropped_and_the_rest_makes_up_for_it(p: float) -> None:
    y = built(p).forward(ONES, Context(training=True))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}
    deviation = np.sqrt(p * (1 - p) / y.size)
    assert abs((y == 0).mean() - p) < 4 * deviation


def test_evaluation_and_p_zero_change_nothing() -> None:
    np.testing.assert_array_equal(built(0.5).forward(ONES, Context()), ONES)
    np.testing.assert_array_equal(built(0.0).forward(ONES, Context(training=True)), ONES)


def test_backward_drops_what_forward_dropped() -> None:
    layer = built(0.4)
    y = layer.forward(ONES, Context(training=True))
    np.testing.assert_array_equal(layer.backward(ONES), y)


def draws(layer: Dropout, step: int) -> Array:
    return layer.forward(ONES, Context(training=True, step=step)).copy()


def test_what_is_dropped_follows_from_seed_and_step_alone() -> None:
    layer = built(0.5)
    first, second = draws(layer, 7), draws(layer, 8)
    np.testing.assert_array_equal(draws(built(0.5), 7), first)
    np.testing.assert_array_equal(draws(layer, 7), first)
    for other in (second, draws(built(0.5, seed=1), 7)):
        assert abs((other == first).mean() - 0.5) < 0.01


def test_samples_and_positions_are_dropped_independently() -> None:
    dropped = built(0.5).forward(ONES, Context(training=True)) == 0
    shifts = [(number, 0) for number in range(1, 16)] + [(1, 1), (1, 2), (1, 3)]  # all distances between blocks
    for other in (np.roll(dropped, number, axis) for number, axis in shifts):
        assert abs((other == dropped).mean() - 0.5) < 0.01


def test_two_dropouts_of_a_network_drop_different_places() -> None:
    for model in (Sequential([Dropout(), Dropout()]), Repeat(2, Dropout())):
        model.build((50, 40, 3), np.random.default_rng(0), np.dtype(np.float32))
        assert abs((model.forward(ONES, Context(training=True)) == 0).mean() - 0.75) < 0.01


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_a_probability_out_of_range_is_an_error_with_its_value(p: float) -> None:
    with pytest.raises(ValueError, match=rf"p must be in \[0, 1\), not {p}"):
        Dropout(p)
