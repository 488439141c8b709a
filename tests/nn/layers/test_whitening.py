"""Whitening convolution: what its filters do to the patches they are fitted on, and who fits them when."""

from typing import Any

import numpy as np
import pytest

from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.containers import Parallel, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.whitening import WhiteningConv2d
from cnnlite.nn.network import Network
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


def images(count: int = 40) -> Array:
    """Smooth images, so that neighbouring pixels and channels go together."""
    noise = np.random.default_rng(0).standard_normal((count, 12, 10, 3))
    return (noise.cumsum(axis=1).cumsum(axis=2) / 5 + noise[..., :1]).astype(np.float32)


def fitted(eps: float = 1e-3, count: int = 1000, dtype: Any = np.float32) -> WhiteningConv2d:
    layer = WhiteningConv2d(2, eps=eps, images=count)
    layer.build((12, 10, 3), np.random.default_rng(0), np.dtype(dtype))
    layer.fit(images().astype(dtype))
    return layer


def patches(x: Array, kernel: int = 2) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (kernel, kernel), axis=(1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kernel * kernel * x.shape[-1])


def test_defaults_are_those_of_the_source_and_what_is_drawn_fills_one_over_the_root_of_the_fan_in() -> None:
    layer = WhiteningConv2d()
    assert (layer.kernel, layer.eps, layer.fit_images) == ((2, 2), 5e-4, 5000)
    layer.build((12, 10, 3), np.random.default_rng(0), np.dtype(np.float32))
    limit = 1 / np.sqrt(12)
    for array in layer.buffers["weight"], layer.params["bias"]:
        assert 0.75 * limit < np.abs(array).max() <= limit


def test_the_outputs_are_uncorrelated_with_variances_a_little_below_one() -> None:
    layer = fitted(dtype=np.float64)
    layer.params["bias"][...] = 0
    rows = patches(images())
    variances = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    y = layer.forward(images().astype(np.float64), Context()).reshape(-1, 24)
    np.testing.assert_allclose(
        y[:, :12].T @ y[:, :12] / len(y), np.diag(variances / (variances + 1e-3)), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_array_equal(y[:, 12:], -y[:, :12])
    assert variances.min() < 0.1 < 5 < variances.max()  # else eps and scaling would not have been seen


def test_filters_equal_those_of_torch_but_for_their_signs(torch: Any) -> None:
    x = torch.tensor(images().astype(np.float64)).permute(0, 3, 1, 2)
    rows = x.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 4, 5, 1).reshape(-1, 12)
    variances, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    theirs = (vectors / torch.sqrt(variances + 1e-3)).numpy()
    ours = fitted(dtype=np.float64).buffers["weight"].reshape(12, 24)[:, :12]
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours, theirs * signs, rtol=1e-7, atol=1e-8)


def test_the_greatest_component_of_each_filter_is_positive() -> None:
    filters = fitted().buffers["weight"].reshape(12, 24)[:, :12]
    assert (filters[np.abs(filters).argmax(axis=0), range(12)] > 0).all()


def test_only_the_first_images_count() -> None:
    x = images()
    few = fitted(count=7).buffers["weight"]
    layer = WhiteningConv2d(2, eps=1e-3)
    layer.build((12, 10, 3), np.random.default_rng(0), np.dtype(np.float32))
    layer.fit(x[:7])
    np.testing.assert_array_equal(layer.buffers["weight"], few)
    assert not np.allclose(fitted().buffers["weight"], few)


def test_filters_have_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK_BYTES", 16 * 1024)
    engine.blocks.cache_clear()
    weights = []
    for threads in (1, 3):
        engine.set_threads(threads)
        weights.append(fitted().buffers["weight"].copy())
    engine.blocks.cache_clear()
    np.testing.assert_array_equal(weights[0], weights[1])


def test_the_filters_are_not_trained() -> None:
    layer = fitted()
    assert layer.params.keys() == layer.grads.keys() == {"bias"}
    assert layer.buffers.keys() == {"weight"}
    assert np.abs(layer.params["bias"]).max() <= 1 / np.sqrt(12)
    assert np.ptp(layer.params["bias"]) > 0.3


def test_fitting_leaves_the_statistics_of_layers_before_it_alone() -> None:
    network = Network(Sequential([BatchNorm(), WhiteningConv2d(2)]), (12, 10, 3), seed=0)
    network.fit(images(), lambda raw: raw)
    np.testing.assert_array_equal(network.buffers["0.running_mean"], 0)
    np.testing.assert_array_equal(network.buffers["0.running_var"], 1)


def test_a_layer_deep_in_a_network_is_fitted_on_its_own_input_and_sees_no_more_images_than_it_asks_for() -> None:
    class Seeing(WhiteningConv2d):
        def fit(self, x: Array) -> None:
            seen.append(x.copy())
            super().fit(x)

    seen: list[Array] = []
    first, whiten = Conv2d(3, 1), Seeing(2, images=5)
    branch = Parallel([Sequential([]), Residual(Sequential([ReLU()]))])
    network = Network(Sequential([first, branch, Sequential([whiten]), Conv2d(4, 3)]), (12, 10, 3), seed=0)
    given = []

    def normalize(raw: Array) -> Array:
        given.append(len(raw))
        return raw

    network.fit(images(), normalize)
    expected = Sequential([])
    expected.layers = list(network.model.children.values())[:2]
    x = images(5)
    for layer in expected.layers:
        x = layer.forward(x, Context())
    assert given == [5]
    np.testing.assert_allclose(seen[0], x, rtol=1e-6)


def test_a_branch_of_a_network_is_fitted() -> None:
    network = Network(Residual(WhiteningConv2d(1), Conv2d(6, 1)), (12, 10, 3), seed=0)
    before = network.buffers["body.weight"].copy()
    network.fit(images(), lambda raw: raw)
    assert not np.array_equal(network.buffers["body.weight"], before)


def test_a_network_with_nothing_to_fit_reads_no_images() -> None:
    def never(raw: Array) -> Array:
        raise AssertionError

    Network(Conv2d(4, 3), (12, 10, 3), seed=0).fit(images(), never)


@pytest.mark.parametrize("name", ["eps", "images", "kernel_size"])
def test_senseless_options_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be"):
        WhiteningConv2d(**options)
