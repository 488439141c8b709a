"""Workers: how they meet and exchange, and that no fault of one of them hangs the others or leaves one behind."""

import contextlib
import errno
import inspect
import itertools
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite import errors
from cnnlite.errors import CnnliteError, ConfigError, DivergedError, exit_code
from cnnlite.runtime import arrays, engine, processes, shards, shared_team, workers
from cnnlite.runtime.shared_team import WorkerError
from cnnlite.runtime.workers import Workers, supported
from cnnlite.utils.types import Array
from tests.support.portable import Portable
from tests.support.watched_memory import Watch

pytestmark = pytest.mark.skipif(not supported(), reason="workers are threads here")

SIZES = [("fork", 2), ("fork", 3), ("fork", 5), ("fork", 8), ("spawn", 3)]
SOON = 20
"""Seconds; it takes milliseconds, but on a busy machine."""
every_size = pytest.mark.parametrize(("way", "size"), SIZES, indirect=["way"])
either_way = pytest.mark.parametrize("way", ["fork", "spawn"], indirect=True)
Function = Callable[[int], Any]


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How workers are started."""
    way: str = getattr(request, "param", "fork")
    monkeypatch.setenv("CNNLITE_WORKERS", way)
    arrays._forget_chunk()  # which may not be for this way
    yield way
    arrays._forget_chunk()


@contextlib.contextmanager
def team(size: int, *functions: Function) -> Iterator[Workers]:
    if processes.way() == "spawn":
        functions = tuple(map(Portable, functions))
    made = Workers(size, functions, nothing)
    started = list(made.processes)
    try:
        yield made
    finally:
        made.close()
        for process in started:
            assert not is_running(process)
        assert engine.team().size == 1


def is_running(process: int) -> bool:
    """Whether a process is there, and no zombie."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def again(crew: Workers, argument: int, times: int) -> None:
    for _ in range(times):
        crew.call(0, argument)


def nothing(index: int) -> None:
    """A task."""


def me() -> int:
    return engine.team().index


# Meetings and exchanges


@every_size
def test_each_call_runs_in_every_worker_with_the_same_argument(size: int) -> None:
    seen = engine.shared((size, 3), np.int64)

    def note(argument: int) -> int:
        seen[me(), argument] += 1 + me()
        return me()

    with team(size, note, lambda argument: note(argument + 1)) as crew:
        assert crew.call(0, 0) == 0
        assert crew.call(1, 1) == 0
        assert crew.call(0, 1) == 0
    assert seen.tolist() == [[1 + index, 1 + index, 1 + index] for index in range(size)]


@every_size
def test_nobody_leaves_a_meeting_before_all_have_come(size: int) -> None:
    counts = engine.shared((size,), np.int64)

    def rounds(number: int) -> bool:
        fine = True
        for turn in range(1, 51):
            if (turn + me()) % 7 == 0:
                time.sleep(0.001 * me())
            counts[me()] = turn
            engine.team().meet()
            fine &= bool((counts >= turn).all())
            engine.team().meet()
            fine &= bool((counts == turn).all()) or turn == 50
            engine.team().meet()
        return all(engine.team().exchange(fine))

    with team(size, rounds) as crew:
        assert crew.call(0, 0)


@every_size
@pytest.mark.parametrize("width", [1, 7, shared_team._NUMBERS, 2 * shared_team._NUMBERS + 3])
def test_rows_are_gathered_in_the_order_of_the_shards(size: int, width: int) -> None:
    expected = np.random.default_rng(0).standard_normal((8, 1, width))

    def gather(number: int) -> bool:
        fine = True
        for turn in range(3):
            with shards.divided(50, 8) as division:
                own = expected[division.first : division.last] + turn
                found = shards.gather(own if shards.counts() else np.full((1, 1, width), np.nan))
            fine &= np.array_equal(found, expected + turn)
            found += 1  # its own, not what others still read
        return all(engine.team().exchange(fine))

    with team(size, gather) as crew:
        assert crew.call(0, 0)


