"""Frozen parameters: which are found, and layers that stand still, forward and backward, as in evaluation."""

from typing import Any

import numpy as np
import pytest

from cnnlite.config.construct import construct
from cnnlite.config.problem_list import Problems
from cnnlite.errors import ConfigError
from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.network import Network
from cnnlite.utils.types import Array

CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": "same"}}
MODEL: list[Any] = [
    CONV,
    "batch_norm",
    "relu",
    {"residual": {"body": [CONV, "batch_norm"]}},
    {"max_pool2d": {"kernel_size": 2}},
    "flatten",
    {"linear": {"out_features": 3}},
]
NAMES = "0.weight 0.bias 1.gamma 1.beta 3.body.0.weight 3.body.0.bias 3.body.1.gamma 3.body.1.beta 6.weight 6.bias"


def network(frozen: str | None, model: list[Any] = MODEL, **options: Any) -> Network:
    problems = Problems()
    made, _ = construct(Layer, model, ("model",), problems)
    problems.raise_any()
    return Network(made, (6, 6, 2), seed=3, dtype=np.float64, frozen=frozen, **options)


def images() -> Array:
    return np.random.default_rng(0).standard_normal((5, 6, 6, 2))


def shaken(built: Network) -> Network:
    """A network whose normalizations do something, in evaluation too."""
    rng = np.random.default_rng(1)
    for array in built.state().values():
        array += rng.uniform(0.1, 0.5, array.shape)
    return built


@pytest.mark.parametrize(
    ("match", "found"),
    [
        (r"^0\.", ["0.weight", "0.bias"]),
        ("bias$", ["0.bias", "3.body.0.bias", "6.bias"]),
        (r"^(?!6\.)", NAMES.split()[:-2]),
        ("gamma|beta", ["1.gamma", "1.beta", "3.body.1.gamma", "3.body.1.beta"]),
    ],
)
def test_parameters_are_found_by_their_dotted_names(match: str, found: list[str]) -> None:
    built = network(match)
    assert [name for name in built.parameters if name in built.frozen] == found
    assert [parameter.name for parameter in built.trainable] == [name for name in NAMES.split() if name not in found]


def test_layers_are_fixed_with_their_statistics_only_if_all_their_parameters_are_frozen() -> None:
    assert network(r"gamma|body\.1\.beta").frozen == {
        *("1.gamma", "3.body.1.gamma", "3.body.1.beta", "3.body.1.running_mean", "3.body.1.running_var")
    }


