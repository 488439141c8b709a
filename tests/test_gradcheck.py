import numpy as np
import pytest

from cnnlite.layers.activations import Activation, Tanh
from cnnlite.layers.linear import Linear
from cnnlite.types import Array
from tests.gradcheck import LEAST_GAP, assert_gradients, assert_layer_gradients, slope, spread


def test_a_right_gradient_passes_and_a_slightly_wrong_one_does_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5))
    gradient = np.cos(x)
    assert_gradients(lambda: float(np.sin(x).sum()), {"x": x}, {"x": gradient}, rng)
    gradient[2, 3] += 1e-5
    with pytest.raises(AssertionError, match=r"x: .* should be"):
        assert_gradients(lambda: float(np.sin(x).sum()), {"x": x}, {"x": gradient}, rng)


def test_the_slope_is_exact_for_polynomials_and_leaves_the_array_as_it_was() -> None:
    x = np.array([1.0, 2.0])
    assert slope(lambda: float((x**4).sum()), x, np.array([1.0, -1.0])) == pytest.approx(4 - 32, rel=1e-9)
    np.testing.assert_array_equal(x, [1, 2])


class ForgetsTheFactor(Linear):
    def backward(self, dy: Array) -> Array | None:
        dx = super().backward(dy)
        self.grads["bias"] *= 1.001
        return dx


class SlightlyOff(Activation):
    def apply(self, x: Array, out: Array) -> None:
        np.sin(x, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.multiply(dy, np.cos(y), out=out)


def test_layers_with_wrong_gradients_are_found() -> None:
    rng = np.random.default_rng(0)
    for layer, name in ((ForgetsTheFactor(3), "bias"), (SlightlyOff(), "x")):
        layer.build((4,), rng, np.dtype(np.float64))
        with pytest.raises(AssertionError, match=f"{name}: "):
            assert_layer_gradients(layer, spread(rng, (5, 4)), rng)
    right = Tanh()
    right.build((4,), rng, np.dtype(np.float64))
    assert_layer_gradients(right, spread(rng, (5, 4)), rng)


@pytest.mark.parametrize("shape", [(1,), (3, 4), (4, 9, 9, 8)])
def test_spread_numbers_are_apart_from_each_other_and_from_zero(shape: tuple[int, ...]) -> None:
    values = np.sort(spread(np.random.default_rng(0), shape).ravel())
    assert values.size == np.prod(shape)
    assert np.abs(values).min() >= LEAST_GAP / 2
    assert values.size == 1 or np.diff(values).min() >= LEAST_GAP * (1 - 1e-9)
