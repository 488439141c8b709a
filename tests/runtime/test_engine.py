import os
import threading

import numpy as np
import pytest

from cnnlite.runtime import engine, shards
from cnnlite.runtime.team import Team

every_count = pytest.mark.parametrize("threads", [1, 2, 4])


@pytest.mark.parametrize("item_bytes", [0, 1, 1000, 100_000, 600_000, 10**9])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 100, 128, 10_001])
def test_blocks_are_consecutive_and_cover_every_item_once(count: int, item_bytes: int) -> None:
    bounds = engine.blocks(count, item_bytes)
    assert [start for start, _ in bounds] == [0] + [stop for _, stop in bounds[:-1]]
    assert bounds[-1][1] == count
    assert all(start < stop for start, stop in bounds)
    largest = max(stop - start for start, stop in bounds)
    assert largest == 1 or largest * item_bytes <= 2 * engine.BLOCK_BYTES


def test_small_work_is_one_block_and_large_work_is_several() -> None:
    assert len(engine.blocks(16, 1000)) == 1
    assert len(engine.blocks(128, engine.BLOCK_BYTES)) == 128
    assert len(engine.blocks(4, engine.BLOCK_BYTES)) == 4


@pytest.mark.parametrize("least", [1, 3, 10, 200])
def test_blocks_have_as_many_items_as_asked_for_at_least(least: int) -> None:
    bounds = engine.blocks(100, 10**6, least)
    assert min(stop - start for start, stop in bounds) >= min(least, 100)
    assert (bounds[0][0], bounds[-1][1]) == (0, 100)


@pytest.mark.parametrize(("count", "item_bytes"), [(1, 10), (128, 50_000), (10_000, 3000)])
def test_blocks_do_not_depend_on_the_number_of_threads(count: int, item_bytes: int) -> None:
    bounds = []
    for threads in (1, 2, 4):
        engine.set_threads(threads)
        seen: list[tuple[int, int]] = []
        engine.for_blocks(lambda *block: seen.append(block), count, item_bytes)  # noqa: B023
        bounds.append(sorted(seen))
    assert bounds[0] == bounds[1] == bounds[2] == list(engine.blocks(count, item_bytes))


@every_count
@pytest.mark.parametrize("count", [100, 10_000])
def test_what_blocks_return_comes_in_their_order(count: int, threads: int) -> None:
    engine.set_threads(threads)
    other_is_done = threading.Event()

    def task(start: int, stop: int) -> tuple[int, int]:
        if start or threads == 1:
            other_is_done.set()
        assert other_is_done.wait(timeout=20)
        return start, stop

    assert engine.for_blocks(task, count, 50_000) == list(engine.blocks(count, 50_000))


@every_count
@pytest.mark.parametrize("count", [0, 1, 2, 5, 1000])
def test_run_calls_every_task_once(count: int, threads: int) -> None:
    engine.set_threads(threads)
    for _ in range(20):
        calls = np.zeros(count, np.int64)

        def task(index: int) -> None:
            calls[index] += 1  # noqa: B023

        engine.run(task, count)
        assert (calls == 1).all()


def test_tasks_run_at_the_same_time_on_different_threads() -> None:
    engine.set_threads(3)
    meeting = threading.Barrier(3)
    engine.run(lambda _: (meeting.wait(timeout=20), None)[1], 3)


@every_count
def test_the_error_of_a_task_is_raised_and_the_pool_works_on(threads: int) -> None:
    engine.set_threads(threads)

    def fail(index: int) -> None:
        if index == 5:
            raise ZeroDivisionError(f"task {index}")

    for _ in range(10):
        with pytest.raises(ZeroDivisionError, match="task 5"):
            engine.run(fail, 40)
    done: list[int] = []
    engine.run(done.append, 40)
    assert sorted(done) == list(range(40))


def test_a_task_may_hand_out_work_itself() -> None:
    engine.set_threads(2)
    totals = np.zeros(8, np.int64)

    def outer(index: int) -> None:
        parts = np.zeros(5, np.int64)
        engine.run(lambda inner: parts.__setitem__(inner, inner), 5)
        totals[index] = parts.sum()

    thread = threading.Thread(target=engine.run, args=(outer, 8), daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive(), "waits for itself"
    assert (totals == 10).all()


def test_the_number_of_threads_can_be_set_and_must_be_positive() -> None:
    for threads in (4, 2, 1):
        engine.set_threads(threads)
        assert engine.threads() == threads
    engine.set_threads(None)
    assert engine.threads() == engine.available_cores() >= 1
    for threads in (0, -1):
        with pytest.raises(ValueError, match=f"threads must be at least 1, not {threads}"):
            engine.set_threads(threads)


def test_threads_of_a_smaller_pool_go_away() -> None:
    engine.set_threads(4)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]
    assert len(workers) >= 3
    engine.set_threads(1)
    for thread in workers:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_where_no_more_threads_can_be_started_fewer_compute_the_same_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.set_threads(1)
    start, started = threading.Thread.start, list[threading.Thread]()

    def refuse_the_third(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    said = engine.set_threads(8)
    assert said.startswith("only 3 of 8 threads could be started (ulimit -u, pids.max, memory)")
    assert engine.threads() == 3
    assert engine.for_blocks(lambda begin, end: (begin, end), 8, 2**22) == list(engine.blocks(8, 2**22))
    assert engine.set_threads(3) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_forked_in_the_middle_of_a_step_begins_alone() -> None:
    class Two(Team):
        size = 2

        def meet(self, mark: int = 0) -> None:
            raise AssertionError("waits for workers of another process")

    with shards.divided(8, 4):
        engine.set_team(Two())
        try:
            with engine.in_lockstep(True):
                process = os.fork()
                if not process:
                    done: list[int] = []
                    try:
                        engine.run(done.append, 2)
                        alone = engine.team().size == 1 and not engine.is_in_lockstep() and shards.total(3) == 3
                    finally:
                        os._exit(0 if alone and done == [0, 1] else 1)
        finally:
            engine.set_team(Team())
    assert os.waitpid(process, 0)[1] == 0
