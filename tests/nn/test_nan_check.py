from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnlite.config.load import config_from_data
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Residual
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.losses import CrossEntropy
from cnnlite.nn.nan_check import advice, first_not_finite
from cnnlite.nn.network import Network
from cnnlite.utils.types import Array
from tests.support.small_runs import tiny

MODEL: list[Any] = [
    {"conv2d": {"out_channels": 3, "kernel_size": 3}},
    "relu",
    {"residual": {"body": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}, "batch_norm"]}},
    "relu",
    "flatten",
    {"linear": {"out_features": 10}},
]
Spoil = Callable[[Array], None]


def network() -> Network:
    config = config_from_data({**tiny().resolved, "model": MODEL})
    return Network(config.model, (8, 8, 3), seed=0, classes=10)


def diagnosed(built: Network, x: Array | None = None) -> str | None:
    rng = np.random.default_rng(0)
    if x is None:
        x = rng.standard_normal((6, 8, 8, 3)).astype(np.float32)
    with np.errstate(all="ignore"):
        return first_not_finite(built, CrossEntropy(), x, rng.integers(0, 10, 6), 0)


def spoiled(monkeypatch: pytest.MonkeyPatch, layer: type[Layer], method: str, path: str, value: float) -> str | None:
    """What is found if one number that a method of the layer at a place in the config returns is replaced."""
    plain = getattr(layer, method)

    def spoil(self: Layer, *arguments: Any, **options: Any) -> Any:
        result = plain(self, *arguments, **options)
        if self.path == path:
            result.flat[7] = value
        return result

    monkeypatch.setattr(layer, method, spoil)
    return diagnosed(network())


def test_the_input_comes_first() -> None:
    x = np.zeros((2, 8, 8, 3), np.float32)
    x[1, 2, 3, 0] = np.nan
    assert diagnosed(network(), x) == "the input"


def test_a_parameter_is_named() -> None:
    built = network()
    built.parameters["2.body.0.weight"].value.flat[0] = np.inf
    assert diagnosed(built) == "parameter 2.body.0.weight, changed by an earlier update"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("layer", "path"),
    [(Conv2d, "model[0].conv2d"), (Conv2d, "model[2].residual.body[0].conv2d"), (Linear, "model[5].linear")],
)
def test_the_first_layer_whose_output_went_bad_is_named(
    layer: type[Layer], path: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spoiled(monkeypatch, layer, "forward", path, value) == f"the output of {path} (forward)"


def test_a_sum_that_overflows_is_named_though_its_summands_are_finite() -> None:
    built = network()
    # Both branches give 2e38, and 3.4e38 is the largest number there is.
    for name in ("0.bias", "2.body.1.beta"):
        built.parameters[name].value[...] = 2e38
    for name in ("0.weight", "2.body.0.weight"):
        built.parameters[name].value[...] = 0
    assert diagnosed(built) == "the output of model[2].residual (forward)"


@pytest.mark.parametrize(
    ("layer", "path"),
    [(Linear, "model[5].linear"), (Residual, "model[2].residual"), (ReLU, "model[1].relu")],
)
def test_the_first_layer_whose_gradient_went_bad_is_named(
    layer: type[Layer], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = spoiled(monkeypatch, layer, "backward", path, np.nan)
    assert found == f"the gradient for the input of {path} (backward)"


def test_a_bad_gradient_of_a_parameter_is_named_with_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Conv2d.backward

    def spoil(self: Conv2d, dy: Array) -> Array | None:
        dx = backward(self, dy)
        self.grads["weight"].flat[3] = np.inf
        return dx

    monkeypatch.setattr(Conv2d, "backward", spoil)
    place = "2.body.0.weight, in model[2].residual.body[0].conv2d"
    assert diagnosed(network()) == f"the gradient of parameter {place} (backward)"


def test_a_fault_that_does_not_come_again_is_found_in_the_gradients_it_left() -> None:
    built = network()
    for name in ("0.weight", "2.body.0.bias"):
        built.parameters[name].grad.flat[0] = np.nan
    assert diagnosed(built) == "the gradient of parameter 2.body.0.bias (backward)"


def test_a_loss_that_is_not_finite_by_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for loss, gradient, found in ((1.0, np.inf, "the gradient of the loss (backward)"), (np.nan, 1.0, None)):
        broken = loss, np.full((6, 10), gradient, np.float32)
        monkeypatch.setattr(CrossEntropy, "loss_and_gradient", lambda *_, broken=broken: broken)
        assert diagnosed(network()) == found  # None: only the loss itself


@pytest.mark.usefixtures("as_typed")
def test_the_advice_is_overrides_that_the_command_line_takes() -> None:
    train = tiny(optimizer={"sgd": {"lr": 0.1, "momentum": 0.9}}).resolved["train"]
    assert advice(train) == "start again with -o train.optimizer.sgd.lr=0.01 or -o train.clip_norm=1"
    clipped = tiny(clip_norm=2.0).resolved["train"]
    assert advice(clipped) == "start again with -o train.optimizer.adam.lr=0.0003"
    composite = tiny(optimizer={"composite": {"members": [{"match": ".", "optimizer": {"sgd": {"lr": 0.1}}}]}})
    assert advice(composite.resolved["train"]) == (
        "start again with a tenth of the learning rates or -o train.clip_norm=1"
    )


def test_layers_work_on_their_own_afterwards() -> None:
    built = network()
    assert (diagnosed(built, np.full((6, 8, 8, 3), 1e38, np.float32)) or "").startswith("the output of")
    assert not any({"forward", "backward"} & vars(layer).keys() for _, layer in built.model.walk())
