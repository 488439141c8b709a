"""How weights begin: the distributions, and identity convolutions that copy their input."""

from typing import Any

import numpy as np
import pytest

from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.initializers import initializers
from cnnlite.nn.layers.linear import Linear


def draw(name: str, shape: tuple[int, ...]) -> Any:
    return initializers[name](np.random.default_rng(0), shape)


@pytest.mark.parametrize(
    ("name", "deviation"),
    [("he", np.sqrt(2 / 1200)), ("glorot", np.sqrt(2 / (1200 + 720))), ("normal", 0.01), ("unit", 1.0)],
)
def test_standard_deviations_are_those_of_the_papers(name: str, deviation: float) -> None:
    assert draw(name, (3, 4, 100, 60)).std() == pytest.approx(deviation, rel=0.02)


def test_unit_is_uniform_and_scaled_by_its_own_deviation() -> None:
    weight = draw("unit", (12, 10))
    assert weight.std(ddof=1) == pytest.approx(1, rel=1e-12)
    assert np.abs(draw("unit", (200, 100))).max() == pytest.approx(np.sqrt(3), rel=0.01)


@pytest.mark.parametrize(("channels", "filters"), [(5, 5), (5, 3), (3, 8)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_dirac_convolution_copies_its_channels(kernel: int, channels: int, filters: int) -> None:
    layer = Conv2d(filters, kernel, padding="same", bias=False, init="dirac")
    layer.build((6, 7, channels), np.random.default_rng(0), np.dtype(np.float32))
    x = np.random.default_rng(1).standard_normal((2, 6, 7, channels), np.float32)
    y = layer.forward(x, Context())
    copies = min(channels, filters)
    np.testing.assert_allclose(y[..., :copies], x[..., :copies], atol=1e-5)
    extra = layer.params["weight"][..., copies:]
    if extra.size:
        limit = 1 / np.sqrt(kernel * kernel * channels)
        assert 0.5 * limit < np.abs(extra).max() <= limit


@pytest.mark.parametrize(("groups", "filters"), [(2, 6), (6, 6), (6, 12)])
def test_a_dirac_convolution_copies_the_channels_of_each_group(groups: int, filters: int) -> None:
    layer = Conv2d(filters, 3, padding="same", bias=False, init="dirac", groups=groups)
    layer.build((6, 7, 6), np.random.default_rng(0), np.dtype(np.float32))
    x = np.random.default_rng(1).standard_normal((2, 6, 7, 6), np.float32)
    y = np.split(layer.forward(x, Context()), groups, axis=-1)
    for part, copied in zip(np.split(x, groups, axis=-1), y, strict=True):
        np.testing.assert_allclose(copied[..., : 6 // groups], part, atol=1e-5)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
def test_dirac_equals_torch_on_the_filters_that_have_a_channel(kernel: tuple[int, int], torch: Any) -> None:
    theirs = torch.nn.init.dirac_(torch.empty(4, 4, *kernel)).permute(2, 3, 1, 0).numpy()
    np.testing.assert_array_equal(draw("dirac", (*kernel, 4, 9))[..., :4], theirs)


def test_a_dirac_linear_layer_copies_its_input() -> None:
    layer = Linear(4, bias=False, init="dirac")
    layer.build((4,), np.random.default_rng(0), np.dtype(np.float64))
    np.testing.assert_array_equal(layer.params["weight"], np.eye(4))