@every_size
def test_objects_are_exchanged_in_the_order_of_the_workers(size: int) -> None:
    def exchange(number: int) -> bool:
        fine = True
        for length in (0, 3, 10**5, 1):
            found = engine.team().exchange(["x" * length, me(), None])
            fine &= found == [["x" * length, index, None] for index in range(engine.team().size)]
        return all(engine.team().exchange(fine))

    with team(size, exchange) as crew:
        assert crew.call(0, 0)
        assert crew.call(0, 0)


@every_size
def test_what_the_first_worker_makes_is_shared(size: int) -> None:
    def share(number: int) -> list[float]:
        def make() -> Array:
            assert me() == 0
            return np.full((2, 3), 1.5 * number)

        found = engine.team().share(make, (2, 3))
        sums: list[float] = engine.team().exchange(float(found.sum()))
        return sums

    with team(size, share) as crew:
        assert crew.call(0, 1) == [9.0] * size
        assert crew.call(0, 2) == [18.0] * size


@every_size
def test_in_lockstep_tasks_are_divided_and_arrays_shared(size: int) -> None:
    counts = engine.shared((40,), np.int64)

    def count(number: int) -> list[Any]:
        with shards.divided(20, 4), shards.lockstep():
            engine.run(lambda index: counts.__setitem__(index, counts[index] + 1), 40)
            found = engine.empty((40,), np.int64)
            engine.run(lambda index: found.__setitem__(index, index * number), 40)
            blocks = engine.for_blocks(lambda start, stop: (start, stop), 40, 10**6)
            total = int(found.sum())
        return engine.team().exchange((total, blocks))

    with team(size, count) as crew:
        found = crew.call(0, 3)
        assert [total for total, _ in found] == [3 * sum(range(40))] * size
        assert sorted(itertools.chain(*(blocks for _, blocks in found))) == list(engine.blocks(40, 10**6))
    assert counts.tolist() == [1] * 40


@every_size
def test_whole_batches_are_put_together_and_taken_apart(size: int) -> None:
    x = np.random.default_rng(0).standard_normal((13, 4), np.float32)

    def whole(number: int) -> bool:
        fine = True
        for _ in range(3):
            with shards.divided(13, 8) as division:
                gathered = shards.whole(x[division.own])
                fine &= np.array_equal(gathered, x)
                fine &= np.array_equal(shards.own(gathered), x[division.own])
                other = shards.whole(2 * x[division.own])
                fine &= np.array_equal(gathered, x) and np.array_equal(other, 2 * x)
        return all(engine.team().exchange(fine))

    with team(size, whole) as crew:
        assert crew.call(0, 0)


@every_size
def test_sums_and_collected_numbers_are_those_of_one(size: int) -> None:
    rng = np.random.default_rng(0)
    parts = (rng.standard_normal((8, 400_000)) * 10.0 ** rng.integers(-3, 3, (8, 1))).astype(np.float32)
    rows, out = engine.shared((size, 400_000), np.float32), engine.shared((400_000,), np.float32)

    def add_up(number: int) -> list[float]:
        with shards.divided(8, 8) as division:
            if shards.counts():
                own = parts[division.first : division.last].copy()
                rows[me()] = shards.sum_by_pairs(own)
            engine.team().meet()
            shards.add_up(rows, out)
            found = shards.collect(lambda index: index * 0.5, 30)
        numbers: list[float] = found.tolist()
        return numbers

    with team(size, add_up) as crew:
        assert crew.call(0, 0) == [0.5 * index for index in range(30)]
    np.testing.assert_array_equal(out, shards.sum_by_pairs(parts.copy()))


@either_way
def test_shared_slabs_are_used_again_once_nobody_refers_to_them() -> None:
    def fill(one: Array, other: Array, index: int) -> None:
        one[index] = other[index] = index

    def allocate(number: int) -> list[int]:
        with shards.divided(8, 2), shards.lockstep():
            for _ in range(20):
                one, other = engine.empty((100_000,)), engine.empty((100_000,))
                engine.run(partial(fill, one, other), 8)
                del one, other
        slabs = engine.team().slabs
        return engine.team().exchange(len(slabs._slabs))

    with team(2, allocate) as crew:
        assert crew.call(0, 0) == [2, 2]


