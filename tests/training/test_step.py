"""Steps have the same bits on any number of workers and threads: every layer, optimizer and average, any batch size.

All networks make their steps in one team of each size, so that it is forked once; `watched_memory` lets faults show.
"""

import copy
import errno
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnlite.nn import network as networks
from cnnlite.nn.kernels import im2col, matmul, winograd
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.optim import SGD, AdamW, Composite, Member, Muon, Optimizer, optimizers
from cnnlite.optim.averaging import EMA, Lookahead
from cnnlite.optim.schedules import Linear as LinearSchedule
from cnnlite.runtime import arrays, engine, shards
from cnnlite.runtime.shared_team import WorkerError
from cnnlite.training import step as training_step
from cnnlite.training.step import Choice, Step
from tests.support.crews import CLASSES, crew, digest, make
from tests.support.layer_cases import Case, cases_of
from tests.support.optimizer_parts import FOR_ANY_SHAPE
from tests.support.watched_memory import Watch

SIZES = {3: 1, 8: 10, 2: 40, 4: 40}
"""Numbers of workers, and for each, that it is tried on every so manieth network: one of them on all."""
BATCHES = (19, 2, 9)
"""Sizes of batches: divisible and not, fewer samples than workers."""

Make = Callable[[], Step]


def after(case: Case, sizes: tuple[int, ...] = BATCHES) -> Step:
    """Steps of the layer of a case between convolutions or linear layers, so that gradients pass through it."""
    layer = layers[case.name](**copy.deepcopy(dict(case.options)))
    first: Layer = Conv2d(case.in_shape[-1], 1) if len(case.in_shape) == 3 else Linear(case.in_shape[-1])
    out_shape = case.out_shape()
    last: list[Layer] = [Linear(CLASSES)] if len(out_shape) == 1 else [Flatten(), Linear(CLASSES)]
    return make(Sequential([first, layer, *last]), case.in_shape, sizes)


def body() -> Layer:
    return Sequential([Conv2d(8, 3, padding=1), BatchNorm(), ReLU()])


def mixed(optimizer: Optimizer | None = None, **options: object) -> Step:
    """Steps of a network with a little of everything."""
    model = [
        *(Conv2d(8, 3, padding="same", bias=False), BatchNorm(), ReLU(), MaxPool2d(2)),
        Residual(body(), drop_probability=0.4),
        Parallel([Conv2d(8, 1), Sequential([])]),
        *(Dropout(0.1), Conv2d(16, 3, stride=2), MaxPool2d(2), BatchNorm(), GELU()),
        *(GlobalAvgPool2d(), Linear(7), BatchNorm(), Linear(CLASSES)),
    ]
    return make(Sequential(model), (12, 12, 3), (24, 3, 16, 1, 8, 19), optimizer, **options)  # type: ignore[arg-type]


def members() -> Optimizer:
    first = Member("^[01]", SGD(lr=0.1, momentum=0.5), LinearSchedule(), epochs=1)
    return Composite([first, Member("^[2-9].*weight$", Muon(lr=0.02)), Member(".", AdamW(lr=0.01))])


def wide(model: list[Layer], size: int = 8) -> Step:
    return make(Sequential([*model, Flatten(), Linear(CLASSES)]), (size, size, 24), BATCHES)


