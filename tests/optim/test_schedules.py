"""Schedules: pure and sane for all steps; the curves they are named after."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnlite.optim.schedules import Constant, Cosine, Linear, OneCycle, Schedule, Step, schedules

TOTAL, PER_EPOCH = 60, 12
REQUIRED: dict[str, list[dict[str, Any]]] = {"step": [{"every": 1.5}, {"milestones": [1, 2.25]}]}
WARMUPS: list[dict[str, Any]] = [{}, {"warmup_epochs": 0.5}, {"warmup_steps": 7}, {"warmup_epochs": 9}]
EVERY = [(name, required | warmup) for name in schedules for required in REQUIRED.get(name, [{}]) for warmup in WARMUPS]


def factors(schedule: Schedule, total: int = TOTAL) -> list[float]:
    return [schedule.factor(step, total, PER_EPOCH) for step in range(total)]


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_every_schedule_is_a_pure_function_of_the_step(name: str, options: dict[str, Any]) -> None:
    schedule = schedules[name](**options)
    forwards, state = factors(schedule), repr(vars(schedule))
    steps = np.random.default_rng(0).permutation(TOTAL).tolist()
    shuffled = {step: schedule.factor(step, TOTAL, PER_EPOCH) for step in steps}
    assert [shuffled[step] for step in range(TOTAL)] == forwards
    assert repr(vars(schedule)) == state


@pytest.mark.parametrize(("name", "options"), EVERY)
@pytest.mark.parametrize(("total", "per_epoch"), [(1, 1), (60, 12), (5, 100), (100_000, 7)])
def test_every_schedule_is_finite_and_not_negative(
    name: str, options: dict[str, Any], total: int, per_epoch: int
) -> None:
    schedule = schedules[name](**options)
    for step in {0, 1, total // 2, total - 1, total, 2 * total}:  # beyond the end: a run that is extended
        factor = schedule.factor(step, total, per_epoch)
        assert type(factor) is float
        assert 0 <= factor <= 1
    assert schedule.factor(0, total, per_epoch) > 0


@pytest.mark.parametrize("options", [{"warmup_epochs": 0.75}, {"warmup_steps": 9}])
def test_warm_up_rises_linearly_and_the_curve_starts_after_it(options: dict[str, Any]) -> None:
    warm = factors(Constant(**options))
    assert warm[:9] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert warm[9:] == [1.0] * (TOTAL - 9)
    for cls in (Cosine, Linear):
        assert factors(cls(**options))[9:] == pytest.approx(factors(cls(), TOTAL - 9))


def test_step_counts_milestones_from_the_start_even_with_a_warm_up() -> None:
    values = factors(Step(milestones=[1, 2.5], gamma=0.5, warmup_epochs=0.25))
    assert values[3:] == [1.0] * 9 + [0.5] * 18 + [0.25] * 30


def test_step_every_hits_whole_multiples_of_a_fraction_of_an_epoch() -> None:
    values = [Step(every=0.1, gamma=0.5).factor(step, 10, 10) for step in range(10)]  # 0.3 / 0.1 < 3 in binary
    assert values == [0.5**step for step in range(10)]


def test_one_cycle_runs_through_its_three_corners() -> None:
    schedule = OneCycle(peak=0.25, start=0.2, end=0.1)
    corners = [schedule.factor(step, 400, PER_EPOCH) for step in (0, 50, 100, 250, 400)]
    assert corners == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1])


@pytest.mark.parametrize("peak", [0.0, 1.0])
def test_one_cycle_may_peak_at_either_end(peak: float) -> None:
    values = factors(OneCycle(peak=peak))
    assert values == sorted(values, reverse=peak == 0)
    assert max(OneCycle(peak=peak).factor(step, TOTAL, PER_EPOCH) for step in (0, TOTAL)) == 1


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_curves_equal_torch(final: float, torch: Any) -> None:
    rates = torch.optim.lr_scheduler
    pairs: list[tuple[Schedule, Callable[[Any], Any]]] = [
        (Cosine(final=final), lambda o: rates.CosineAnnealingLR(o, TOTAL, eta_min=final)),
        (Linear(final=final), lambda o: rates.LinearLR(o, 1.0, final, TOTAL)),
        (Step(every=1.5, gamma=0.3), lambda o: rates.StepLR(o, 18, 0.3)),
        (Step(milestones=[1, 3], gamma=0.3), lambda o: rates.MultiStepLR(o, [12, 36], 0.3)),
    ]
    for ours, make in pairs:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        theirs = make(optimizer)
        expected = []
        for _ in range(TOTAL):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        assert factors(ours) == pytest.approx(expected, rel=1e-9, abs=1e-12), ours


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *itertools.product(
            ["constant", "cosine"], [{"warmup_epochs": -1}, {"warmup_steps": -1}], [r"warmup.* -1 is not"]
        ),
        ("constant", {"warmup_epochs": 1, "warmup_steps": 1}, "not both"),
        ("cosine", {"final": 1.5}, r"final 1.5 is not in \[0, 1\]"),
        ("linear", {"final": math.nan}, "final nan is not"),
        ("one_cycle", {"peak": -0.1}, "peak -0.1 is not"),
        ("step", {}, "either milestones"),
        ("step", {"every": 1, "milestones": [1]}, "either milestones"),
        ("step", {"every": 0}, "either milestones"),
        ("step", {"every": -2}, "every -2 is not"),
        ("step", {"milestones": [1, -2]}, "milestones -2 is not"),
        ("step", {"every": 1, "gamma": 2}, "gamma 2 is not"),
    ],
)
def test_senseless_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedules[name](**options)
