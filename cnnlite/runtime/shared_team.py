"""Teams whose processes meet in memory that all share: counters to wait at, and numbers and objects to exchange.

Each process raises its own counter and waits for those of the others, first awake, then asleep for longer and longer,
so that it leaves a busy core to those who compute.
"""

import itertools
import math
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlite.errors import StorageError
from cnnlite.runtime import arrays, engine, processes
from cnnlite.runtime.handover import MemoryFile, whole_pages
from cnnlite.runtime.team import T, Team
from cnnlite.utils.types import Array, Shape

SPINS, YIELDS = 200, 2000
"""Looks at a counter before a worker lets others run, and before it falls asleep."""
FIRST_NAP, LONGEST_NAP = 50e-6, 2e-3
"""Seconds."""
_ROWS, _NUMBERS = 8, 2**16
"""Rows of float64 numbers exchanged at once, and numbers in a row."""
LINE = 8
"""Counters, 8 bytes each, that share a cache line."""
_give_way = getattr(os, "sched_yield", lambda: time.sleep(0))  # which Windows lacks


class WorkerError(StorageError):
    """A worker is gone, often because memory is exhausted, or has gone astray."""


class SharedSlabs(arrays.Slabs):
    """Slabs in a file in memory, at places that follow from the sizes asked for: the same ones in all workers."""

    def __init__(self, file: MemoryFile | None = None) -> None:
        super().__init__()
        self._file = file or MemoryFile()
        self._end = 0
        self.mark = 0
        """Number that follows from all places given out so far."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Return an array at the next place that is free, and note which place that is."""
        array = super().empty(shape, dtype)
        place = next(index for index, slab in enumerate(self._slabs) if slab.base is array.base)
        self.mark = hash((self.mark, place, array.nbytes))
        return array

    def allocate(self, size: int) -> Array:
        """Return whole pages of the file, from where it ended; MemoryError if the system gives no more."""
        size = whole_pages(size)
        start, self._end = self._end, self._end + size
        try:
            whole = np.frombuffer(self._file.map(start, size), np.uint8)
        except OSError as error:  # limits of memory, and that of files, which counts for those in memory too
            raise MemoryError(f"{size:,} bytes that workers share: {error.strerror}") from None
        return whole[:]

    def __reduce__(self) -> Any:
        return SharedSlabs, (self._file,)  # to a worker that is spawned: there are no arrays yet

    def close(self) -> None:
        """Give the file back; arrays keep their memory."""
        self._file.close()


class SharedTeam(Team):
    """Team of ``size`` processes over shared memory; who starts and ends them is not known here.

    ``_counters`` are lines of `LINE` numbers: one of commands, one of errors and one of signals, for who starts the
    processes, and one for each process, which it writes and the others wait for.
    """

    def __init__(self, size: int):
        self.size = size
        self.slabs: SharedSlabs = SharedSlabs()
        self._lines = engine.shared(((3 + size) * LINE,), np.int64)
        self._counters = self._lines.data
        self._rows = engine.shared((2, _ROWS, _NUMBERS), np.float64)
        self._generation = self._turn = 0
        self._fence = processes.fence()

    def attend(self) -> None:
        """Raise what keeps others from coming; called while this process waits for them."""

    def meet(self, mark: int = 0) -> None:
        """Wait until all workers have come here, with the same ``mark`` and shared arrays at the same places.

        Raises:
            WorkerError: If one of them is gone, or has come to another place; the error that one of them has raised.
        """
        generation = self._generation = self._generation + 1
        counters, odd = self._counters, 1 + generation % 2  # who is ahead writes to one while others read the other
        own = counters[(3 + self.index) * LINE + odd] = hash((mark, self.slabs.mark))
        if self._fence:
            self._fence()
        counters[(3 + self.index) * LINE] = generation
        for other in range(self.size):
            place = (3 + other) * LINE
            spins = 0
            while counters[place] < generation:
                spins += 1
                if spins > SPINS:
                    self._wait(place, generation)
                    break
        if self._fence:
            self._fence()
        if counters[3 * LINE + odd] != own:
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
