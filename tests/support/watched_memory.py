"""Faults of workers made to show: writes to shared memory outside of tasks end one, missing meetings change bits.

All workers run the same code, so that a write to shared memory outside of a task is made by all of them at once, where
even the same values pass through others on their way. Here every worker but the first may write to shared memory only
inside of the tasks that `engine.run` divides among them: anywhere else it is read-only, by its pages, whatever the view
and whoever writes, and the worker ends with a SIGSEGV and the line in a file. A worker that does not wait where it has
to is found by letting others be late: each worker is late at moments of its own.
"""

import contextlib
import ctypes
import faulthandler
import functools
import mmap
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.runtime import arrays, engine, shards, shared_team
from cnnlite.runtime.shared_team import SharedSlabs
from cnnlite.runtime.workers import Workers
from cnnlite.utils.types import Array

READ, WRITE = 1, 2
SLABS, CHUNK = 2**28, 2**26
"""Bytes of memory taken at once: few places, as each task opens and closes them all."""
LATE = 3e-3
"""Seconds that a worker is late at most."""

_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class Watch:
    """Memory that is shared from now on, and who may write to it.

    Args:
        monkeypatch: what is replaced by it is put back after the test.
        log: where a worker that writes where it must not says which line that was.
        late: one of so many meetings and tasks of a worker is late; 0 for none.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path, late: int = 100):
        self.log, self.late = log, late
        self._places: list[tuple[int, int]] = []
        self._held: list[mmap.mmap] = []
        self._slabs: mmap.mmap | None = None
        self._end = 0
        self._is_watched = self._is_open = False
        self._recording = True
        self._chance = random.Random(0)
        arrays._forget_chunk()
        monkeypatch.setattr(shared_team, "YIELDS", 20)  # there are more workers than cores: none should wait awake
        monkeypatch.setattr(arrays, "_fresh", lambda size: self._map(-1, max(size, CHUNK)))
        monkeypatch.setattr(SharedSlabs, "allocate", lambda _, size: self._allocate(size))
        monkeypatch.setattr(Workers, "__init__", self._begin(Workers.__init__))
        monkeypatch.setattr(Workers, "meet", self._meet(Workers.meet))
        monkeypatch.setattr(Workers, "exchange", self._opening(Workers.exchange))
        monkeypatch.setattr(shards, "whole", self._opening(shards.whole))
        monkeypatch.setattr(engine, "run", self._run(engine.run))

    def faults(self) -> str:
        """Where a worker wrote what it must not."""
        return self.log.read_text() if self.log.exists() else ""

    def _map(self, file: int, size: int, **options: Any) -> mmap.mmap:
        memory = mmap.mmap(file, size, **options)
        if self._recording:
            self._held.append(memory)  # so that nothing else comes to lie there
            self._places.append((np.frombuffer(memory, np.uint8).__array_interface__["data"][0], size))
            if self._is_watched and not self._is_open:
                self._protect(READ)
        return memory

    def _allocate(self, size: int) -> Array:
        """A slab in a mapping of all of them, where that of `SharedSlabs` makes one for each."""
        if self._slabs is None:
            file = engine.team().slabs._file.handle  # type: ignore[attr-defined]
            os.ftruncate(file, SLABS)
            self._slabs = self._map(file, SLABS)
        start, self._end = self._end, self._end + -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return np.frombuffer(self._slabs, np.uint8, size, start)[:]

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Leave out what is allocated inside the block: shared memory of which each worker has a part of its own."""
        arrays._forget_chunk()
        self._recording = False
        try:
            yield
        finally:
            arrays._forget_chunk()
            self._recording = True

    def _begin(self, begin: Callable[..., None]) -> Callable[..., None]:
        def init(team: Workers, size: int, functions: Any, prepare: Callable[[int], None]) -> None:
            def prepared(index: int) -> None:
                prepare(index)
                self._chance.seed(index)
                if index:
                    self._watch()

            self._slabs, self._end = None, 0
            with self.off():
                begin(team, size, functions, prepared)

        return init

    def _watch(self) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(open(self.log, "a"))  # noqa: SIM115 (until this process ends)
        self._is_watched = self._recording = True
        self._protect(READ)

    def _protect(self, how: int) -> None:
        for start, size in self._places:
            if _mprotect(start, size, how):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let this worker write inside the block."""
        if not self._is_watched or self._is_open:
            yield
            return
        self._is_open = True
        self._protect(READ | WRITE)
        try:
            yield
        finally:
            self._is_open = False
            self._protect(READ)

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with self.open():
                return function(*arguments, **options)

        return call

    def _run(self, run: Callable[..., None]) -> Callable[..., None]:
        def watched(task: Callable[[int], None], count: int) -> None:
            if not engine.is_in_lockstep() or engine.team().size == 1:
                run(task, count)
                return

            def late(index: int) -> None:
                self._dawdle()
                with self.open():
                    task(index)

            run(late, count)

        return watched

    def _meet(self, meet: Callable[[Workers, int], None]) -> Callable[[Workers, int], None]:
        def late(team: Workers, mark: int = 0) -> None:
            self._dawdle()
            meet(team, mark)
            self._dawdle()

        return late

    def _dawdle(self) -> None:
        if self.late and not self._chance.randrange(self.late):
            time.sleep(self._chance.random() * LATE)