LAYERS: dict[str, Make] = {
    f"{case}-{number}": partial(after, case) for name in layers for number, case in enumerate(cases_of(name))
}
OTHERS: dict[str, Make] = {
    "one-sample": lambda: after(Case("conv2d", (9, 9, 3), {"out_channels": 4, "kernel_size": 3}), (1, 1, 2, 1)),
    "blocks": lambda: make(  # several to a shard
        Sequential([Conv2d(16, 3, padding=1), BatchNorm(), ReLU(), GlobalAvgPool2d(), Linear(CLASSES)]),
        *((32, 32, 8), (130, 8)),
    ),
    "mixed": mixed,
    "clipped": lambda: mixed(clip_norm=0.01),
    "soft targets": lambda: mixed(soft=True),
    "ema": lambda: mixed(averaging=EMA(0.9, every=2)),
    "lookahead": lambda: mixed(averaging=Lookahead(3)),
    "composite, frozen after an epoch": lambda: mixed(members(), clip_norm=0.1, averaging=EMA(0.5)),
    **{f"{name} optimizer": partial(lambda name: mixed(optimizers[name](lr=0.01)), name) for name in FOR_ANY_SHAPE},  # type: ignore[call-arg]
}
LARGE: dict[str, Make] = {
    name: make
    for name, make in LAYERS.items()
    if name.startswith(("conv2d", "linear", "residual", "parallel", "sequential"))
} | {
    "5x5": lambda: wide([Conv2d(8, 5, padding="same")]),
    "two in a row": lambda: wide([Conv2d(20, 3, padding="same"), Conv2d(24, 3, padding="same"), BatchNorm()]),
    "composite": OTHERS["composite, frozen after an epoch"],
    "mixed": mixed,
    "one-sample": OTHERS["one-sample"],
}
ALL = {"small weights": {**LAYERS, **OTHERS}, "large weights": LARGE}
AT_ANY_RATE = ("mixed", "one-sample", "composite", "composite, frozen after an epoch")
STEPS, MORE_STEPS = 3, 6

Found = dict[str, dict[str, str]]


def small_shards(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Divide small networks too; and let small weights be large."""
    monkeypatch.setattr(networks, "SHARD_WORK", 1)
    if way == "large weights":
        monkeypatch.setattr(matmul, "LARGE_WEIGHTS", 8)
        monkeypatch.setattr(matmul, "LARGE_SHARE", 0)
        monkeypatch.setattr(winograd, "LOCAL_WEIGHTS", 0)
        monkeypatch.setattr(winograd, "CHUNK_BYTES", 2**16)
        monkeypatch.setattr(im2col, "LARGE_WEIGHTS", 0)
        monkeypatch.setattr(im2col, "CHUNK_BYTES", 2**14)


def stepped(way: str, size: int, watch: Watch | None = None, *, every: int = 1) -> Found:
    """All that the steps of networks change, with ``size`` workers: of ``every`` so manieth, and a few at any rate."""
    some = {*list(ALL[way])[::every], *AT_ANY_RATE}
    steps = {name: make() for name, make in ALL[way].items() if name in some}
    with crew(list(steps.values()), size, watch) as call:
        for which, name in enumerate(steps):
            for step in range(STEPS if name in LAYERS else MORE_STEPS):
                outcome = call(which, step)
                assert math.isfinite(outcome.loss), name
    return {name: digest(step) for name, step in steps.items()}


@pytest.fixture(scope="module", params=list(ALL))
def way(request: pytest.FixtureRequest) -> str:
    """Whether weights are small or large."""
    return str(request.param)


@pytest.fixture(scope="module")
def expected(way: str) -> Found:
    """What one worker makes on one thread."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_shards(monkeypatch, way)
        engine.set_threads(1)
        return stepped(way, 1)


@pytest.mark.long
def test_spawned_workers_have_the_bits_of_one(
    way: str, expected: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch, way)
    monkeypatch.setenv("CNNLITE_WORKERS", "spawn")
    arrays._forget_chunk()
    assert differing(stepped(way, 3, every=20), expected) == []
    arrays._forget_chunk()


@pytest.mark.parametrize("size", list(SIZES))
def test_workers_have_the_bits_of_one(
    size: int, way: str, expected: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch, way)
    watch = Watch(monkeypatch, tmp_path / "faults")
    try:
        found = stepped(way, size, watch, every=SIZES[size])
    except WorkerError as error:
        pytest.fail(f"{error}\n{watch.faults()}")
    assert differing(found, expected) == []


@pytest.mark.parametrize(("threads", "every"), [(2, 40), (4, 2)])
def test_threads_have_the_bits_of_one(
    threads: int, every: int, way: str, expected: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch, way)
    engine.set_threads(threads)
    assert differing(stepped(way, 1, every=every), expected) == []


def differing(found: Found, expected: Found) -> list[str]:
    return [
        f"{name}: {', '.join(part for part in expected[name] if found[name].get(part) != expected[name][part])}"
        for name in found
        if found[name] != expected[name]
    ]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_hiring_and_dismissing_between_steps_changes_no_bit(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch, "small weights")
    monkeypatch.setenv("CNNLITE_WORKERS", start)
    arrays._forget_chunk()
    made = [mixed(members(), clip_norm=0.1, averaging=EMA(0.5)) for _ in range(2)]
    alone, other = made
    plan = {1: 3, 3: 1, 4: 2, 5: 8, 7: 2} if start == "fork" else {1: 2, 4: 1, 5: 3}
    for number in range(9):
        alone(number)
        if number in plan:
            other.hire(plan[number])
        if number == 8:
            other.dismiss()
            engine.set_threads(2)
        other(number)
        assert digest(other) == digest(alone), number


@pytest.mark.parametrize(("together", "size"), [(0.5, 3), (0.98, 1), (2.0, 1)])
def test_the_number_of_workers_is_chosen_by_timing_and_changes_no_bit(
    together: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch, "small weights")
    alone, other = mixed(), mixed()
    now = [0.0]

    def clock() -> float:
        now[0] += 0.05 * (together if other.team else 1.0)  # a step is between two looks at it
        return now[0]

    monkeypatch.setattr(training_step, "time", SimpleNamespace(perf_counter=clock))
    choice = Choice(other, None, 3)
    try:
        sizes = []
        for number in range(16):
            alone(number)
            choice(number)
            sizes.append(other.team.size if other.team else 1)
            assert digest(other) == digest(alone), number
        assert (sizes[0], sizes[-1], choice.settled) == (1, size, True)
        assert 3 in sizes
        assert choice.message.startswith(f"using {size} of 3 cores: a step takes 50.0 ms on one")
    finally:
        other.dismiss()


def test_the_choice_is_made_again_when_it_has_paid_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch, "small weights")
    step = mixed()
    now, pace = [0.0], {"together": 0.5}

    def clock() -> float:
        now[0] += 0.05 * (pace["together"] if step.team else 1.0)
        return now[0]

    monkeypatch.setattr(training_step, "time", SimpleNamespace(perf_counter=clock))
    choice = Choice(step, None, 2)
    messages = []
    try:
        for number in range(80):
            choice(number)
            messages.append(choice.message)
            choice.message = ""
            if number in (20, 40):
                assert choice.settled
                pace["together"] = 2.0  # another program came, and stays
                now[0] += training_step.LEAST_SECONDS * 100
        assert choice.settled
        assert step.team is None
    finally:
        step.dismiss()
    assert [message[:15] for message in messages if message] == ["using 2 of 2 co", "using 1 of 2 co"]