def test_normalizations_without_parameters_are_found_by_the_names_of_their_statistics() -> None:
    plain = [CONV, {"batch_norm": {"affine": False}}, "flatten", {"linear": {"out_features": 3}}]
    for match, fixed in ((r"^1\.", True), ("running_mean|0.bias", False), ("0.weight", False)):
        built = network(match, plain)
        assert built.model.children["1"].is_fixed == fixed


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("weihgt", r"'weihgt' matches no parameter \(names: 0.weight, 0.bias, 1.gamma, 1.beta, ...\)"),
        ("0.wieght", r"did you mean '0.weight'\?"),
        (".", r"'.' matches every parameter, so that nothing would train; '\^\(\?!6\[.\]\)' freezes all but the last"),
        ("[", "is not a regular expression"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(match: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        network(match)
    assert caught.value.problems[0].path == "train.freeze"


def test_the_pattern_that_the_message_advises_leaves_the_last_layer() -> None:
    assert [parameter.name for parameter in network("^(?!6[.])").trainable] == ["6.weight", "6.bias"]


@pytest.mark.parametrize("fused", [True, False])
def test_a_fixed_normalization_is_in_training_what_it_is_in_evaluation(fused: bool) -> None:
    built = shaken(network("gamma|beta", fused=fused))
    before = {name: array.copy() for name, array in built.state().items()}
    trained = built.forward(images(), training=True)
    np.testing.assert_array_equal(trained, built.forward(images(), training=False))
    for name, array in built.state().items():
        np.testing.assert_array_equal(array, before[name])
    moving = shaken(network(None, fused=fused))
    moving.forward(images(), training=True)
    assert not np.array_equal(moving.buffers["1.running_mean"], before["buffer/1.running_mean"])


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_through_fixed_normalizations_are_right(fused: bool) -> None:
    built, x = shaken(network("gamma|beta", fused=fused)), images()
    direction = np.random.default_rng(2).standard_normal((5, 3))
    built.forward(x, training=True)
    built.backward(direction)
    for parameter in built.trainable:
        step = np.random.default_rng(4).standard_normal(parameter.shape) * 1e-6
        values = []
        for sign in (1, -1):
            parameter.value[...] += sign * step
            values.append(float((built.forward(x, training=False) * direction).sum()))
            parameter.value[...] -= sign * step
        assert (values[0] - values[1]) / 2 == pytest.approx(float((parameter.grad * step).sum()), rel=1e-4, abs=1e-12)


def test_the_gradient_of_a_fixed_normalization_is_that_of_pytorch(torch: Any) -> None:
    layer = BatchNorm()
    layer.build((4, 4, 3), np.random.default_rng(0), np.dtype(np.float64))
    rng = np.random.default_rng(1)
    for array in (*layer.params.values(), *layer.buffers.values()):
        array[...] = rng.uniform(0.5, 2, array.shape)
    built, theirs = Network(layer, (4, 4, 3), seed=0, dtype=np.float64), torch.nn.BatchNorm2d(3).double().eval()
    theirs.load_state_dict(
        {
            "weight": torch.from_numpy(built.parameters["gamma"].value),
            "bias": torch.from_numpy(built.parameters["beta"].value),
            "running_mean": torch.from_numpy(built.buffers["running_mean"]),
            "running_var": torch.from_numpy(built.buffers["running_var"]),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    fixed = built.model
    fixed.is_fixed, fixed.needs_dx = True, True
    x, dy = rng.standard_normal((2, 6, 4, 4, 3))
    given = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    theirs(given).backward(torch.from_numpy(dy).permute(0, 3, 1, 2))
    built.forward(x, training=True)
    dx = fixed.backward(dy)
    assert dx is not None
    np.testing.assert_allclose(dx, given.grad.permute(0, 2, 3, 1).numpy(), rtol=1e-10)


def test_the_backward_pass_ends_above_what_is_frozen() -> None:
    calls: list[tuple[str, bool]] = []

    def see(call: Call) -> None:
        if call.way == "backward":
            calls.append((call.name, call.returned is None))

    for match, reached in (
        (r"^[013]\.", {"", "6"}),
        (r"^[01]\.", {"", "6", "5", "4", "3", "3.body", "3.body.1", "3.body.0", "3.shortcut"}),
    ):
        built = network(match, fused=False)
        calls.clear()
        with watched(built.model, see):
            built.backward(np.cos(built.forward(images(), training=True)))
        assert {name for name, _ in calls} == reached
        assert not any(layer._kept for _, layer in built.model.walk())


def test_frozen_layers_below_trained_ones_pass_gradients_on_and_compute_none_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cnnlite.nn.kernels import convolution

    whole, part = network(None), network(r"^3\.body\.0\.")
    counted: list[int] = []
    original = convolution.weight_gradient

    def counting(*arguments: Any) -> None:
        counted.append(1)
        original(*arguments)

    whole.backward(np.cos(whole.forward(images(), training=True)))
    monkeypatch.setattr(convolution, "weight_gradient", counting)
    part.backward(np.cos(part.forward(images(), training=True)))
    assert len(counted) == 1
    for parameter in part.trainable:
        np.testing.assert_array_equal(parameter.grad, whole.parameters[parameter.name].grad)


def test_what_is_frozen_is_said_in_a_line() -> None:
    assert network(None).describe_frozen() == []
    (line,) = network(r"^[01]\.").describe_frozen()
    assert line == "frozen: 4 of 10 parameters, 84 of 351 numbers; 1 layer keeps its statistics"
