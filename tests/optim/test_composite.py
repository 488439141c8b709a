"""Several optimizers side by side: who gets what, whose schedule counts, and what a bad config is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cnnlite.config.load import config_from_data, load_config
from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.optim import SGD, Composite, Member, Muon
from cnnlite.optim.base import gradient_norm, scale_gradients
from cnnlite.optim.schedules import Constant, Linear
from cnnlite.utils.types import Array
from tests.support.optimizer_parts import fill_gradients, make_parameters
from tests.support.small_runs import TINY


def members() -> list[Member]:
    return [
        Member("^0.bias", SGD(lr=1.0, momentum=0.5), Linear(), epochs=1.5),
        Member("weight$", Muon(lr=0.1)),
        Member(".", SGD(lr=0.5), Linear()),
    ]


def moves(steps: range, optimizer: Composite) -> dict[str, list[Array]]:
    """How far each step moves each parameter, with gradients of 1 and 0.5 as the factor of the training's schedule."""
    parameters = make_parameters()
    optimizer.bind(parameters)
    found: dict[str, list[Array]] = {parameter.name: [] for parameter in parameters}
    for step in steps:
        before = [parameter.value.copy() for parameter in parameters]
        for parameter in parameters:
            parameter.grad[...] = 1
        optimizer.step(step, 0.5)
        for parameter, old in zip(parameters, before, strict=True):
            found[parameter.name].append(old - parameter.value)
    return found


def test_each_parameter_goes_to_the_first_member_that_matches_with_that_member_s_schedule() -> None:
    optimizer = Composite(members())
    optimizer.plan(total_steps=10, steps_per_epoch=4)
    found = moves(range(10), optimizer)
    # gamma: the last member, linear over 10 steps; the training's factor does not count
    falling = [0.5 * (1 - step / 10) for step in range(10)]
    np.testing.assert_allclose([move[0] for move in found["1.gamma"]], falling, rtol=1e-4)
    # the first bias: linear over 1.5 epochs of 4 steps, with momentum; then it rests, momentum or not
    speed, expected = 0.0, []
    for step in range(10):
        speed = 0.5 * speed + 1
        expected.append(speed * (1 - step / 6) if step < 6 else 0)
    np.testing.assert_allclose([move[0] for move in found["0.bias"]], expected, rtol=1e-4)
    np.testing.assert_array_equal(found["0.bias"][6:], 0)
    # weights: no schedule of their own, so the training's factor
    alone = Muon(lr=0.1)
    weights = make_parameters({"0.weight": (3, 3, 2, 4), "2.weight": (4, 3)})
    alone.bind(weights)
    weights[0].grad[...] = weights[1].grad[...] = 1
    before = weights[0].value.copy()
    alone.step(0, 0.5)
    np.testing.assert_allclose(found["0.weight"][0], before - weights[0].value, atol=1e-6)


def test_without_a_plan_every_member_has_the_factor_it_is_given() -> None:
    found = moves(range(20), Composite(members()))
    np.testing.assert_allclose([move[0] for move in found["1.gamma"]], [0.25] * 20, rtol=1e-4)
    assert found["0.bias"][19][0] > 0


def test_the_rate_is_that_of_the_member_with_most_numbers() -> None:
    optimizer = Composite(members())
    optimizer.bind(make_parameters())
    assert optimizer.rate(3, 0.5) == pytest.approx(0.05)
    assert optimizer.rates(3, 0.5) == pytest.approx({"^0.bias": 0.5, "weight$": 0.05, ".": 0.25})
    ending = Composite([Member(".", SGD(lr=1.0), Constant(), epochs=1)])
    ending.bind(make_parameters())
    ending.plan(10, 4)
    assert [ending.rate(step, 0.5) for step in (0, 3, 4)] == [1, 1, 0]


def test_a_member_is_finished_from_the_end_of_its_time_on() -> None:
    optimizer = Composite(members())
    optimizer.bind(make_parameters())
    assert optimizer.finished(100) == []  # nobody said how long the training is
    optimizer.plan(total_steps=10, steps_per_epoch=4)
    assert [[parameter.name for parameter in optimizer.finished(step)] for step in (5, 6, 9)] == [
        [],
        ["0.bias"],
        ["0.bias"],
    ]


def test_state_and_gradients_are_those_of_all_members() -> None:
    parameters = make_parameters()
    optimizer = Composite(members())
    optimizer.bind(parameters)
    fill_gradients(parameters, 0)
    total = sum(float((parameter.grad.astype(np.float64) ** 2).sum()) for parameter in parameters)
    assert gradient_norm(optimizer.bound) == pytest.approx(np.sqrt(total), rel=1e-6)
    scale_gradients(optimizer.bound, 0.5)
    assert gradient_norm(optimizer.bound) == pytest.approx(np.sqrt(total) / 2, rel=1e-6)
    assert optimizer.state().keys() == {"momentum/0.bias", "momentum/0.weight", "momentum/2.weight"}
    optimizer.step(0, 1.0)
    saved = {name: array.copy() for name, array in optimizer.state().items()}
    other = Composite(members())
    other.bind(make_parameters())
    other.load_state(saved)
    np.testing.assert_array_equal(other.state()["momentum/0.bias"], saved["momentum/0.bias"])
    del saved["momentum/0.bias"]
    with pytest.raises(CheckpointError, match=r"momentum/0\.bias is missing"):
        other.load_state(saved)