def test_workers_that_have_to_be_spawned_are_not_tried_in_the_first_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch, "small weights")
    monkeypatch.setenv("CNNLITE_WORKERS", "spawn")
    arrays._forget_chunk()
    now = [0.0]
    monkeypatch.setattr(training_step, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    step = mixed()
    choice = Choice(step, None, 2)
    hired: list[int] = []
    monkeypatch.setattr(step, "hire", lambda size: str(hired.append(size) or ""))  # type: ignore[func-returns-value]
    for number in range(20):
        choice(number)
    assert hired == [1]
    now[0] = training_step.SPAWNED_AFTER + 1
    choice(20)
    assert hired == [1, 2]


def test_where_no_process_can_be_started_threads_compute_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch, "small weights")

    def refused(*_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(training_step, "Workers", refused)
    alone, other = mixed(), mixed()
    found = other.hire(2)
    assert found.startswith("2 processes could not be started ([Errno 11] Resource temporarily unavailable): threads")
    assert (other.team, engine.threads()) == (None, 2)
    for number in range(3):
        alone(number)
        other(number)
    assert digest(other) == digest(alone)


def test_weights_that_workers_multiply_together_are_so_large_that_the_kernels_divide_tasks() -> None:
    # In lockstep, only tasks may write to what all share: so gradients have to be computed in chunks, by all.
    assert max(im2col.LARGE_WEIGHTS, shards.LARGE_SUM) <= 4 * matmul.LARGE_WEIGHTS
    assert matmul.LARGE_WEIGHTS >= 9 * winograd.LOCAL_WEIGHTS
