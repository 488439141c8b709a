import itertools
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from cnnlite.nn.kernels import convolution, im2col, winograd
from cnnlite.nn.kernels.convolution import Algorithm
from cnnlite.nn.kernels.geometry import Padding, Windows
from cnnlite.runtime import engine
from cnnlite.utils.types import Array
from tests.support.reference_kernels import convolve, convolve_by_loops

SMALL = [
    # size, kernel, stride, padding
    ((5, 4), (1, 1), (1, 1), 0),
    ((5, 4), (1, 1), (2, 3), 0),
    ((5, 4), (1, 1), (1, 1), 1),
    ((6, 5), (3, 1), (1, 1), 0),  # rows of windows are the image itself
    ((6, 5), (3, 3), (1, 1), 0),
    ((6, 5), (3, 3), (1, 1), 1),
    ((5, 6), (2, 4), (1, 1), "same"),
    ((7, 6), (3, 2), (2, 3), "same"),
    ((3, 7), (2, 2), (1, 1), 3),
    ((8, 7), (2, 1), (3, 5), (0, 1)),
    ((7, 7), (5, 3), (2, 1), (2, 0)),
    ((6, 9), (3, 2), (1, 3), 1),  # rows of windows that are apart
]


def operands(windows: Windows, batch: int, filters: int, dtype: Any = np.float64) -> tuple[Array, Array, Array, Array]:
    """Images, weights, biases and output gradients of unit variance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *windows.size, windows.channels))
    weight = rng.standard_normal((*windows.kernel, windows.channels // windows.groups, filters))
    bias = rng.standard_normal(filters)
    dy = rng.standard_normal((batch, *windows.out, filters))
    return x.astype(dtype), weight.astype(dtype), bias.astype(dtype), dy.astype(dtype)


def compute(
    windows: Windows, x: Array, weight: Array, bias: Array, dy: Array, algorithm: Algorithm = "auto"
) -> tuple[Array, Array, Array, Array]:
    """Output and gradients for image, weight and bias, by the kernels under test."""
    dweight, dbias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    convolution.weight_gradient(x, dy, windows, dweight, algorithm)
    convolution.bias_gradient(dy, dbias)
    y, _ = convolution.forward(x, weight, bias, windows, algorithm)
    return y, convolution.input_gradient(dy, weight, windows, algorithm), dweight, dbias


def algorithms(windows: Windows) -> list[Algorithm]:
    """All that can do this geometry."""
    return [name for name in get_args(Algorithm) if convolution.fits(name, windows)]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SMALL)
def test_convolution_is_what_six_loops_say(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: Padding, batch: int
) -> None:
    for channels, filters in [(1, 1), (3, 2)]:
        windows = Windows.fit((*size, channels), kernel, stride, padding, exact=False)
        x, weight, bias, dy = operands(windows, batch, filters)
        expected_y, expected_dx, expected_dweight = convolve_by_loops(x, weight, dy, windows)
        for algorithm in algorithms(windows):
            y, dx, dweight, dbias = compute(windows, x, weight, bias, dy, algorithm)
            without_bias, _ = convolution.forward(x, weight, None, windows, algorithm)
            np.testing.assert_allclose(y, expected_y + bias, rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(without_bias, expected_y, rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(dx, expected_dx, rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(dweight, expected_dweight, rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(dbias, dy.sum(axis=(0, 1, 2)), rtol=1e-11, atol=1e-11)
        # The faster reference, used below, says the same.
        for slow, fast in zip(convolve_by_loops(x, weight, dy, windows), convolve(x, weight, dy, windows), strict=True):
            np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


GROUPED = [
    # size, kernel, stride, padding, dilation, groups, channels, filters
    ((5, 6), (3, 3), (1, 1), 1, (1, 1), 2, 4, 6),
    ((6, 5), (3, 2), (1, 1), 1, (1, 1), 4, 4, 4),
    ((6, 5), (3, 2), (1, 1), 1, (1, 1), 3, 3, 6),  # two filters for each channel
    ((7, 6), (3, 3), (2, 2), 1, (1, 1), 4, 4, 4),
    ((7, 6), (3, 3), (2, 2), "same", (1, 1), 4, 4, 8),
    ((8, 7), (2, 1), (3, 2), (0, 1), (1, 1), 3, 3, 3),  # pixels that no window sees
    ((7, 9), (5, 3), (2, 3), (2, 1), (1, 1), 2, 2, 2),
    ((6, 7), (3, 3), (2, 2), 4, (1, 1), 3, 3, 3),  # windows of padding alone
    ((9, 8), (3, 2), (2, 2), 1, (2, 2), 3, 3, 3),
    ((6, 8), (2, 2), (2, 2), 0, (1, 1), 2, 4, 2),
    ((6, 8), (2, 4), (2, 2), 0, (1, 1), 2, 4, 2),  # several phases
    ((6, 8), (1, 1), (1, 1), 0, (1, 1), 2, 4, 6),
    ((6, 8), (1, 1), (2, 3), 0, (1, 1), 3, 6, 3),
    ((3, 4), (3, 4), (1, 1), 0, (1, 1), 2, 4, 6),
    ((4, 5), (2, 2), (1, 1), 3, (1, 1), 3, 3, 3),
    ((9, 8), (3, 3), (1, 1), 2, (2, 2), 1, 3, 2),
    ((9, 8), (3, 2), (1, 1), 1, (2, 3), 1, 2, 3),
    ((9, 8), (2, 2), (2, 2), 1, (2, 1), 1, 2, 3),  # as far apart as windows are: they overlap
    ((9, 8), (2, 2), (2, 2), 0, (3, 2), 2, 2, 2),
    ((3, 3), (2, 2), (2, 2), 0, (2, 2), 1, 2, 3),  # a single window, which leaves out the middle
    ((9, 8), (3, 3), (1, 1), "same", (2, 1), 4, 4, 4),
    ((9, 8), (3, 3), (1, 1), "same", (1, 2), 2, 6, 4),
]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_groups_and_dilation_are_what_loops_say(case: Any, batch: int) -> None:
    size, kernel, stride, padding, dilation, groups, channels, filters = case
    windows = Windows.fit(*((*size, channels), kernel, stride, padding), exact=False, dilation=dilation, groups=groups)
    x, weight, bias, dy = operands(windows, batch, filters)
    expected_y, expected_dx, expected_dweight = convolve_by_loops(x, weight, dy, windows)
    for algorithm in algorithms(windows):
        y, dx, dweight, _ = compute(windows, x, weight, bias, dy, algorithm)
        np.testing.assert_allclose(y, expected_y + bias, rtol=1e-11, atol=1e-11, err_msg=algorithm)
        np.testing.assert_allclose(dx, expected_dx, rtol=1e-11, atol=1e-11, err_msg=algorithm)
        np.testing.assert_allclose(dweight, expected_dweight, rtol=1e-11, atol=1e-11, err_msg=algorithm)
    for slow, fast in zip(convolve_by_loops(x, weight, dy, windows), convolve(x, weight, dy, windows), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


def test_groups_and_dilation_never_go_to_an_algorithm_that_does_not_know_them() -> None:
    for groups, dilation in ((2, 1), (64, 1), (1, 2), (2, 3), (64, 2)):
        windows = Windows.fit(
            *((32, 32, 64), (3, 3), (1, 1), "same"), exact=False, dilation=(dilation,) * 2, groups=groups
        )
        way = convolution.choose(windows, 64)
        assert convolution.fits(way, windows)
        assert (way == "depthwise") == (groups == 64)
        assert (way == "winograd") == (groups == dilation == 1)


def errors(found: Array, expected: Array) -> tuple[float, float]:
    """The greatest error against the greatest number, and the norm of all errors against that of all numbers."""
    assert found.dtype == np.float32
    difference = found - expected
    greatest = float(np.abs(difference).max() / np.abs(expected).max())
    return greatest, float(np.linalg.norm(difference) / np.linalg.norm(expected))


ALLOWED = {
    # Winograd's transforms add and subtract multiples of up to 8 of a number, which costs a digit. What `auto` takes
    # it for comes out within 1e-5 in norm; its weight gradients for very few channels, which `auto` leaves to others,
    # are a little worse.
    "auto": (2e-5, 1e-5),
    "winograd": (5e-5, 2e-5),
    "unfold": (5e-6, 3e-6),
    "unfold_rows": (5e-6, 3e-6),
    "depthwise": (5e-6, 3e-6),
}
"""For each algorithm, the greatest of `errors`."""


REALISTIC = [
    # batch, size, channels, filters, kernel, stride, padding
    (16, (32, 32), 3, 5, 4, 2, 0),
    (16, (13, 13), 5, 7, 4, 2, 0),
    (16, (28, 28), 3, 5, 6, 2, 0),
    (64, (32, 32), 3, 32, 3, 1, "same"),
    (32, (32, 32), 16, 16, 3, 1, "same"),
    (16, (16, 16), 32, 64, 3, 1, "same"),
    (32, (16, 16), 32, 32, 3, 2, "same"),
    (9, (15, 15), 24, 64, 3, 1, "valid"),
    (8, (16, 12), 64, 48, 3, 1, 1),
    (2, (32, 32), 64, 64, 3, 1, "same"),
    (1, (32, 32), 64, 64, 3, 1, "same"),
    (20, (8, 8), 128, 128, 3, 1, "same"),
    (10, (7, 7), 100, 128, 3, 1, 1),
    (128, (4, 4), 96, 128, 3, 1, 1),
    (64, (3, 5), 96, 64, 3, 1, 1),
    (64, (2, 2), 128, 128, 3, 1, 1),
    (5, (1, 1), 64, 64, 3, 1, 1),
    (32, (16, 16), 64, 32, 1, 1, 0),
    (16, (16, 16), 64, 128, 1, 2, 0),
    (8, (14, 14), 48, 32, 5, 1, "same"),
    (8, (31, 31), 3, 24, 2, 1, 0),
    (4, (33, 21), 16, 16, 7, 2, 3),
]


def assert_little_is_lost(windows: Windows, batch: int, filters: int) -> None:
    """All ways to compute a convolution in float32 are near the one in float64."""
    x, weight, bias, dy = operands(windows, batch, filters, np.float32)
    expected_y, expected_dx, expected_dweight = convolve(x, weight, dy, windows)
    for algorithm in algorithms(windows):
        y, dx, dweight, dbias = compute(windows, x, weight, bias, dy, algorithm)
        pairs = {"y": (y, expected_y + bias), "dx": (dx, expected_dx), "dweight": (dweight, expected_dweight)}
        for name, (found, expected) in pairs.items():
            greatest, norm = errors(found, expected)
            assert greatest < ALLOWED[algorithm][0], (algorithm, name)
            assert norm < ALLOWED[algorithm][1], (algorithm, name)
        # Sums of numbers of both signs nearly cancel, so the measure is what was added up (Higham 1993, on summation).
        error = np.abs(dbias - dy.sum(axis=(0, 1, 2), dtype=np.float64))
        assert (error / np.abs(dy).sum(axis=(0, 1, 2), dtype=np.float64)).max() < 1e-7, algorithm


@pytest.mark.parametrize(("batch", "size", "channels", "filters", "kernel", "stride", "padding"), REALISTIC)
def test_float32_loses_little_on_realistic_shapes(
    batch: int, size: tuple[int, int], channels: int, filters: int, kernel: int, stride: int, padding: Padding
) -> None:
    windows = Windows.fit((*size, channels), (kernel, kernel), (stride, stride), padding, exact=False)
    assert_little_is_lost(windows, batch, filters)


@pytest.mark.parametrize(
    ("batch", "size", "channels", "filters", "kernel", "stride", "dilation", "groups"),
    [
        (16, 32, 64, 64, 3, 1, 1, 64),
        (16, 16, 128, 128, 3, 2, 1, 128),
        (8, 16, 96, 96, 5, 1, 1, 96),
        (8, 14, 24, 48, 3, 1, 2, 24),
        (16, 16, 64, 96, 3, 1, 1, 4),
        (16, 16, 64, 64, 3, 2, 1, 16),
        (8, 15, 32, 32, 3, 1, 3, 1),
    ],
)
def test_float32_loses_little_with_groups_and_dilation(
    batch: int, size: int, channels: int, filters: int, kernel: int, stride: int, dilation: int, groups: int
) -> None:
    windows = Windows.fit(
        *((size, size, channels), (kernel,) * 2, (stride,) * 2, "same"),
        exact=False,
        dilation=(dilation,) * 2,
        groups=groups,
    )
    assert_little_is_lost(windows, batch, filters)


@pytest.mark.parametrize("channels", [3, 16, 64, 128, 256])
def test_winograd_leaves_little_where_windows_are_all_zero_and_the_others_nothing(channels: int) -> None:
    windows = Windows.fit((16, 16, channels), (3, 3), (1, 1), 1, exact=False)
    x, weight, _, _ = operands(windows, 4, channels, np.float32)
    x[:, :, np.arange(16) % 5 > 0] = 0  # so that all tiles hold some of both
    direct, _ = convolution.forward(x, weight, None, windows, "unfold")
    zero = direct == 0
    np.testing.assert_array_equal(convolution.forward(x, weight, None, windows, "unfold_rows")[0] == 0, zero)
    assert 0.1 < zero.mean() < 0.9
    y, _ = convolution.forward(x, weight, None, windows, "winograd")
    assert 0 < np.abs(y[zero]).max() < 2e-5 * np.abs(y).max()  # what docs/config.md says of `algorithm`


def test_every_number_of_the_image_and_the_kernel_is_used_exactly_where_it_should_be() -> None:
    # Images and kernels of a single 1 find a shifted or doubled tap at once, at sizes around each multiple of 4.
    for height, width, channels in itertools.product((3, 4, 5, 6, 9), (4, 7, 8), (1, 16)):
        windows = Windows.fit((height, width, channels), (3, 3), (1, 1), "same", exact=False)
        weight = np.zeros((3, 3, channels, 16))
        weight[0, 2, -1, 5] = 1
        x = np.arange(1.0, height * width * channels + 1).reshape(1, height, width, channels)
        expected = np.zeros((1, height, width, 16))
        expected[0, 1:, :-1, 5] = x[0, :-1, 1:, -1]
        for algorithm in algorithms(windows):
            y, _ = convolution.forward(x, weight, None, windows, algorithm)
            np.testing.assert_allclose(y, expected, atol=1e-9)


@pytest.mark.parametrize("channels", [3, 20, 136])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (9, 5)])
def test_all_algorithms_give_the_same_bits_on_1_2_and_4_threads(
    size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, pieces = engine.run, [1]

    def counted(task: Callable[[int], None], count: int) -> None:
        pieces.append(count)
        run(task, count)

    monkeypatch.setattr(engine, "run", counted)
    batch = min(1500, 3 + 500_000 // (size[0] * size[1] * (channels + 130)))
    for kernel, stride in ((3, 1), (2, 2), (1, 1)):
        windows = Windows.fit((*size, channels), (kernel, kernel), (stride, stride), "same", exact=False)
        arrays = operands(windows, batch, 130, np.float32)
        for algorithm in algorithms(windows):
            results = []
            for threads in (1, 2, 4):
                engine.set_threads(threads)
                results.append([array.copy() for array in compute(windows, *arrays, algorithm)])
            for other in results[1:]:
                for first, second in zip(results[0], other, strict=True):
                    np.testing.assert_array_equal(first, second, err_msg=algorithm)
    assert max(pieces) > 1, "this test needs a larger batch"


@pytest.mark.parametrize("groups", [2, 16, 64])
def test_groups_give_the_same_bits_on_1_2_and_4_threads(groups: int) -> None:
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        windows = Windows.fit(
            *((12, 13, 64), (3, 3), (stride,) * 2, "same"), exact=False, dilation=(dilation,) * 2, groups=groups
        )
        arrays = operands(windows, 70, 64, np.float32)
        for algorithm in algorithms(windows):
            results = []
            for threads in (1, 2, 4):
                engine.set_threads(threads)
                results.append([array.copy() for array in compute(windows, *arrays, algorithm)])
            for other in results[1:]:
                for first, second in zip(results[0], other, strict=True):
                    np.testing.assert_array_equal(first, second, err_msg=algorithm)


def test_the_weight_gradient_may_use_what_forward_unfolded_in_several_blocks() -> None:
    windows = Windows.fit((16, 16, 1), (4, 4), (2, 2), 0, exact=False)
    x, weight, bias, dy = operands(windows, 300, 64, np.float32)
    y, columns = convolution.forward(x, weight, bias, windows, "unfold", keep=True)
    assert columns is not None
    assert y.nbytes > engine.BLOCK_BYTES, "this test needs a larger batch"
    dweight = np.full_like(weight, np.nan)
    convolution.weight_gradient(x, dy, windows, dweight, "unfold", columns)
    expected_y, _, expected_dweight = convolve(x, weight, dy, windows)
    assert errors(y, expected_y + bias)[0] < ALLOWED["unfold"][0]
    assert errors(dweight, expected_dweight)[0] < ALLOWED["unfold"][0]


# Of 13 MB for all samples: a chunk has several blocks, or a shard several chunks.
@pytest.mark.parametrize("chunk_bytes", [6 * 2**20, 2**19])
def test_large_weights_are_served_chunk_after_chunk(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (im2col, winograd):
        monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    windows = Windows.fit((6, 5, 192), (3, 3), (1, 1), 1, exact=False)
    x, weight, bias, dy = operands(windows, 30, 192)
    assert weight.nbytes > im2col.LARGE_WEIGHTS
    assert weight.shape[2] * weight.shape[3] > winograd.LOCAL_WEIGHTS
    expected_y, expected_dx, expected_dweight = convolve(x, weight, dy, windows)
    for algorithm in algorithms(windows):
        y, dx, dweight, _ = compute(windows, x, weight, bias, dy, algorithm)
        np.testing.assert_allclose(y, expected_y + bias, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(dx, expected_dx, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(dweight, expected_dweight, rtol=1e-9, atol=1e-9)


def test_a_long_sum_of_output_gradients_keeps_its_digits() -> None:
    windows = Windows.fit((32, 32, 3), (1, 1), (1, 1), 0, exact=False)
    dy = 1 + np.random.default_rng(0).random((300, 32, 32, 2), np.float32)
    x = np.ones((300, 32, 32, 3), np.float32)
    dweight, dbias = np.empty((1, 1, 3, 2), np.float32), np.empty(2, np.float32)
    convolution.weight_gradient(x, dy, windows, dweight)
    convolution.bias_gradient(dy, dbias)
    expected = dy.sum(axis=(0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(dbias, expected, rtol=1e-5)
    np.testing.assert_allclose(dweight, np.broadcast_to(expected, (1, 1, 3, 2)), rtol=1e-5)
