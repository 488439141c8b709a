import numpy as np
import pytest

from cnnlite.nn.kernels import pooling
from cnnlite.nn.kernels.geometry import Padding, Windows
from tests.support.reference_kernels import adaptive_average_by_loops, average_pool_by_loops, max_pool_by_loops

SHAPES = [
    # size, kernel, stride, padding
    ((4, 6), (2, 2), (2, 2), 0),
    ((5, 7), (2, 2), (2, 2), 0),
    ((6, 4), (2, 2), (1, 1), 0),
    ((5, 7), (2, 3), (2, 2), 0),
    ((5, 6), (3, 3), (2, 2), 1),
    ((7, 5), (3, 2), (2, 3), (1, 0)),
    ((6, 3), (2, 2), (2, 2), 1),
    ((7, 6), (3, 3), (2, 2), "same"),
    ((4, 5), (2, 2), (1, 1), "same"),
    ((9, 8), (2, 2), (5, 3), 0),
    ((1, 1), (2, 2), (1, 1), 1),
    ((8, 8), (8, 8), (8, 8), 0),
    ((7, 8), (3, 2), (3, 3), 1),
    ((4, 3), (2, 2), (3, 3), 1),  # rounded up, the last window would begin behind the image
]


def windows_of(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Padding,
    channels: int = 3,
    *,
    ceil: bool = False,
) -> Windows:
    return Windows.fit((*size, channels), kernel, stride, padding, exact=False, ceil=ceil)


both_ways = pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SHAPES)
@both_ways
def test_max_pooling_is_what_loops_say(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: Padding, batch: int, ceil: bool
) -> None:
    windows = windows_of(size, kernel, stride, padding, ceil=ceil)
    rng = np.random.default_rng(0)
    # Whole numbers, so that many windows have several greatest; all below zero, so that zeros of padding would win.
    x = rng.integers(-4, 0, (batch, *size, 3)).astype(np.float64)
    dy = rng.standard_normal((batch, *windows.out, 3))
    expected_y, expected_dx = max_pool_by_loops(x, dy, windows)
    y = pooling.max_forward(x, windows)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(pooling.max_backward(dy, x, y, windows), expected_dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SHAPES)
@both_ways
def test_average_pooling_is_what_loops_say(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: Padding, batch: int, ceil: bool
) -> None:
    windows = windows_of(size, kernel, stride, padding, ceil=ceil)
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((batch, *size, 3)), rng.standard_normal((batch, *windows.out, 3))
    expected_y, expected_dx = average_pool_by_loops(x, dy, windows)
    np.testing.assert_allclose(pooling.average_forward(x, windows), expected_y, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(pooling.average_backward(dy, windows), expected_dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("padding", [0, 1, "same"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_gradient_of_max_pooling_is_neither_lost_nor_doubled(padding: Padding, stride: int) -> None:
    windows = windows_of((32, 31), (3, 3), (stride, stride), padding, channels=20)
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((40, 32, 31, 20), np.float32), 0)  # windows of zeros alone
    dy = rng.integers(1, 9, (40, *windows.out, 20)).astype(np.float32)
    dx = pooling.max_backward(dy, x, pooling.max_forward(x, windows), windows)
    assert dx.sum(dtype=np.float64) == dy.sum(dtype=np.float64)
    assert (dx >= 0).all()


def test_average_pooling_of_a_large_window_keeps_its_digits() -> None:
    windows = windows_of((32, 32), (32, 32), (1, 1), 0)
    x = 1000 + np.random.default_rng(0).standard_normal((4, 32, 32, 3), np.float32)
    expected = x.mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(pooling.average_forward(x, windows)[:, 0, 0], expected, rtol=2e-6)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("size", "out"), [((7, 5), (3, 3)), ((6, 4), (3, 2)), ((3, 2), (5, 4)), ((5, 4), (1, 1)), ((5, 3), (5, 3))]
)
def test_adaptive_pooling_is_what_loops_say(size: tuple[int, int], out: tuple[int, int], batch: int) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((batch, *size, 3)), rng.standard_normal((batch, *out, 3))
    expected_y, expected_dx = adaptive_average_by_loops(x, dy)
    np.testing.assert_allclose(pooling.adaptive_forward(x, out), expected_y, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(pooling.adaptive_backward(dy, size), expected_dx, rtol=1e-12, atol=1e-13)