def test_members_without_parameters_and_parameters_without_members_are_named() -> None:
    optimizer = Composite([Member("bias", SGD(lr=1)), Member("0.bais", SGD(lr=1)), Member("^2", SGD(lr=1))])
    with pytest.raises(ConfigError) as caught:
        optimizer.bind(make_parameters())
    first, second = caught.value.problems
    assert first.path == "train.optimizer.members[1].match"
    assert "'0.bais' matches no parameter that is left (names: 0.weight, 0.bias" in first.message
    assert second.path == "train.optimizer.members"
    assert "none matches 0.weight, 1.gamma, 1.beta; add a last member with match: ." in second.message


@pytest.mark.parametrize(
    ("optimizer", "bound"),
    [
        (Composite([Member("weight", SGD(lr=1)), Member("nothing", SGD(lr=1))]), False),
        (Composite([Member(".", SGD(lr=1, groups=[{"match": "nothing"}]))]), False),
        (Composite([Member(".", Muon(lr=1))]), False),
        (Composite([Member("weight", Muon(lr=1)), Member(".", SGD(lr=1))]), True),
    ],
)
def test_a_check_finds_what_binding_would_and_moves_nothing(optimizer: Composite, bound: bool) -> None:
    parameters = make_parameters()
    arrays = [parameter.value for parameter in parameters]
    if bound:
        optimizer.check(parameters)
    else:
        with pytest.raises(ConfigError) as checked:
            optimizer.check(parameters)
        with pytest.raises(ConfigError) as caught:
            optimizer.bind(parameters)
        assert checked.value.problems == caught.value.problems
    assert all(parameter.value is array for parameter, array in zip(parameters, arrays, strict=True))
    assert not hasattr(optimizer, "bound")


def composite(*listed: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(TINY)
    data["train"]["optimizer"] = {"composite": {"members": list(listed)}}
    return data


SGD_ = {"sgd": {"lr": 1}}
PLACE = "train.optimizer.composite.members"


@pytest.mark.parametrize(
    ("listed", "path", "message"),
    [
        ([], PLACE, "at least one"),
        ([{"match": "(", "optimizer": SGD_}], f"{PLACE}[0].match", "not a regular expression"),
        ([{"match": r"(a)\1", "optimizer": SGD_}], f"{PLACE}[0].match", "groupref is not known here"),
        ([{"match": "a", "optimizer": SGD_}] * 101, f"{PLACE}", "there may be 100, not 101"),
        ([{"match": "a"}], f"{PLACE}[0]", "'optimizer' is missing"),
        ([{"match": "a", "optimizer": {"sgb": {}}}], f"{PLACE}[0].optimizer", "did you mean 'sgd'"),
        ([{"match": "a", "optimizer": {"sgd": {"grops": 1}}}], f"{PLACE}[0].optimizer.sgd.grops", "mean 'groups'"),
        ([{"match": "a", "optimizer": SGD_, "shedule": "linear"}], f"{PLACE}[0].shedule", "did you mean 'schedule'"),
        ([{"match": "a", "optimizer": SGD_, "schedule": "linaer"}], f"{PLACE}[0].schedule", "did you mean 'linear'"),
        ([{"match": "a", "optimizer": SGD_, "epochs": 3}], f"{PLACE}[0].epochs", "a schedule of its own"),
        ([{"match": "a", "optimizer": SGD_, "schedule": "linear", "epochs": 0}], f"{PLACE}[0].epochs", "above 0"),
        ([{"match": "a", "optimizer": {"composite": {"members": [{"match": "b", "optimizer": SGD_}]}}}],
         f"{PLACE}[0].optimizer", "not a member of another"),
    ],
)  # fmt: skip
def test_a_bad_config_is_told_place_and_way_out(listed: list[Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_data(composite(*listed))
    problem = caught.value.problems[0]
    assert problem.path == path
    assert message in problem.message


def test_errors_of_a_member_found_later_name_its_place_too() -> None:
    muon = {"match": ".", "optimizer": {"muon": {"lr": 0.1}}}
    config = config_from_data(composite(muon))
    with pytest.raises(ConfigError) as caught:
        config.train.optimizer.bind(make_parameters())
    assert caught.value.problems[0].path == f"{PLACE}[0].optimizer.muon"


def test_a_resolved_config_reads_back_as_the_same(tmp_path: Path) -> None:
    first = {"match": "a", "optimizer": SGD_, "schedule": {"linear": {"final": 0.1}}, "epochs": 2}
    config = config_from_data(composite(first, {"match": ".", "optimizer": {"muon": {"lr": 0.1}}}))
    again = config_from_data(config.resolved)
    assert again.resolved == config.resolved
    written = config.resolved["train"]["optimizer"]["composite"]["members"]
    assert written[1]["schedule"] is None
    assert written[1]["optimizer"]["muon"]["iterations"] == 5
    optimizer = load_config("speedrun-94").train.optimizer
    assert isinstance(optimizer, Composite)
    assert [member.epochs for member in optimizer.members] == [0.19, None, None, None]
