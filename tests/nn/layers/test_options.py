"""Options that no layer can have are refused by its constructor, which names the option."""

from collections.abc import Callable
from typing import Any

import pytest

from cnnlite.errors import OptionError
from cnnlite.nn.layers.activations import ELU, LeakyReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import MOST_LAYERS, Repeat, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from cnnlite.nn.layers.prelu import PReLU
from cnnlite.nn.layers.sample_norms import GroupNorm, LayerNorm
from cnnlite.nn.layers.scale import Scale

WRONG: list[tuple[Callable[[], Layer], str, str]] = [
    (lambda: Conv2d(0, 3), "out_channels", "must be at least 1, not 0"),
    (lambda: Conv2d(4, 3, groups=0), "groups", "must be at least 1, not 0"),
    (lambda: Conv2d(6, 3, groups=4), "out_channels", "must be a multiple of groups (4), not 6"),
    (lambda: Conv2d(4, 3, dilation=0), "dilation", "must be at least 1, not 0"),
    (lambda: Conv2d(4, 3, dilation=(1, 5000)), "dilation", "must be at most 4,096, not (1, 5000)"),
    (lambda: MaxPool2d(2, exact=True, ceil_mode=True), "exact", "is of no use with ceil_mode"),
    (lambda: AvgPool2d(2, exact=True, ceil_mode=True), "exact", "is of no use with ceil_mode"),
    (lambda: AdaptiveAvgPool2d(0), "output_size", "must be at least 1, not 0"),
    (lambda: Linear(-1), "out_features", "must be at least 1, not -1"),
    (lambda: LeakyReLU(1.0), "slope", "must be in (0, 1), not 1.0"),
    (lambda: LeakyReLU(0.0), "slope", "must be in (0, 1), not 0.0"),
    (lambda: ELU(0.0), "alpha", "must be positive, not 0.0"),
    (lambda: ELU(float("inf")), "alpha", "must be positive, not inf"),
    (lambda: Scale(0.0), "factor", "must be finite and not 0, not 0.0"),
    (lambda: Scale(float("-inf")), "factor", "must be finite and not 0, not -inf"),
    (lambda: PReLU(init=float("inf")), "init", "must be finite, not inf"),
    (lambda: LayerNorm(eps=0.0), "eps", "must be positive, not 0.0"),
    (lambda: GroupNorm(0), "num_groups", "must be at least 1, not 0"),
    (lambda: GroupNorm(2, eps=-1.0), "eps", "must be positive, not -1.0"),
    (lambda: Repeat(0, Linear(1)), "times", "must be at least 1, not 0"),
    (lambda: Repeat(MOST_LAYERS + 1, Linear(1)), "times", f"{MOST_LAYERS + 1} * 1 layers are more than {MOST_LAYERS}"),
    (
        lambda: Repeat(MOST_LAYERS, Sequential([Linear(1), Linear(1)])),
        "times",
        f"{MOST_LAYERS} * 3 layers are more than {MOST_LAYERS}",
    ),
]


@pytest.mark.parametrize(("make", "option", "rule"), WRONG)
def test_an_option_that_no_layer_can_have_is_refused_by_name(make: Callable[[], Layer], option: str, rule: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert caught.value.option == (option,)
    assert str(caught.value).startswith(option)
    assert rule in str(caught.value)


def test_an_algorithm_that_cannot_do_the_geometry_is_refused_once_the_shape_is_known() -> None:
    layer = Conv2d(4, 5, stride=2, algorithm="winograd")
    with pytest.raises(ValueError, match=r"algorithm winograd cannot do kernel \(5, 5\) with stride \(2, 2\)"):
        layer.infer((8, 8, 3))


def test_groups_that_do_not_divide_the_channels_are_refused_once_the_shape_is_known() -> None:
    with pytest.raises(ValueError, match="num_groups 4 does not divide the 6 channels"):
        GroupNorm(4).infer((8, 8, 6))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("winograd", {"groups": 2}),
        ("winograd", {"dilation": 2}),
        ("winograd", {"dilation": (1, 2)}),
        ("unfold_rows", {"groups": 2}),
        ("depthwise", {"groups": 2}),
        ("depthwise", {}),
    ],
)
def test_algorithms_are_refused_for_groups_and_dilation_that_they_do_not_know(
    algorithm: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"algorithm {algorithm} cannot do .* dilation .* groups"):
        Conv2d(4, 3, algorithm=algorithm, **options).infer((8, 8, 4))
