import numpy as np
import pytest

from cnnlite.nn.kernels import normalization
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.utils.types import Array, Shape
from tests.support.gradcheck import backward
from tests.support.layer_cases import build_fused

BIG: list[Shape] = [(3000, 3), (20000, 8), (40, 32, 32, 5), (64, 16, 16, 32), (20, 3, 5, 600), (1, 200, 200, 4)]


def far_from_zero(shape: Shape, seed: int = 0) -> Array:
    """Numbers of mean near 1e4 and standard deviation 1, with another mean for each channel and each sample's part."""
    rng = np.random.default_rng(seed)
    drift = np.linspace(-1, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (1e4 + np.arange(shape[-1]) % 4 + drift + rng.standard_normal(shape)).astype(np.float32)


def statistics(x: Array) -> tuple[Array, Array]:
    wide = x.astype(np.float64).reshape(-1, x.shape[-1])
    return wide.mean(axis=0), wide.var(axis=0)


@pytest.mark.parametrize("shape", BIG)
def test_moments_of_numbers_far_from_zero_keep_their_digits(shape: Shape) -> None:
    x = far_from_zero(shape)
    mean, variance = normalization.mean_and_variance(normalization.moments(x))
    expected_mean, expected_variance = statistics(x)
    assert mean.dtype == variance.dtype == np.float64
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-6)  # though numbers near 1e4 are 1e-3 apart
    np.testing.assert_allclose(variance, expected_variance, rtol=3e-5)


@pytest.mark.parametrize("shape", BIG)
def test_moments_of_centred_numbers_keep_their_digits(shape: Shape) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32) + np.float32(0.5)
    mean, variance = normalization.mean_and_variance(normalization.moments(x))
    expected_mean, expected_variance = statistics(x)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-5)


def test_moments_keep_their_digits_where_one_channel_alone_is_far_from_zero() -> None:
    x = np.random.default_rng(0).standard_normal((64, 16, 16, 5), np.float32)
    x[..., 3] += 1e4
    mean, variance = normalization.mean_and_variance(normalization.moments(x))
    expected_mean, expected_variance = statistics(x)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(variance, expected_variance, rtol=3e-5)


def test_a_constant_channel_has_no_variance() -> None:
    for value in (0.0, 0.1, 1e4 / 3, -1e6):
        rows = normalization.moments(np.full((500, 7, 7, 3), value, np.float32))
        mean, variance = normalization.mean_and_variance(rows)
        np.testing.assert_allclose(mean, np.float32(value), rtol=1e-6)
        assert (variance >= 0).all()
        np.testing.assert_allclose(variance, 0, atol=1e-10 * max(value * value, 1))


@pytest.mark.parametrize(("mean", "y_error", "dx_error"), [(0, 2e-4, 2e-4), (30, 2e-4, 2e-4), (1e4, 2e-3, 4e-2)])
@pytest.mark.parametrize("shape", BIG)
def test_output_and_gradients_agree_with_float64(shape: Shape, mean: float, y_error: float, dx_error: float) -> None:
    # Far from zero, y = x * scale + shift can be no better than the spacing of float32 there, dx likewise.
    x = far_from_zero(shape) - np.float32(1e4 - mean)
    dy = 0.2 + np.random.default_rng(1).standard_normal(shape, np.float32)
    y, dx, dgamma, dbeta = _train(x, dy)
    wide_y, wide_dx, wide_dgamma, wide_dbeta = _train(x.astype(np.float64), dy.astype(np.float64))
    numbers = x.size // shape[-1]
    np.testing.assert_allclose(y, wide_y, rtol=1e-6, atol=y_error)
    np.testing.assert_allclose(dx, wide_dx, rtol=1e-6, atol=dx_error)
    np.testing.assert_allclose(dbeta / numbers, wide_dbeta / numbers, rtol=0, atol=1e-6)
    np.testing.assert_allclose(dgamma / numbers, wide_dgamma / numbers, rtol=0, atol=dx_error)


@pytest.mark.parametrize("deviations", [40, 1e3, -1e3, 1e4])
def test_gammas_gradient_loses_no_digits_far_from_zero(deviations: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 8, 8, 16), np.float32)
    x[..., 5:] += np.float32(deviations)  # the other channels stay near 0
    dy = rng.standard_normal(x.shape, np.float32)
    narrow, wide = (_train(x.astype(dtype), dy.astype(dtype))[2] for dtype in (np.float32, np.float64))
    assert np.linalg.norm(narrow - wide) < 2e-6 * np.linalg.norm(wide)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_activations_see_the_same_numbers_far_from_zero(name: str) -> None:
    x, dy = np.random.default_rng(0).standard_normal((2, 64, 8, 8, 4))
    results = []
    for build in (build_fused, build_apart):
        network = Sequential([BatchNorm(), layers[name]()])
        build(network, x.shape[1:])
        network.forward(x + 1e3, Context(training=True))
        backward(network, dy)
        results.append(network.layers[0].grads["gamma"].copy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-9)


def build_apart(layer: Layer, in_shape: Shape) -> Shape:
    return layer.build(in_shape, np.random.default_rng(0), np.dtype(np.float64))


def _train(x: Array, dy: Array) -> tuple[Array, Array, Array, Array]:
    layer = BatchNorm()
    layer.build(x.shape[1:], np.random.default_rng(0), x.dtype)
    y, dx = layer.forward(x, Context(training=True)), backward(layer, dy)
    return y, dx, layer.grads["gamma"], layer.grads["beta"]
