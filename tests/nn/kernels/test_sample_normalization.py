"""Layer and group normalization against sums written out in float64, on many shapes and far from zero."""

import numpy as np
import pytest

from cnnlite.nn.kernels import sample_normalization as kernels
from cnnlite.utils.types import Array, Shape

SHAPES: list[Shape] = [
    (1, 12),
    (5000, 12),
    (3, 1, 1, 12),
    (3, 5, 7, 12),
    (40, 32, 32, 12),
    (9, 3, 5, 600),
    (1, 200, 200, 12),
]
EPS = 1e-5


def normalized(x: Array, dy: Array, gamma: Array, beta: Array, axes: tuple[int, ...]) -> list[Array]:
    """Output and gradients for x, gamma and beta, by their formulas; x is (N, pixels, groups, channels of a group)."""
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    inv_std = 1 / np.sqrt(variance + EPS)
    xhat = (x - mean) * inv_std
    g = dy * gamma
    back = g.mean(axis=axes, keepdims=True) + xhat * (g * xhat).mean(axis=axes, keepdims=True)
    return [xhat * gamma + beta, inv_std * (g - back), (dy * xhat).sum(axis=(0, 1)), dy.sum(axis=(0, 1))]


def run(x: Array, dy: Array, gamma: Array | None, beta: Array | None, groups: int | None) -> list[Array]:
    """Output and gradients for x, gamma and beta, of group normalization, or of layer normalization without groups."""
    if groups is None:
        y, mean, inv_std = kernels.layer_forward(x, gamma, beta, EPS)
        dx, sums = kernels.layer_backward(dy, x, mean, inv_std, gamma)
    else:
        y, mean, inv_std = kernels.group_forward(x, groups, gamma, beta, EPS)
        dx, sums = kernels.group_backward(dy, x, groups, mean, inv_std, gamma)
    assert y.dtype == dx.dtype == x.dtype
    assert y.shape == dx.shape == x.shape
    assert sums.dtype == np.float64
    dbeta, dgamma = sums.sum(axis=0)
    return [y, dx, dgamma, dbeta]


def expected(x: Array, dy: Array, gamma: Array, beta: Array, groups: int | None) -> list[Array]:
    parts = (groups or 1, x.shape[-1] // (groups or 1))
    x_, dy_ = (array.astype(np.float64).reshape(len(x), -1, *parts) for array in (x, dy))
    gamma_, beta_ = (array.astype(np.float64).reshape(parts) for array in (gamma, beta))
    y, dx, dgamma, dbeta = normalized(x_, dy_, gamma_, beta_, (3,) if groups is None else (1, 3))
    return [y.reshape(x.shape), dx.reshape(x.shape), dgamma.ravel(), dbeta.ravel()]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [None, 1, 3, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_the_formulas(shape: Shape, groups: int | None, affine: bool) -> None:
    rng = np.random.default_rng(0)
    x = (2 * rng.standard_normal(shape) + np.linspace(-1, 1, shape[-1])).astype(np.float32)
    dy = 0.2 + rng.standard_normal(shape, np.float32)
    gamma, beta = rng.standard_normal((2, shape[-1]), np.float32)
    if not affine:
        gamma, beta = np.ones_like(gamma), np.zeros_like(beta)
    y, dx, dgamma, dbeta = run(x, dy, gamma if affine else None, beta if affine else None, groups)
    wide_y, wide_dx, wide_dgamma, wide_dbeta = expected(x, dy, gamma, beta, groups)
    np.testing.assert_allclose(y, wide_y, rtol=1e-5, atol=1e-5)
    lonely = x.size == len(x) * (groups or 1)  # a number alone in its group; inv_std is 1 / sqrt(eps) then
    np.testing.assert_allclose(dx, wide_dx, rtol=1e-5, atol=5e-4 if lonely else 1e-5 * np.abs(wide_dx).max())
    numbers = x.size // shape[-1]
    np.testing.assert_allclose(dgamma / numbers, wide_dgamma / numbers, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dbeta / numbers, wide_dbeta / numbers, rtol=0, atol=2e-6)


@pytest.mark.parametrize("groups", [None, 1, 4])
@pytest.mark.parametrize("mean", [30, -1e4])
def test_numbers_far_from_zero_keep_their_digits(groups: int | None, mean: float) -> None:
    rng = np.random.default_rng(0)
    x = (mean + rng.standard_normal((6, 8, 8, 64))).astype(np.float32)
    dy = rng.standard_normal(x.shape, np.float32)
    gamma, beta = np.ones((2, 64), np.float32)
    found, wide = run(x, dy, gamma, beta, groups), expected(x, dy, gamma, beta, groups)
    spacing = float(np.spacing(np.float32(abs(mean))))
    for name, narrow, exact in zip(("y", "dx"), found[:2], wide[:2], strict=True):
        np.testing.assert_allclose(narrow, exact, rtol=1e-5, atol=1e-5 + 8 * spacing, err_msg=name)


@pytest.mark.parametrize("groups", [None, 1, 4])
@pytest.mark.parametrize("value", [0.0, 0.1, -30.0])
def test_what_does_not_vary_becomes_beta(groups: int | None, value: float) -> None:
    x = np.full((4, 5, 5, 8), value, np.float32)
    gamma, beta = np.ones(8, np.float32), np.arange(8, dtype=np.float32)
    y, dx, *_ = run(x, np.ones_like(x), gamma, beta, groups)
    np.testing.assert_allclose(y, np.broadcast_to(beta, x.shape), rtol=0, atol=400 * float(np.spacing(abs(x).max())))
    np.testing.assert_allclose(dx, 0, atol=1e-3)
