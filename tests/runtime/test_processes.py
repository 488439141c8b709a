"""How workers are started: the best way for each system, and the one that was asked for."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from cnnlite.errors import ConfigError
from cnnlite.runtime import arrays, engine, processes
from cnnlite.runtime.workers import Workers


@pytest.fixture(autouse=True)
def nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CNNLITE_WORKERS", raising=False)
    processes.fence.cache_clear()
    yield
    processes.fence.cache_clear()


def on(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    barrier = {"OSMemoryBarrier": lambda: None} if system == "darwin" else {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(**barrier))


@pytest.mark.parametrize(
    ("system", "machine", "way", "has_fence"),
    [
        ("linux", "x86_64", "fork", False),
        ("linux", "aarch64", "threads", False),  # no fence is known there
        ("linux", "riscv64", "threads", False),
        ("darwin", "x86_64", "spawn", False),
        ("darwin", "arm64", "spawn", True),
        ("win32", "AMD64", "spawn", False),
        ("win32", "ARM64", "threads", False),
        ("freebsd14", "amd64", "spawn", False),
    ],
)
def test_each_system_has_its_way(
    system: str, machine: str, way: str, has_fence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "memfd_create", lambda *_: 0, raising=False)
    on(monkeypatch, system, machine)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert processes.way() == way
    assert (processes.fence() is not None) == has_fence


def test_a_mac_whose_library_has_no_fence_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "darwin", "arm64")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert processes.way() == "threads"


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_without_the_global_lock_threads_are_best(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, system, "x86_64")
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert processes.way() == "threads"


def test_a_program_that_is_no_python_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "darwin", "x86_64")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert processes.way() == "threads"
    monkeypatch.setattr(sys, "frozen", False)
    assert processes.way() == "spawn"
    monkeypatch.setattr(sys, "executable", "")  # of a program that Python is a part of
    assert processes.way() == "threads"


@pytest.mark.parametrize("way", ["fork", "spawn", "threads"])
def test_the_way_that_is_asked_for_is_taken(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLITE_WORKERS", way)
    assert processes.way() == way


@pytest.mark.parametrize("asked", ["Fork", "2", "forkserver", "\x1b[2J" + "x" * 1000])
def test_a_way_that_does_not_exist_is_an_error_of_one_line(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLITE_WORKERS", asked)
    with pytest.raises(ConfigError, match=r"CNNLITE_WORKERS: .* is not fork .*, spawn or threads") as raised:
        processes.way()
    assert len(str(raised.value)) < 200
    assert "\x1b" not in str(raised.value)


def test_fork_cannot_be_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLITE_WORKERS", "fork")
    monkeypatch.delattr(os, "fork")
    with pytest.raises(ConfigError, match="not on Windows"):
        processes.way()


def test_an_empty_wish_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLITE_WORKERS", "")
    assert processes.way() == processes._best()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="watches a worker that is forked")
def test_a_meeting_has_fences_between_what_is_written_and_the_counter_and_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a processor changes the order of writes: the numbers, then that they are there; and reads, likewise."""
    monkeypatch.setenv("CNNLITE_WORKERS", "fork")
    arrays._forget_chunk()
    seen: list[tuple[int, int]] = []

    def meet(argument: int) -> int:
        team = engine.team()
        assert isinstance(team, Workers)
        counters = team._counters
        if team.index == 0:
            team._fence = lambda: seen.append((int(counters[3 * 8]), int(counters[4 * 8])))
        team.meet()
        return team._generation

    team = Workers(2, [meet], lambda index: None)
    try:
        generation = team.call(0, 0)
    finally:
        team._fence = None
        team.close()
    before, after = seen
    assert before[0] == generation - 1
    assert after[0] == generation
    assert after[1] >= generation  # it may already be where the next call begins


def test_shared_memory_without_files_is_found_not_to_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnlite.runtime import handover

    monkeypatch.setenv("CNNLITE_WORKERS", "spawn")
    arrays._forget_chunk()

    def refuse(self: handover.MemoryFile) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(handover.MemoryFile, "__init__", refuse)
    array = arrays.shared((3,), np.float32)
    arrays._forget_chunk()
    assert array.tolist() == [0, 0, 0]
    monkeypatch.undo()
    with pytest.raises(handover.HandoverError, match="only forked processes share"):
        handover.pack(array)