def test_shared_memory_needs_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else []
    code = """
import os, sys
import numpy as np
from cnnlite.runtime import engine, shards
from cnnlite.runtime.workers import Workers
def fill(number):
    with shards.divided(8, 2), shards.lockstep():
        found = engine.empty((number,), np.uint8)
        engine.run(lambda index: found[index::8].fill(index), 8)
        return int(found[-1])
team = Workers(2, [fill], lambda index: None)
assert team.call(0, 80 * 2**20) == 7  # more than a container has in /dev/shm
maps = open("/proc/self/maps").read()
assert "/dev/shm" not in maps, maps
team.close()
print("fine")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr
    assert (sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else []) == before


# Faults


def in_worker(number: int, act: Callable[[], object]) -> Function:
    """A function in which one worker does something, and all meet."""

    def function(argument: int) -> str:
        if me() == number:
            act()
        engine.team().meet()
        return "done"

    return function


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


class StrangeError(CnnliteError):
    """An error that can be written down, but not read again."""

    def __init__(self, one: int, other: int):
        super().__init__(f"{one} and {other}")


class UnwritableError(CnnliteError):
    """An error that cannot be written down."""

    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


def too_large() -> MemoryError:
    """NumPy's own kind of it."""
    with pytest.raises(MemoryError) as raised:
        np.empty(2**60, np.uint8)
    return raised.value


ERRORS = [
    (DivergedError("the loss is not finite"), DivergedError, "the loss is not finite"),
    (ConfigError("one\ntwo"), ConfigError, "one\ntwo"),
    (MemoryError("Unable to allocate 3 GiB"), MemoryError, "Unable to allocate 3 GiB"),
    (too_large(), MemoryError, "Unable to allocate"),
    (ZeroDivisionError("a bug"), CnnliteError, "worker {} of 3 failed: ZeroDivisionError('a bug')"),
    (KeyboardInterrupt(), CnnliteError, "worker {} of 3 failed: KeyboardInterrupt()"),
    (OSError(12, "Cannot allocate memory"), CnnliteError, "worker {} of 3 failed: OSError(12, 'Cannot"),
    (SystemExit(3), CnnliteError, "worker {} of 3 failed: SystemExit(3)"),
    (StrangeError(1, 2), CnnliteError, "worker {} of 3 failed: StrangeError('1 and 2')"),
    (UnwritableError(), CnnliteError, "worker {} of 3 failed: UnwritableError('has a lock')"),
    (ValueError("x" * 10**6), CnnliteError, "worker {} of 3 failed: ValueError('xxx"),
    (ConfigError("x" * 10**6), CnnliteError, "worker {} of 3 failed: ConfigError('xxx"),
    (ValueError("\udcff\x1b[2J"), CnnliteError, "worker {} of 3 failed: ValueError("),
]


@pytest.mark.parametrize(
    ("way", "worker", "error", "kind", "text"),
    [
        *(("fork", worker, *error) for worker in (1, 2) for error in ERRORS),
        *(("spawn", 2, *error) for error in (ERRORS[0], ERRORS[4])),
    ],
    indirect=["way"],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_worker_fails_with_is_raised_by_the_first(
    error: BaseException, kind: type[BaseException], text: str, worker: int
) -> None:
    with team(3, in_worker(worker, raising(error))) as crew:
        began = time.monotonic()
        with pytest.raises(kind) as raised:
            crew.call(0, 0)
        assert time.monotonic() - began < SOON
    assert str(raised.value).startswith(text.format(worker))
    assert exit_code(raised.value) == exit_code(error)
    assert len(str(raised.value)) < 2000
    assert "\x1b" not in str(raised.value)
    notes = "".join(getattr(raised.value, "__notes__", []))
    assert f"in worker {worker}:\n  File " in notes
    assert "in act" in notes


@pytest.mark.parametrize(
    "error",
    [kind("text") for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CnnliteError)],
    ids=lambda error: type(error).__name__,
)
def test_expected_errors_keep_kind_text_and_exit_code(error: CnnliteError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), found.exit_code) == (type(error), str(error), error.exit_code)


