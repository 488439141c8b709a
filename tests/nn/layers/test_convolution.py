import math
from typing import Any

import numpy as np
import pytest

from cnnlite.nn.layers import layers
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.linear import Linear
from cnnlite.utils.types import Shape

RNG = np.random.default_rng(0)
FLOAT = np.dtype(np.float32)


def windowed(name: str, **options: Any) -> Layer:
    """A convolution with 4 filters, or a pool."""
    if name == "conv2d":
        options["out_channels"] = 4
    return layers[name](**options)


windowed_layers = pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "avg_pool2d"])


@windowed_layers
def test_sizes_are_rounded_down(name: str) -> None:
    shape = windowed(name, kernel_size=(3, 2), stride=2, padding=(1, 0)).build((8, 9, 4), RNG, FLOAT)
    assert shape == ((8 + 2 - 3) // 2 + 1, (9 - 2) // 2 + 1, 4)


@windowed_layers
@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_gives_the_size_divided_by_the_stride_rounded_up(name: str, size: int, stride: int, kernel: int) -> None:
    layer = windowed(name, kernel_size=kernel, stride=stride, padding="same")
    assert layer.build((size, 11, 4), RNG, FLOAT) == (math.ceil(size / stride), math.ceil(11 / stride), 4)


@windowed_layers
def test_exact_refuses_what_does_not_fit_and_shows_the_arithmetic(name: str) -> None:
    options: dict[str, Any] = {"kernel_size": 5, "stride": 2, "exact": True}
    with pytest.raises(ValueError, match=r"exact.*\(32 \+ 0 - 5\) / 2 \+ 1 = 14\.5"):
        windowed(name, **options).build((32, 33, 4), RNG, FLOAT)
    assert windowed(name, **options).build((33, 33, 4), RNG, FLOAT) == (15, 15, 4)


@windowed_layers
def test_a_window_larger_than_the_image_is_an_error_with_the_arithmetic(name: str) -> None:
    with pytest.raises(ValueError, match=r"window of 5 does not fit on width: \(2 \+ 2 - 5\) / 1 \+ 1 = 0"):
        windowed(name, kernel_size=5, stride=1, padding=1).build((9, 2, 4), RNG, FLOAT)


def test_a_dilated_filter_is_as_large_as_the_part_of_the_image_that_it_covers() -> None:
    assert windowed("conv2d", kernel_size=3, dilation=2).build((9, 8, 4), RNG, FLOAT) == (5, 4, 4)
    assert windowed("conv2d", kernel_size=(3, 2), dilation=(1, 3)).build((9, 8, 4), RNG, FLOAT) == (7, 5, 4)
    with pytest.raises(ValueError, match=r"window of 7 does not fit on height: \(6 \+ 0 - 7\) / 1 \+ 1 = 0"):
        windowed("conv2d", kernel_size=3, dilation=3).build((6, 8, 4), RNG, FLOAT)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_makes_up_for_dilation(stride: int, dilation: int) -> None:
    layer = windowed("conv2d", kernel_size=3, stride=stride, padding="same", dilation=dilation)
    assert layer.build((7, 11, 4), RNG, FLOAT) == (math.ceil(7 / stride), math.ceil(11 / stride), 4)


def test_groups_that_do_not_divide_the_channels_are_an_error() -> None:
    with pytest.raises(ValueError, match="groups must divide the channels of the input, but 4 do not divide 6"):
        Conv2d(8, 3, groups=4).infer((8, 8, 6))


@pytest.mark.parametrize(("padding", "size"), [(4, (4, 9)), ((0, 4), (9, 4)), ("same", (2, 9))])
def test_an_image_too_small_to_be_mirrored_is_an_error(padding: Any, size: tuple[int, int]) -> None:
    layer = Conv2d(4, 6, padding=padding, padding_mode="reflect")
    with pytest.raises(ValueError, match="padding_mode reflect needs padding smaller than the image, which is"):
        layer.infer((*size, 3))
    assert Conv2d(4, 6, padding=padding, padding_mode="reflect").infer((9, 9, 3))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "out"),
    # Rounded up, unless a window would begin behind the image and its first padding.
    [
        (7, 2, 2, 0, 4),
        (6, 2, 2, 0, 3),
        (5, 3, 3, 1, 2),
        (3, 2, 3, 1, 2),
        (4, 2, 3, 1, 2),
        (2, 3, 2, 0, 1),
        (9, 2, 5, 0, 2),
    ],
)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_ceil_mode_rounds_sizes_up(name: str, size: int, kernel: int, stride: int, padding: int, out: int) -> None:
    layer = windowed(name, kernel_size=kernel, stride=stride, padding=padding, ceil_mode=True)
    assert layer.build((size, 20, 4), RNG, FLOAT)[0] == out


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_a_window_far_larger_than_the_image_does_not_fit_in_ceil_mode_either(name: str) -> None:
    with pytest.raises(ValueError, match="window of 5 does not fit on height"):
        windowed(name, kernel_size=5, stride=2, ceil_mode=True).build((3, 9, 4), RNG, FLOAT)


