"""The normal distribution against the error function of Python's math module."""

import math
from typing import Any

import numpy as np
import pytest

from cnnlite.nn.kernels import normal
from cnnlite.nn.layers.gelu import GELU
from cnnlite.utils.types import Array


def exact(x: Array) -> Array:
    return np.array([math.erfc(-number / math.sqrt(2)) / 2 for number in x.ravel().tolist()]).reshape(x.shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1.5e-7), (np.float64, 3e-16)])
def test_distribution_and_density_are_those_of_the_error_function(dtype: Any, tolerance: float) -> None:
    x: Array = np.linspace(-12, 12, 300_000).astype(dtype).reshape(3, -1)
    phi, bell = np.empty_like(x), np.empty_like(x)
    normal.distribution(x, phi)
    normal.density(x, bell)
    np.testing.assert_allclose(phi, exact(x), rtol=0, atol=tolerance)
    expected = np.exp(-(x.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(bell, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_all_is_on_one_side(dtype: Any) -> None:
    x: Array = np.array([[13, 20, 300, 1e10, 3e38]], dtype)
    for sign, expected in ((1, 1), (-1, 0)):
        phi, bell = np.empty_like(x), np.empty_like(x)
        with np.errstate(over="ignore"):  # as in training
            normal.distribution(sign * x, phi)
            normal.density(sign * x, bell)
        np.testing.assert_allclose(phi, expected, atol=1e-37)
        np.testing.assert_allclose(bell, 0, atol=1e-36)


def test_exact_gelu_is_exact_but_for_rounding_and_its_tanh_form_near_it() -> None:
    x = np.linspace(-9, 9, 300_001).astype(np.float32)[None]
    y, near, expected = np.empty_like(x), np.empty_like(x), x * exact(x)
    GELU("none").apply(x, y)
    np.testing.assert_allclose(y, expected, rtol=2e-7, atol=2e-7)
    GELU().apply(x, near)
    assert 4e-4 < np.abs(near - expected).max() < 5e-4