def test_several_workers_may_fail_at_once() -> None:
    def fail(argument: int) -> None:
        if me():
            raise DivergedError(f"of worker {me()} " + "x" * 500)
        engine.team().meet()

    for _ in range(5):
        with team(8, fail) as crew, pytest.raises(DivergedError, match=r"^of worker \d x{500}\n"):
            crew.call(0, 0)


@pytest.mark.parametrize(
    ("way", "number"),
    [("fork", signal.SIGKILL), ("fork", signal.SIGSEGV), ("fork", signal.SIGABRT), ("spawn", signal.SIGKILL)],
    indirect=["way"],
)
@pytest.mark.parametrize("worker", [1, 2])
def test_a_worker_that_is_killed_is_named_within_seconds(worker: int, number: signal.Signals) -> None:
    def die() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)

    with team(3, in_worker(worker, die)) as crew:
        process, began = crew.processes[worker - 1], time.monotonic()
        with pytest.raises(WorkerError) as raised:
            crew.call(0, 0)
        assert time.monotonic() - began < SOON
    expected = f"worker {worker} of 3 (process {process}) was killed by {number.name}"
    reason = "; was there too little memory?" if number == signal.SIGKILL else ""
    assert str(raised.value) == expected + reason
    assert raised.value.exit_code == 5


@either_way
def test_a_worker_that_ends_by_itself_is_named() -> None:
    with team(2, in_worker(1, lambda: os._exit(7))) as crew, pytest.raises(WorkerError, match="ended with exit code 7"):
        crew.call(0, 0)


@either_way
def test_a_worker_killed_between_two_calls_is_found_by_the_next() -> None:
    with team(3, in_worker(9, int)) as crew:
        assert crew.call(0, 0) == "done"
        os.kill(crew.processes[1], signal.SIGKILL)
        with pytest.raises(WorkerError, match="worker 2 of 3"):
            again(crew, 0, 1000)


@either_way
def test_a_worker_killed_where_the_first_one_has_long_to_compute_is_found_when_it_asks() -> None:
    with team(2, in_worker(1, lambda: os.kill(os.getpid(), signal.SIGKILL))) as crew:
        crew._command(0, 0)

        def asks() -> bool:
            try:
                crew.attend()
            except WorkerError:
                return True
            return False

        crew._busy = True
        until(asks, seconds=5)


@either_way
def test_an_error_of_the_first_worker_ends_the_others_where_they_wait() -> None:
    def fail(argument: int) -> None:
        if me() == 0:
            raise KeyError("of the first")
        engine.team().meet()

    began = time.monotonic()
    with team(4, fail) as crew, pytest.raises(KeyError, match="of the first"):
        crew.call(0, 0)
    assert time.monotonic() - began < SOON


@either_way
def test_an_error_when_the_first_worker_is_done_is_no_hanging_end() -> None:
    def fail(argument: int) -> None:
        if me() == 2:
            raise ValueError("late")

    began = time.monotonic()
    with team(4, fail) as crew:
        crew.call(0, 0)
    assert time.monotonic() - began < SOON