@pytest.mark.parametrize("groups", [2, 8])
def test_multiply_adds_and_parameters_count_what_filters_of_groups_see(groups: int) -> None:
    layer = Conv2d(16, 3, padding=1, groups=groups, bias=False)
    layer.infer((6, 5, 8))
    assert layer.specs["weight"].shape == (3, 3, 8 // groups, 16)
    assert layer.multiply_adds == 6 * 5 * 9 * 8 // groups * 16


@windowed_layers
def test_flat_features_are_an_error_that_says_what_came(name: str) -> None:
    with pytest.raises(ValueError, match=r"expects images of shape \(H, W, C\).*\(100,\)"):
        windowed(name, kernel_size=2).build((100,), RNG, FLOAT)


@windowed_layers
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": (3, -1)}, "kernel_size must be at least 1"),
        ({"kernel_size": 2, "stride": 0}, "stride must be at least 1"),
        ({"kernel_size": 2, "padding": -1}, "padding must be at least 0"),
    ],
)
def test_impossible_options_are_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windowed(name, **options)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_a_pool_without_stride_tiles_the_image(name: str) -> None:
    assert windowed(name, kernel_size=(2, 3)).build((6, 6, 4), RNG, FLOAT) == (3, 2, 4)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_a_pool_of_padding_alone_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="padding 2 is more than half of the kernel size 3"):
        windowed(name, kernel_size=3, padding=2)


@pytest.mark.parametrize(
    ("layer", "in_shape", "fan_in", "fan_out"),
    [
        (lambda init: Conv2d(80, (3, 5), init=init), (9, 9, 40), 15 * 40, 15 * 80),
        (lambda init: Conv2d(120, 3, groups=4, init=init), (9, 9, 80), 9 * 20, 9 * 30),
        (lambda init: Conv2d(4000, 3, groups=4000, init=init), (9, 9, 4000), 9, 9),
        (lambda init: Linear(300, init=init), (500,), 500, 300),
    ],
)
def test_weights_begin_with_the_variance_of_their_initializer(
    layer: Any, in_shape: Shape, fan_in: int, fan_out: int
) -> None:
    for init, variance in (("he", 2 / fan_in), ("glorot", 2 / (fan_in + fan_out)), ("normal", 1e-4)):
        built = layer(init)
        built.build(in_shape, np.random.default_rng(0), FLOAT)
        weight, bias = built.params["weight"], built.params["bias"]
        assert weight.var() == pytest.approx(variance, rel=0.03)
        assert abs(weight.mean()) < 5 * math.sqrt(variance / weight.size)
        assert not bias.any()
        limit = math.sqrt(6 / (fan_in + fan_out))
        assert (np.abs(weight).max() <= limit * (1 + 1e-6)) == (init == "glorot" or limit > 5 * math.sqrt(variance))
