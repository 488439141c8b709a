import numpy as np
import pytest

from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.normalization import BatchNorm


def test_a_channel_with_one_number_becomes_beta_and_spoils_nothing() -> None:
    layer = BatchNorm()
    layer.build((3,), np.random.default_rng(0), np.dtype(np.float32))
    layer.params["beta"][...] = [1, 2, 3]
    y = layer.forward(np.array([[5, -5, 100]], np.float32), Context(training=True))
    np.testing.assert_allclose(y, [[1, 2, 3]], atol=4e-3)  # 100 / sqrt(eps) has this spacing in float32
    np.testing.assert_array_equal(layer.backward(np.ones((1, 3), np.float32)), np.zeros((1, 3)))
    assert np.isfinite(layer.buffers["running_var"]).all()


def test_momentum_is_the_weight_of_the_new_batch() -> None:
    layer = BatchNorm(momentum=0.25)
    layer.build((1,), np.random.default_rng(0), np.dtype(np.float64))
    layer.forward(np.array([[3.0], [5.0]]), Context(training=True))
    np.testing.assert_allclose(layer.buffers["running_mean"], [0.25 * 4])
    np.testing.assert_allclose(layer.buffers["running_var"], [0.75 + 0.25 * 2])  # unbiased


def test_without_affine_there_is_nothing_to_train() -> None:
    layer = BatchNorm(affine=False)
    layer.build((4,), np.random.default_rng(0), np.dtype(np.float32))
    assert layer.params == layer.grads == {}
    assert layer.buffers.keys() == {"running_mean", "running_var"}


@pytest.mark.parametrize("momentum", [0.0, -0.1, 1.1, float("nan")])
def test_momentum_out_of_range_is_an_error_with_its_value(momentum: float) -> None:
    with pytest.raises(ValueError, match=rf"momentum must be in \(0, 1\], not {momentum}"):
        BatchNorm(momentum=momentum)


@pytest.mark.parametrize("eps", [0.0, -1e-5, float("nan"), float("inf")])
def test_eps_must_be_positive(eps: float) -> None:
    with pytest.raises(ValueError, match=f"eps must be positive, not {eps}"):
        BatchNorm(eps=eps)


@pytest.mark.parametrize(("shape", "least"), [((5,), 2), ((1, 1, 5), 2), ((1, 2, 1), 1), ((3, 3, 5), 1)])
def test_it_takes_two_values_of_each_channel_to_train(shape: tuple[int, ...], least: int) -> None:
    layer = BatchNorm()
    layer.build(shape, np.random.default_rng(0), np.dtype(np.float32))
    assert layer.least_batch == least
