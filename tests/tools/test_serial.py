"""What counts as parallel work: several tasks, and what is done of several shards."""

import time

import numpy as np
import pytest

from cnnlite.runtime import engine, shards
from cnnlite.tools.serial import SerialClock
from cnnlite.utils.types import Array


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SerialClock:
    """A clock on which time passes in `work` alone."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    made = SerialClock()
    made.now = now  # type: ignore[attr-defined]
    return made


def serial(clock: SerialClock, pieces: int, lockstep: bool, count: int) -> list[float]:
    """Of 1 second in each of a layer, a task, a block and a sum over shards, what is serial; and all of it."""

    def work(*_: object) -> None:
        clock.now[0] += 1.0  # type: ignore[attr-defined]

    def write(start: int, stop: int, out: Array) -> None:
        work()
        out[...] = 0

    with clock.running(), shards.divided(8, pieces), shards.lockstep(lockstep):
        start, found = clock(), []
        for part in (
            work,
            lambda: engine.run(work, count),
            lambda: engine.for_blocks(work, count, 1),
            lambda: engine.for_blocks(work, count, engine.BLOCK_BYTES),
            lambda: shards.sum_over_shards(write, 8, np.zeros(3, np.float32)),
        ):
            before = clock()
            part()
            found.append(float((clock() - before)[1]))
        assert (clock() - start)[1] == sum(found)
    return found


def test_of_several_shards_all_is_parallel_that_is_not_done_by_the_layer_itself(clock: SerialClock) -> None:
    assert serial(clock, 4, False, 1) == [1, 0, 0, 0, 0]


def test_in_lockstep_only_several_tasks_are(clock: SerialClock) -> None:
    assert serial(clock, 4, True, 1) == [1, 1, 1, 1, 1]
    assert serial(clock, 4, True, 3) == [1, 0, 1, 0, 1]


def test_of_one_shard_only_several_tasks_are(clock: SerialClock) -> None:
    assert serial(clock, 1, False, 1) == [1, 1, 1, 1, 1]
    assert serial(clock, 1, False, 3) == [1, 0, 1, 0, 1]


def test_a_task_inside_of_another_counts_once_and_an_error_ends_it(clock: SerialClock) -> None:
    before = engine.run, engine.for_blocks, shards.sum_over_shards

    def fail(index: int) -> None:
        clock.now[0] += 1.0  # type: ignore[attr-defined]
        raise KeyError

    with clock.running():
        start = clock()
        engine.run(lambda index: engine.run(lambda inner: None, 2), 2)
        with pytest.raises(KeyError):
            engine.run(lambda index: engine.run(fail, 2), 2)
        clock.now[0] += 5.0  # type: ignore[attr-defined]
        assert (clock() - start).tolist() == [6.0, 5.0]
    assert (engine.run, engine.for_blocks, shards.sum_over_shards) == before
