"""Faults of the framework this project began with, in its layers; each has a test so that it does not come back."""

import numpy as np
import pytest

from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import AvgPool2d, MaxPool2d
from cnnlite.utils.types import Shape
from tests.support.gradcheck import backward

FLOAT = np.dtype(np.float64)


def build(layer: Layer, in_shape: Shape) -> Shape:
    return layer.build(in_shape, np.random.default_rng(0), FLOAT)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_sizes_after_pooling_are_whole_numbers(name: str) -> None:
    # Fault: sizes were computed with `/`, and np.zeros does not take 5.0.
    layer = layers[name](kernel_size=2, stride=2)  # type: ignore[call-arg]
    shape = build(layer, (11, 10, 3))
    assert shape == (5, 5, 3)
    assert [type(size) for size in shape] == [int, int, int]
    y = layer.forward(np.ones((2, 11, 10, 3)), Context(training=True))
    assert y.shape == (2, 5, 5, 3)


def test_the_gradient_of_max_pooling_goes_to_the_place_of_the_greatest_number() -> None:
    # Fault: the index inside a window was used as if it were one of the image.
    layer = MaxPool2d(2, stride=2)
    build(layer, (4, 6, 1))
    x = np.zeros((1, 4, 6, 1))
    places = [(0, 1), (1, 2), (0, 4), (3, 0), (2, 3), (3, 5)]
    for row, column in places:
        x[0, row, column, 0] = 1
    layer.forward(x, Context(training=True))
    dx = backward(layer, np.arange(1.0, 7).reshape(1, 2, 3, 1))
    expected = np.zeros((4, 6))
    for number, place in enumerate(places, start=1):
        expected[place] = number
    np.testing.assert_array_equal(dx[0, :, :, 0], expected)


def test_the_gradient_of_max_pooling_takes_padding_into_account() -> None:
    # Fault: the gradient was written as if there were no padding, one row and column off.
    layer = MaxPool2d(2, stride=2, padding=1)
    assert build(layer, (4, 4, 1)) == (3, 3, 1)
    x = np.arange(16.0).reshape(1, 4, 4, 1) - 20  # below zero: padding by zeros would win
    y = layer.forward(x, Context(training=True))
    np.testing.assert_array_equal(y[0, :, :, 0] + 20, [[0, 2, 3], [8, 10, 11], [12, 14, 15]])
    dx = backward(layer, np.arange(1.0, 10).reshape(1, 3, 3, 1))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0, 2, 3], [0, 0, 0, 0], [4, 0, 5, 6], [7, 0, 8, 9]])


def test_the_gradient_of_average_pooling_takes_padding_into_account() -> None:
    layer = AvgPool2d(2, stride=2, padding=1)
    build(layer, (2, 2, 1))
    layer.forward(np.ones((1, 2, 2, 1)), Context(training=True))
    dx = backward(layer, np.array([4.0, 8, 12, 16]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 2], [3, 4]])


def test_batch_norm_does_not_mix_channels() -> None:
    # Fault: an (N, C, H, W) array was reshaped to (N * H * W, C) without moving the channels last.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 5, 6)) * [1, 10, 0.1, 1, 2, 3] + [0, 100, -5, 1, 2, 3]
    dy = rng.standard_normal(x.shape)
    layer = BatchNorm()
    build(layer, x.shape[1:])
    y, dx = layer.forward(x, Context(training=True)), backward(layer, dy)
    for channel in range(6):
        alone = BatchNorm()
        build(alone, (3, 5, 1))
        one = slice(channel, channel + 1)
        np.testing.assert_allclose(
            y[..., one], alone.forward(x[..., one], Context(training=True)), rtol=1e-9, atol=1e-9
        )
        np.testing.assert_allclose(dx[..., one], backward(alone, dy[..., one]), rtol=1e-7, atol=1e-9)
        values = x[..., channel]
        expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        np.testing.assert_allclose(y[..., channel], expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(layer.buffers["running_mean"][channel], 0.1 * values.mean())


def test_batch_norm_adds_epsilon_in_evaluation_too() -> None:
    # Fault: evaluation divided by the standard deviation alone, and by zero where a channel was constant.
    layer = BatchNorm(momentum=1.0, eps=0.5)
    build(layer, (2,))
    x = np.array([[1.0, 7.0], [3.0, 7.0]])
    layer.forward(x, Context(training=True))
    y = layer.forward(np.array([[4.0, 8.0]]), Context())
    np.testing.assert_allclose(y, [[(4 - 2) / np.sqrt(2 + 0.5), 1 / np.sqrt(0.5)]])


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_rectifiers_leave_their_input_alone(name: str) -> None:
    # Fault: the input was changed in place, so that a second reader of it saw another array.
    layer = layers[name]()
    build(layer, (4,))
    x = np.array([[-1.0, 2.0, -3.0, 4.0]])
    before = x.copy()
    y = layer.forward(x, Context(training=True))
    assert not np.shares_memory(x, y)
    layer.backward(np.ones((1, 4)))
    np.testing.assert_array_equal(x, before)


def test_a_fused_rectifier_leaves_its_input_alone() -> None:
    model = Sequential([BatchNorm(), ReLU()])
    build(model, (4,))
    x = np.array([[-1.0, 2.0, -3.0, 4.0], [2.0, 1.0, 0.0, -1.0]])
    before = x.copy()
    model.forward(x, Context(training=True))
    model.backward(np.ones((2, 4)))
    np.testing.assert_array_equal(x, before)
