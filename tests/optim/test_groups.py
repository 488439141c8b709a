"""Optimizers: who is decayed, groups by parameter name, state, options."""

import math
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.optim import SGD, Adam
from cnnlite.utils import patterns
from tests.support.optimizer_parts import FOR_ANY_SHAPE, SHAPES, fill_gradients, make, make_parameters


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_weight_decay_spares_biases_and_normalization(name: str) -> None:
    parameters = make_parameters()
    before = {parameter.name: parameter.value.copy() for parameter in parameters}
    optimizer = make(name, lr=1e-4, weight_decay=0.5)
    optimizer.bind(parameters)
    optimizer.step(0, 1.0)  # all gradients are zero: decay alone acts
    for parameter in parameters:
        if parameter.name.endswith("weight"):
            assert (np.abs(parameter.value) < np.abs(before[parameter.name])).all()
        else:
            np.testing.assert_array_equal(parameter.value, before[parameter.name])


def test_a_group_with_weight_decay_decays_whatever_it_matches() -> None:
    parameters = make_parameters()
    before = {parameter.name: parameter.value.copy() for parameter in parameters}
    optimizer = SGD(
        lr=0.1, weight_decay=0.5, groups=[{"match": "gamma", "weight_decay": 1.0}, {"match": "bias", "lr": 1}]
    )
    optimizer.bind(parameters)
    optimizer.step(0, 1.0)
    kept = {"0.weight": 0.95, "2.weight": 0.95, "1.gamma": 0.9, "1.beta": 1, "0.bias": 1, "2.bias": 1}
    for parameter in parameters:
        np.testing.assert_allclose(parameter.value, kept[parameter.name] * before[parameter.name], rtol=1e-6)


def test_the_first_group_that_matches_wins_and_an_lr_of_zero_freezes() -> None:
    parameters = make_parameters()
    before = [parameter.value.copy() for parameter in parameters]
    optimizer = SGD(lr=0.1, groups=[{"match": "^2"}, {"match": "weight", "lr": 0}, {"match": ".", "lr": 10}])
    optimizer.bind(parameters)
    for parameter in parameters:
        parameter.grad[...] = 1
    optimizer.step(0, 0.5)
    moved = [float((old - parameter.value).mean()) for old, parameter in zip(before, parameters, strict=True)]
    assert moved == pytest.approx([0, 5, 5, 5, 0.05, 0.05], rel=1e-4)


def test_parameters_with_equal_options_share_one_flat_group() -> None:
    optimizer = SGD(lr=0.1, momentum=0.9)
    optimizer.bind(make_parameters())
    assert [len(group.parameters) for group in optimizer.bound] == [6]
    optimizer = SGD(lr=0.1, weight_decay=0.1)
    optimizer.bind(make_parameters())
    assert [[parameter.name for parameter in group.parameters] for group in optimizer.bound] == [
        ["0.weight", "2.weight"],
        ["0.bias", "1.gamma", "1.beta", "2.bias"],
    ]


def test_state_is_live_and_absent_where_there_is_no_momentum() -> None:
    parameters = make_parameters()
    optimizer = SGD(lr=0.1, momentum=0.9, groups=[{"match": r"^0\.", "momentum": 0}])
    optimizer.bind(parameters)
    state = optimizer.state()
    assert {key: array.shape for key, array in state.items()} == {
        f"momentum/{name}": shape for name, shape in SHAPES.items() if not name.startswith("0.")
    }
    fill_gradients(parameters, 0)
    optimizer.step(0, 1.0)
    for parameter in parameters[2:]:
        np.testing.assert_array_equal(state[f"momentum/{parameter.name}"], parameter.grad)


@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_state_that_does_not_fit_is_refused_and_changes_nothing(damage: str) -> None:
    optimizer = Adam()
    optimizer.bind(make_parameters())
    arrays = {key: np.ones_like(array) for key, array in optimizer.state().items()}
    if damage == "missing":
        del arrays["v/2.bias"]
    elif damage == "extra":
        arrays["v/3.bias"] = arrays["v/2.bias"]
    else:
        arrays["v/2.bias"] = np.ones(4, np.float32)
    with pytest.raises(CheckpointError, match=r"v/[23]\.bias"):
        optimizer.load_state(arrays)
    assert all((array == 0).all() for array in optimizer.state().values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", {"lr": -0.1}, r"lr -0.1 is not in \[0, inf\)"),
        ("sgd", {"lr": 0.0}, "lr 0"),
        ("sgd", {"lr": "0.1"}, "lr '0.1'"),
        ("sgd", {"lr": None}, "lr None"),
        ("sgd", {"lr": math.inf}, "lr inf"),
        ("sgd", {"lr": math.nan}, "lr nan"),
        ("sgd", {"momentum": 1.0}, r"momentum 1.0 is not in \[0, 1\)"),
        ("sgd", {"nesterov": True}, "nesterov needs a momentum"),
        ("sgd", {"weight_decay": -1}, "weight_decay -1"),
        ("adam", {"betas": (0.9, 1.0)}, "betas 1.0"),
        ("adam", {"eps": 0.0}, r"eps 0.0 is not in \(0, inf\)"),
        ("sgd", {"groups": [{"match": "a"}, {"match": "b", "momentun": 0}]}, r"groups\[1\].*did you mean 'momentum'"),
        ("sgd", {"groups": [{"lr": 1}]}, r"groups\[0\].*match"),
        ("sgd", {"groups": [{"match": 3}]}, r"groups\[0\].*match"),
        ("sgd", {"groups": [{"match": "("}]}, r"groups\[0\]"),
        ("sgd", {"groups": [{"match": "a", "lr": "fast"}]}, r"groups\[0\]: lr 'fast'"),
        ("sgd", {"groups": [{"match": "a", "lr": True}]}, r"groups\[0\]: lr True"),
        ("sgd", {"groups": [{"match": "a", "nesterov": 1}]}, r"groups\[0\]: nesterov 1"),
        ("adam", {"groups": [{"match": "a", "betas": [0.9]}]}, r"groups\[0\]: betas \[0.9\]"),
    ],
)
def test_senseless_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_groups_that_are_left_with_no_parameter_are_named() -> None:
    optimizer = SGD(lr=0.1, groups=[{"match": "bias"}, {"match": "biases"}, {"match": r"0\.bias"}])
    with pytest.raises(ConfigError) as caught:
        optimizer.bind(make_parameters())
    assert [problem.path for problem in caught.value.problems] == [
        "train.optimizer.groups[1].match",
        "train.optimizer.groups[2].match",
    ]
    assert "'biases'" in caught.value.problems[0].message
    assert "0.weight" in caught.value.problems[0].message


def test_a_pattern_with_too_many_repetitions_for_the_names_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "STEPS", 6)
    optimizer = SGD(lr=0.1, groups=[{"match": "bias"}, {"match": "^.*$"}])
    with pytest.raises(ConfigError) as caught:
        optimizer.check(make_parameters())
    assert caught.value.problems[0].path == "train.optimizer.groups[1].match"
    assert "too many repetitions" in caught.value.problems[0].message


def test_more_groups_than_anybody_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="there may be 100, not 101"):
        SGD(lr=0.1, groups=[{"match": "a"}] * 101)
