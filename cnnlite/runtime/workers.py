"""Workers: processes forked from this one, which make training steps together over memory that all share.

Each has an interpreter of its own, so that none waits for another's lock. They meet at counters in shared memory: a
worker raises its own and waits for those of the others, first awake, then asleep for longer and longer, so that it
leaves a busy core to those who compute.
"""

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import pickle
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from cnnlite.errors import CnnliteError, StorageError, exit_code
from cnnlite.runtime import arrays, engine
from cnnlite.runtime.team import T, Team
from cnnlite.utils.printable import one_line
from cnnlite.utils.signals import SIGNALS
from cnnlite.utils.types import Array, Shape

SPINS, YIELDS = 200, 2000
"""Looks at a counter before a worker lets others run, and before it falls asleep."""
FIRST_NAP, LONGEST_NAP = 50e-6, 2e-3
"""Seconds."""
PATIENCE = 5.0
"""Seconds that workers have to end by themselves."""
_ROWS, _NUMBERS = 8, 2**16
"""Rows of float64 numbers exchanged at once, and numbers in a row."""
_ERROR_BYTES = 2**14
_END = -1
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_LINE = 8
"""Counters, 8 bytes each, that share a cache line."""


class WorkerError(StorageError):
    """A worker is gone, often because memory is exhausted, or has gone astray."""


def supported() -> bool:
    """True where this process can be forked, and gains by it."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    # Others (ARM) may show a counter before what was written before it, and Python has no fence against that.
    keeps_order = platform.machine().lower() in ("x86_64", "amd64")
    return sys.platform == "linux" and hasattr(os, "memfd_create") and has_lock and keeps_order


class _SharedSlabs(arrays.Slabs):
    """Slabs in a file in memory, at places that follow from the sizes asked for: the same ones in all workers."""

    def __init__(self) -> None:
        super().__init__()
        self._file = os.memfd_create("cnnlite", os.MFD_CLOEXEC)
        self._end = 0
        self.mark = 0
        """Number that follows from all places given out so far."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        array = super().empty(shape, dtype)
        place = next(index for index, slab in enumerate(self._slabs) if slab.base is array.base)
        self.mark = hash((self.mark, place, array.nbytes))
        return array

    def allocate(self, size: int) -> Array:
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        start, self._end = self._end, self._end + size
        try:
            if os.fstat(self._file).st_size < self._end:
                os.ftruncate(self._file, self._end)  # by each worker that comes here, to the same size
            whole = np.frombuffer(mmap.mmap(self._file, size, offset=start), np.uint8)
        except OSError as error:  # limits of memory, and that of files, which counts for those in memory too
            raise MemoryError(f"{size:,} bytes that workers share: {error.strerror}") from None
        return whole[:]

    def close(self) -> None:
        """Give the file back; arrays keep their memory."""
        os.close(self._file)


