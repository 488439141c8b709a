"""Products of maps and gates, and their gradients, against NumPy's broadcasting in float64."""

import itertools

import numpy as np
import pytest

from cnnlite.nn.kernels import products
from cnnlite.utils.types import Array, Shape


def draw(*shapes: Shape) -> list[Array]:
    rng = np.random.default_rng(len(shapes))
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def spread(factor: Array, shape: Shape) -> Array:
    """``factor`` in float64, a gate repeated for each pixel."""
    gate = factor.reshape(len(factor), *[1] * (len(shape) - 2), -1) if factor.size < np.prod(shape) else factor
    return np.broadcast_to(gate.astype(np.float64).reshape(gate.shape if gate.ndim == len(shape) else shape), shape)


CASES: list[tuple[Shape, ...]] = [
    ((3, 5, 4, 6), (3, 6)),
    ((3, 1, 1, 6), (3, 5, 4, 6)),
    ((3, 5, 4, 6), (3, 1, 1, 6), (3, 6), (3, 5, 4, 6)),
    ((3, 6), (3, 5, 4, 6), (3, 6)),
    ((4, 7), (4, 7), (4, 7)),
    ((4, 7), (4, 1, 1, 7)),
    ((70, 32, 32, 16), (70, 16)),  # several blocks
    ((70, 16), (70, 32, 32, 16), (70, 1, 1, 16)),
    ((2, 1, 40, 1), (2, 1)),
]


@pytest.mark.parametrize("shapes", CASES, ids=str)
def test_a_product_and_its_gradients_are_those_of_broadcast_arrays(shapes: tuple[Shape, ...]) -> None:
    factors = draw(*shapes)
    shape = max(shapes, key=lambda shape: (np.prod(shape), len(shape)))
    wide = [spread(factor, shape) for factor in factors]
    y = products.multiply(factors)
    assert y.shape == shape
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, np.prod(wide, axis=0), rtol=1e-6)
    dy = np.random.default_rng(1).standard_normal(shape, np.float32)
    for index, factor in enumerate(factors):
        rest = np.prod([dy.astype(np.float64), *wide[:index], *wide[index + 1 :]], axis=0)
        summed = rest if factor.size == y.size else rest.sum(axis=(1, 2))
        found = products.gradient(dy, factors, index)
        assert found.shape == factor.shape
        assert found.dtype == np.float32
        size = np.abs(rest).sum(axis=(1, 2)).max() if factor.size < y.size else 1
        np.testing.assert_allclose(found, summed.reshape(factor.shape), rtol=1e-5, atol=1e-6 * size)


def test_factors_are_only_read_and_their_order_does_not_matter() -> None:
    factors = draw((3, 5, 4, 6), (3, 6), (3, 1, 1, 6))
    before = [factor.copy() for factor in factors]
    results = [products.multiply(order) for order in itertools.permutations(factors)]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6)
    for factor, copy in zip(factors, before, strict=True):
        np.testing.assert_array_equal(factor, copy)
