"""Workers: processes started by this one, which make training steps together over memory that all share.

Each has an interpreter of its own, so that none waits for another's lock. They meet at counters in shared memory: a
worker raises its own and waits for those of the others, first awake, then asleep for longer and longer, so that it
leaves a busy core to those who compute.
"""

import contextlib
import itertools
import math
import os
import pickle
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from cnnlite.errors import CnnliteError, StorageError, exit_code
from cnnlite.runtime import arrays, engine, handover, processes
from cnnlite.runtime.handover import HandoverError, MemoryFile, whole_pages
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
_LINE = 8
"""Counters, 8 bytes each, that share a cache line."""
_give_way = getattr(os, "sched_yield", lambda: time.sleep(0))  # which Windows lacks


class WorkerError(StorageError):
    """A worker is gone, often because memory is exhausted, or has gone astray."""


def supported() -> bool:
    """True where workers are processes, by `processes.way`."""
    return processes.way() != "threads"


class _SharedSlabs(arrays.Slabs):
    """Slabs in a file in memory, at places that follow from the sizes asked for: the same ones in all workers."""

    def __init__(self, file: MemoryFile | None = None) -> None:
        super().__init__()
        self._file = file or MemoryFile()
        self._end = 0
        self.mark = 0
        """Number that follows from all places given out so far."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        array = super().empty(shape, dtype)
        place = next(index for index, slab in enumerate(self._slabs) if slab.base is array.base)
        self.mark = hash((self.mark, place, array.nbytes))
        return array

    def allocate(self, size: int) -> Array:
        size = whole_pages(size)
        start, self._end = self._end, self._end + size
        try:
            whole = np.frombuffer(self._file.map(start, size), np.uint8)
        except OSError as error:  # limits of memory, and that of files, which counts for those in memory too
            raise MemoryError(f"{size:,} bytes that workers share: {error.strerror}") from None
        return whole[:]

    def __reduce__(self) -> Any:
        return _SharedSlabs, (self._file,)  # to a worker that is spawned: there are no arrays yet

    def close(self) -> None:
        """Give the file back; arrays keep their memory."""
        self._file.close()


class Workers(Team):
    """Team of ``size`` processes, of which this one is the first.

    Args:
        size: number of workers, with this one.
        functions: functions that all workers call when the first one does; each takes a whole number.
        begin: called in each worker with its number, before anything else.

    Raises:
        OSError: If no more processes can be started.
        WorkerError: If workers have to be spawned, and ``functions`` cannot be handed over to them.
    """

    def __init__(self, size: int, functions: Sequence[Callable[[int], Any]], begin: Callable[[int], None]):
        self.size, self._functions = size, functions
        self.slabs: _SharedSlabs = _SharedSlabs()
        self._lines = engine.shared(((3 + size) * _LINE,), np.int64)
        self._counters = self._lines.data
        self._rows = engine.shared((2, _ROWS, _NUMBERS), np.float64)
        self._errors = engine.shared((size, _ERROR_BYTES), np.uint8)
        self._generation = self._turn = 0
        self._busy = True
        self._parent = os.getpid()
        self.processes: list[int] = []
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._numbers: dict[int, int] = {}
        self._held: list[handover.Packed] = []
        self._fence = processes.fence()
        engine.set_threads(1)
        engine.release()
        try:
            if processes.way() == "spawn":
                self._spawn(begin)
            else:
                self._fork(begin)
            begin(0)
            self.meet()  # now it is known that all could begin
            self._held = []
        except BaseException:
            self.close()
            raise
        self._busy = False

    def _fork(self, begin: Callable[[int], None]) -> None:
        for index in range(1, self.size):
            if not (process := processes.start_copy()):
                self._serve(index, lambda: (self._functions, begin))
            self._note_process(index, process)

    def _spawn(self, begin: Callable[[int], None]) -> None:
        try:
            given = handover.pack((self._functions, begin))
            packed = handover.pack((self, given.content))
        except HandoverError as error:
            raise WorkerError(f"what they need cannot be handed over: {error}") from None
        self._held = [given, packed]
        for index in range(1, self.size):
            code = f"from cnnlite.runtime import workers; workers.serve({index}, {packed.arguments})"
            spawned = processes.start_python(code, [*given.descriptors, *packed.descriptors])
            self._spawned[spawned.pid] = spawned
            self._note_process(index, spawned.pid)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a spawned worker gets of the team; the functions come later, as they may be wrong there."""
        empty: dict[str, Any] = {"_functions": (), "_spawned": {}, "_held": []}
        return vars(self) | empty | dict.fromkeys(("_counters", "_fence"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a part of the team, in a spawned worker."""
        vars(self).update(state, _counters=state["_lines"].data, _fence=processes.fence())

    def _note_process(self, index: int, process: int) -> None:
        self.processes.append(process)
        self._numbers[process] = index

    # Meetings

    def meet(self, mark: int = 0) -> None:
        """Wait until all workers have come here, with the same ``mark`` and shared arrays at the same places.

        Raises:
            WorkerError: If one of them is gone, or has come to another place; the error that one of them has raised.
        """
        generation = self._generation = self._generation + 1
        counters, odd = self._counters, 1 + generation % 2  # who is ahead writes to one while others read the other
        own = counters[(3 + self.index) * _LINE + odd] = hash((mark, self.slabs.mark))
        if self._fence:
            self._fence()
        counters[(3 + self.index) * _LINE] = generation
        for other in range(self.size):
            place = (3 + other) * _LINE
            spins = 0
            while counters[place] < generation:
                spins += 1
                if spins > SPINS:
                    self._wait(place, generation)
                    break
        if self._fence:
            self._fence()
        if counters[3 * _LINE + odd] != own:
            raise WorkerError(f"worker {self.index} of {self.size} has done something else than the first one")

    def _wait(self, place: int, generation: int) -> None:
        nap, turns, counters, began = FIRST_NAP, 0, self._counters, time.thread_time()
        while counters[place] < generation:
            turns += 1
            if turns < YIELDS:
                _give_way()
                continue
            self.attend()
            time.sleep(nap)
            nap = min(LONGEST_NAP, 1.2 * nap)
        self.waited += time.thread_time() - began

    def attend(self) -> None:
        """Raise what keeps others from coming."""
        if self.index:
            self._end_without_parent()
            return
        self._raise_error()
        for process in self.processes:
            if (how := self._end_of(process)) is not None:
                self._raise_error()
                number = self._numbers[process]
                self.processes.remove(process)
                self._busy = True  # the others would wait for it
                raise WorkerError(f"worker {number} of {self.size} (process {process}) {how}")

    def _raise_error(self) -> None:
        """Raise what a worker has failed with, if one has."""
        if failed := self._counters[_LINE]:
            if self._fence:
                self._fence()
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

    def _serve(self, index: int, given: Callable[[], tuple[Any, Callable[[int], None]]]) -> NoReturn:
        """Do what the first worker commands, until it says that this is the end; ``given`` returns what to begin with.

        That is the functions, and one to call before anything else.
        """
        code, self.index = 1, index
        try:
            self._prepare()
            engine.set_team(self)
            self._functions, begin = given()
            begin(index)
            self.meet()
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
        processes.end_with_parent()
        self._end_without_parent()
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self._note)
        processes.let_signals_through()

    def _end_without_parent(self) -> None:
        if os.name == "posix" and os.getppid() != self._parent:
            os._exit(1)

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
        if self._fence:
            self._fence()
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
            while self._end_of(process) is None:
                if time.monotonic() > until:
                    self._kill()
                time.sleep(1e-3)
        for spawned in self._spawned.values():
            spawned.communicate()  # closes the pipe to it
        self.processes = []
        self.slabs.close()

    def _kill(self) -> None:
        for process in self.processes:
            processes.kill(process)

    def _end_of(self, process: int) -> str | None:
        return processes.end_of(process, self._spawned.get(process))


def serve(index: int, *content: Any) -> NoReturn:
    """Be a worker, in a process spawned for it; ``content`` is where the first one has packed what it needs."""
    end_with_input()
    team: Workers
    team, given = handover.unpack(*content)
    team._serve(index, lambda: handover.read(given))


def end_with_input() -> None:
    """Let this process end as soon as the other end of its input is closed, as that of a process that is gone."""

    def wait() -> None:
        os.read(0, 1)  # nothing is ever written
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