class Workers(Team):
    """Team of ``size`` processes, of which this one is the first.

    Args:
        size: number of workers, with this one.
        functions: functions that all workers call when the first one does; each takes a whole number.
        begin: called in each worker with its number, before anything else.
    """

    def __init__(self, size: int, functions: Sequence[Callable[[int], Any]], begin: Callable[[int], None]):
        self.size, self._functions = size, functions
        self.slabs: _SharedSlabs = _SharedSlabs()
        lines = engine.shared(((3 + size) * _LINE,), np.int64)
        self._counters = lines.data
        self._rows = engine.shared((2, _ROWS, _NUMBERS), np.float64)
        self._errors = engine.shared((size, _ERROR_BYTES), np.uint8)
        self._generation = self._turn = 0
        self._busy = True
        self._parent = os.getpid()
        self.processes: list[int] = []
        self._numbers: dict[int, int] = {}
        engine.set_threads(1)
        engine.release()
        for index in range(1, size):
            try:
                with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                    process = os.fork()  # other threads of this process are not ours; a worker needs none of them
            except OSError:  # a limit of processes, or memory
                self.close()
                raise
            if not process:
                self.index = index
                self._serve(begin)
            self.processes.append(process)
            self._numbers[process] = index
        begin(0)
        self._busy = False

    # Meetings

    def meet(self, mark: int = 0) -> None:
        """Wait until all workers have come here, with the same ``mark`` and shared arrays at the same places.

        Raises:
            WorkerError: If one of them is gone, or has come to another place; the error that one of them has raised.
        """
        generation = self._generation = self._generation + 1
        counters, odd = self._counters, 1 + generation % 2  # who is ahead writes to one while others read the other
        own = counters[(3 + self.index) * _LINE + odd] = hash((mark, self.slabs.mark))
        counters[(3 + self.index) * _LINE] = generation
        for other in range(self.size):
            place = (3 + other) * _LINE
            spins = 0
            while counters[place] < generation:
                spins += 1
                if spins > SPINS:
                    self._wait(place, generation)
                    break
        if counters[3 * _LINE + odd] != own:
            raise WorkerError(f"worker {self.index} of {self.size} has done something else than the first one")

    def _wait(self, place: int, generation: int) -> None:
        nap, turns, counters, began = FIRST_NAP, 0, self._counters, time.thread_time()
        while counters[place] < generation:
            turns += 1
            if turns < YIELDS:
                os.sched_yield()
                continue
            self.attend()
            time.sleep(nap)
            nap = min(LONGEST_NAP, 1.2 * nap)
        self.waited += time.thread_time() - began

    def attend(self) -> None:
        """Raise what keeps others from coming."""
        if self.index:
            if os.getppid() != self._parent:
                os._exit(1)
            return
        self._raise_error()
        for process in self.processes:
            if (how := _end_of(process)) is not None:
                self._raise_error()
                number = self._numbers[process]
                self.processes.remove(process)
                self._busy = True  # the others would wait for it
                raise WorkerError(f"worker {number} of {self.size} (process {process}) {how}")

    def _raise_error(self) -> None:
        """Raise what a worker has failed with, if one has."""
        if failed := self._counters[_LINE]:
            row = self._errors[failed]
            length = int(row[:4].view(np.int32)[0])
            text, code, error, trace = pickle.loads(row[4 : 4 + length].tobytes())  # noqa: S301 (written by a worker)
            if error is None:
                error = CnnliteError(f"worker {failed} of {self.size} failed: {text}")
                error.exit_code = code
            error.add_note(f"in worker {failed}:\n{trace}")
            raise error

    # Exchanges

    def gather(self, rows: Array, first: int, count: int) -> Array:
        """Gather float64 rows of all workers, ``count`` in all, of which those of this worker begin at ``first``."""
        width, shape = math.prod(rows.shape[1:]), (count, *rows.shape[1:])
        flat = rows.reshape(len(rows), width)
        gathered = np.empty((count, width))
        for start in range(0, width, _NUMBERS):
            columns = slice(start, min(start + _NUMBERS, width))
            place = self._place()[:, : columns.stop - start]
            place[first : first + len(rows)] = flat[:, columns]
            self.meet()
            gathered[:, columns] = place[:count]
        return gathered.reshape(shape)

    def share(self, make: Callable[[], Array], shape: Shape) -> Array:
        """Return in all workers the float64 array of that shape that the first one makes."""
        shared = self.slabs.empty(shape, np.float64)
        self.meet()
        if self.index == 0:
            shared[...] = make()
        self.meet()
        return shared

    def numbers(self, count: int) -> Array:
        """Return an array of ``count`` float64 numbers that all workers may write to, until the next call but one."""
        place = self._place().reshape(-1)
        if count > place.size:
            raise ValueError(f"{count} numbers are more than {place.size}")
        return place[:count]

    def _place(self) -> Array:
        """Return one of two places in turn: who is ahead writes to one while others still read the other."""
        self._turn ^= 1
        place: Array = self._rows[self._turn]
        return place

    def exchange(self, value: T) -> list[T]:
        """Gather the objects of all workers, in their order."""
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self.numbers(self.size)
        sizes[self.index] = data.size
        self.meet()
        edges = np.cumsum([0, *sizes]).astype(np.int64)
        everything = self.slabs.empty((int(edges[-1]),), np.uint8)
        everything[edges[self.index] : edges[self.index + 1]] = data
        self.meet()
        found = [pickle.loads(everything[i:j].tobytes()) for i, j in itertools.pairwise(edges)]  # noqa: S301
        self.meet()  # before anybody uses that memory again
        return found

    # Life

    @property
    def signal(self) -> int:
        """Number of a signal that came to a worker, 0 if none did."""
        return int(self._counters[2 * _LINE])

    def call(self, which: int, argument: int) -> Any:
        """Let all workers call a function with ``argument``, and return what it returns in this one."""
        self._busy = True  # until the function returns: after an error the others may be in the middle of it
        engine.set_team(self)
        try:
            self._command(which, argument)
            found = self._functions[which](argument)
        finally:
            engine.set_team(Team())
        self._busy = False
        return found

    def _command(self, which: int, argument: int) -> None:
        place = 2 * ((self._generation + 1) % 2)  # a slow worker may still be reading the command before
        self._counters[place], self._counters[place + 1] = which, argument
        self.meet()

    def _serve(self, begin: Callable[[int], None]) -> NoReturn:
        """Do what the first worker commands, until it says that this is the end."""
        code = 1
        try:
            self._prepare()
            engine.set_team(self)
            begin(self.index)
            with np.errstate(all="ignore"):
                while True:
                    self.meet()
                    place = 2 * (self._generation % 2)
                    which, argument = self._counters[place], self._counters[place + 1]
                    if which == _END:
                        break
                    self._functions[which](argument)
            code = 0
        except BaseException as error:
            self._tell(error)
        finally:
            os._exit(code)

    def _prepare(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(1, _KILL)  # PR_SET_PDEATHSIG: no worker outlives the first one
        if os.getppid() != self._parent:
            os._exit(1)
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._counters[2 * _LINE] = number

    def _tell(self, error: BaseException) -> None:
        """Leave an error to the first worker: itself, if it is an expected one, or else what it is called."""
        text, trace = (
            one_line(repr(error))[:1000],
            "".join(traceback.format_tb(error.__traceback__))[-_ERROR_BYTES // 8 :],
        )
        data = pickle.dumps((text, exit_code(error), None, trace))
        if isinstance(error, CnnliteError | MemoryError):
            with contextlib.suppress(Exception):  # of those that cannot be written, or not read again
                whole = pickle.dumps((text, 0, error, trace))
                pickle.loads(whole)  # noqa: S301 (written here)
                data = whole if len(whole) <= _ERROR_BYTES - 4 else data
        row = self._errors[self.index]
        row[4 : 4 + len(data)] = np.frombuffer(data, np.uint8)
        row[:4].view(np.int32)[0] = len(data)
        self._counters[_LINE] = self._counters[_LINE] or self.index

    def close(self) -> None:
        """Let the other workers end, or end them; this process goes on alone."""
        try:
            if self._busy:
                self._kill()
            elif self.processes:
                self._command(_END, 0)
        except (CnnliteError, MemoryError):  # of one that failed when the first one was done
            self._kill()
        until = time.monotonic() + PATIENCE
        for process in self.processes:
            while _end_of(process) is None:
                if time.monotonic() > until:
                    self._kill()
                time.sleep(1e-3)
        self.processes = []
        self.slabs.close()

    def _kill(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, _KILL)


def _end_of(process: int) -> str | None:
    """Say how a worker ended; None if it has not."""
    try:
        done, status = os.waitpid(process, os.WNOHANG)
    except ChildProcessError:  # the program ignores SIGCHLD, or waits for all its children
        return "is gone"
    if not done:
        return None
    code = os.waitstatus_to_exitcode(status)
    reason = "; was there too little memory?" if code == -_KILL else ""
    return f"was killed by {signal.Signals(-code).name}{reason}" if code < 0 else f"ended with exit code {code}"