def test_children_that_somebody_else_waits_for_are_gone_and_no_error_of_the_system() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with (
            team(3, in_worker(1, lambda: os._exit(0))) as crew,
            pytest.raises(WorkerError, match="is gone"),
        ):
            crew.call(0, 0)
        with team(3, in_worker(9, int)) as crew:
            assert crew.call(0, 0) == "done"
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("way", "stuck"),
    [(way, stuck) for way in ("fork", "spawn") for stuck in ("meeting", "computing", "stopped")],
    indirect=["way"],
)
def test_a_parent_that_is_killed_leaves_no_worker(stuck: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
import os, signal, time
from cnnlite.runtime import engine
from cnnlite.runtime.workers import Workers
def nothing(index):
    pass
def work(argument):
    if engine.team().index == 0 or {stuck!r} == "computing":
        time.sleep(1000)
    if {stuck!r} == "stopped" and engine.team().index == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    engine.team().meet()
def main():
    team = Workers(3, [work], nothing)
    print(*team.processes, flush=True)
    team.call(0, 0)
"""
    (tmp_path / "program.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, "-c", "import program; program.main()"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children = [int(word) for word in process.stdout.readline().split()]
    time.sleep(0.3)
    assert len(children) == 2
    assert all(map(is_running, children))
    process.kill()
    process.communicate()
    until(lambda: not any(map(is_running, children)), seconds=5)


def test_a_parent_that_is_killed_leaves_no_worker_where_the_system_does_not_see_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    before = os.dup(0)
    os.dup2(read, 0)
    try:
        process = os.fork()
        if not process:
            os.close(write)
            os.close(read)
            workers.end_with_input()
            time.sleep(100)
            os._exit(0)
    finally:
        os.dup2(before, 0)
        for descriptor in (before, read):
            os.close(descriptor)
    time.sleep(0.1)
    assert is_running(process)
    os.close(write)
    until(lambda: not is_running(process))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1


def test_where_no_more_processes_can_be_started_those_that_were_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, started = os.fork, list[int]()

    def refuse_the_third() -> int:
        if len(started) == 2:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(process := fork())
        return process

    monkeypatch.setattr(os, "fork", refuse_the_third)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        Workers(5, [int], lambda index: None)
    assert not any(map(is_running, started))
    assert engine.team().size == 1


@either_way
def test_memory_that_cannot_be_shared_is_a_memory_error() -> None:
    def allocate(argument: int) -> None:
        limit = (2**20, resource.getrlimit(resource.RLIMIT_FSIZE)[1])  # which counts for files in memory too
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        try:
            with shards.divided(8, 2), shards.lockstep():
                engine.empty((2**23,), np.uint8)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with (
        team(2, allocate) as crew,
        pytest.raises(MemoryError, match="8,388,608 bytes that workers share: File too large"),
    ):
        crew.call(0, 0)


@either_way
def test_a_signal_to_a_worker_is_noted_and_it_works_on() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with team(3, in_worker(9, int)) as crew:
            assert (crew.call(0, 0), crew.signal) == ("done", 0)
            os.kill(crew.processes[1], signal.SIGTERM)
            until(lambda: crew.signal == signal.SIGTERM)
            assert crew.call(0, 0) == "done"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with team(2, in_worker(9, int)) as crew:
            os.kill(crew.processes[0], signal.SIGTERM)
            assert (crew.call(0, 0), crew.signal) == ("done", 0)
    finally:
        signal.signal(signal.SIGTERM, before)


@either_way
def test_a_waiting_worker_leaves_the_core_to_others() -> None:
    def wait(argument: int) -> list[float]:
        before = time.process_time()
        if me() == 0:
            time.sleep(1.5)
        engine.team().meet()
        return engine.team().exchange(time.process_time() - before)

    with team(3, wait) as crew:
        _, *waiting = crew.call(0, 0)
    assert max(waiting) < 0.15, "of 1.5 seconds"


# What keeps workers from spoiling each other's work


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, late: int = 0) -> Iterator[tuple[Array, Watch]]:
    watch = Watch(monkeypatch, tmp_path / "faults", late)
    yield engine.shared((1000,), np.float32), watch


def spoil_by_reduction(shared: Array) -> None:
    np.add.reduce(np.ones((8, 1000), np.float32), out=shared)


def spoil_by_addition(shared: Array) -> None:
    with shards.lockstep():
        y = engine.empty((1000,))
        y += shared


def spoil_by_product(shared: Array) -> None:
    np.matmul(np.ones((10, 10), np.float32), np.ones((10, 100), np.float32), out=shared.reshape(10, 100))


def spoil_by_an_old_view(shared: Array) -> None:
    shared[3:5].reshape(2, 1)[...] = 0


def spoil_in_a_task_of_its_own(shared: Array) -> None:
    engine.run(lambda index: shared.__setitem__(index, 1.0), 8)


@pytest.mark.parametrize(
    "spoil",
    [spoil_by_reduction, spoil_by_addition, spoil_by_product, spoil_by_an_old_view, spoil_in_a_task_of_its_own],
)
def test_a_write_to_shared_memory_outside_of_a_task_ends_the_worker(
    spoil: Callable[[Array], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with watched(monkeypatch, tmp_path) as (shared, watch):

        def function(argument: int) -> None:
            with shards.divided(8, 8):
                spoil(shared)
            engine.team().meet()

        with team(2, function) as crew, pytest.raises(WorkerError, match=r"worker 1 of 2 .* was killed by SIGSEGV"):
            crew.call(0, 0)
        assert f"in {spoil.__name__}" in watch.faults() or "in <lambda>" in watch.faults()


def test_tasks_may_write_to_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with watched(monkeypatch, tmp_path) as (shared, watch):

        def function(argument: int) -> None:
            with shards.divided(8, 8), shards.lockstep():
                engine.for_blocks(lambda start, stop: shared[start:stop].fill(argument), 1000, 10**5)

        with team(3, function) as crew:
            crew.call(0, 5)
        assert watch.faults() == ""
        assert (shared == 5).all()


def test_a_meeting_left_out_gives_other_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows, out = engine.shared((2, 1000), np.float32), engine.shared((1000,), np.float32)
    with watched(monkeypatch, tmp_path, late=2):

        def function(meets: int) -> None:
            with shards.divided(8, 8):
                engine.team().meet()
                rows[me()] = 1 + me()
                if meets:
                    engine.team().meet()
                shards.add_up(rows, out)
                engine.team().meet()
                rows[me()] = 0

        with team(2, function) as crew:
            found = {}
            for meets in (1, 0):
                sums = set()
                for _ in range(20):
                    crew.call(0, meets)
                    sums |= set(out.tolist())
                found[meets] = sums
    assert found[1] == {3.0}
    assert len(found[0]) > 1


@either_way
def test_workers_that_come_to_different_meetings_are_an_error() -> None:
    def function(argument: int) -> None:
        with shards.divided(8, 8), shards.lockstep():
            engine.run(nothing, 8 + me() * argument)
            engine.run(nothing, 8)

    with team(3, function) as crew:
        crew.call(0, 0)
        with pytest.raises(WorkerError, match=r"worker . of 3 has done something else than the first one"):
            crew.call(0, 1)


@either_way
def test_workers_whose_shared_arrays_are_at_different_places_are_an_error() -> None:
    kept: list[Array] = []

    def function(argument: int) -> None:
        with shards.divided(8, 8), shards.lockstep():
            for _ in range(3):
                array = engine.empty((50_000,))
                if argument and me() == 1:
                    kept.append(array)  # so that it has to go elsewhere next time
                del array
            engine.run(nothing, 8)

    with team(2, function) as crew:
        crew.call(0, 0)
        with pytest.raises(WorkerError, match="worker 1 of 2 has done something else than the first one"):
            again(crew, 1, 2)  # the worker finds out when the first one has left their last meeting


def test_shared_memory_is_what_those_forked_later_have_in_common() -> None:
    one, other = engine.shared((3,), np.float32), engine.shared((2, 2), np.float64)
    process = os.fork()
    if not process:
        one[...] = 1
        other[...] = 2
        mine = arrays.shared((3,), np.float32)  # not where the other process puts its next one
        mine[...] = 9
        os._exit(0)
    theirs = arrays.shared((3,), np.float32)
    assert os.waitpid(process, 0)[1] == 0
    assert (one.tolist(), other.tolist()) == ([1.0] * 3, [[2.0] * 2] * 2)
    assert theirs.tolist() == [0.0] * 3
