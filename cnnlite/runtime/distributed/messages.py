"""Messages among ranks: exchanges of arrays, notices of failure, and a common end; all calls of MPI are here."""

import math
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlite import errors
from cnnlite.errors import CnnliteError, exit_code
from cnnlite.runtime import engine
from cnnlite.utils.signals import Stopped
from cnnlite.utils.types import Array

PATIENCE = 5.0
"""Seconds that a rank in error waits for the others to end in order, before it ends them."""
_SMALL_BYTES = 128 * 1024
"""Smaller arrays are sent whole: on common networks that takes no longer than the many messages for their pieces."""
_SPIN_SECONDS, _DOZE_SECONDS = 0.05, 1.0


class RankError(CnnliteError):
    """Another rank failed in a way that is no error of cnnlite, or is out of reach."""

    def __init__(self, text: str, exit_code: int = 5):
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class Traffic:
    """Bytes sent by this rank, and time it waited for exchanges to complete."""

    exchanges: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0


class Messages:
    """Collective exchanges, which all ranks have to make in the same order.

    MPI's own way of waiting would not notice failures and signals, and keep cores from ranks that compute: exchanges
    are started without blocking, and polled.

    Args:
        mpi: the module ``mpi4py.MPI``, initialized.
        name: of this rank, for messages to the user.
    """

    def __init__(self, mpi: Any, name: str):
        self._mpi = mpi
        self.name = name
        self.rank, self.size = mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size
        self.traffic = Traffic()
        self.agreed_to_end = False
        """True once all ranks know that they are about to end, so that none needs to hurry another."""
        self._data, self._notices = mpi.COMM_WORLD.Dup(), mpi.COMM_WORLD.Dup()
        self._memory: dict[Any, Array] = {}
        self._parent = os.getppid()
        self._told: list[Any] = []
        self._notified = False
        self._barrier: Any = None

    def allgather(self, array: Array) -> Array:
        """Gather the arrays of all ranks, of the same shape, in a new array with a first axis of ranks."""
        rows = np.empty((self.size, *array.shape), array.dtype)
        self._wait(array.nbytes * (self.size - 1), self._data.Iallgather(np.ascontiguousarray(array), rows))
        return rows

    def allgather_rows(self, rows: Array, counts: Sequence[int]) -> Array:
        """Gather rows of all ranks, of which each has as many as ``counts`` say, in one array."""
        width = math.prod(rows.shape[1:])
        everything = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        places = [everything, [count * width for count in counts]]
        self._wait(rows.nbytes * (self.size - 1), self._data.Iallgatherv(np.ascontiguousarray(rows), places))
        return everything

    def allreduce(self, array: Array) -> None:
        """Sum a contiguous array over all ranks in place, with the same bits on all of them."""
        if array.nbytes <= _SMALL_BYTES:
            array[...] = self._sum_by_doubling(array)
        else:
            self._sum_by_pieces(array.reshape(-1))

    def _sum_by_doubling(self, total: Array) -> Array:
        """Sum over pairs of ranks, then over pairs of pairs, and so on (recursive doubling).

        All have the same bits, because a + b is b + a. Ranks beyond the greatest power of two let others add theirs.
        """
        paired = 1 << (self.size.bit_length() - 1)
        beyond, step = self.rank ^ paired, 1
        if self.rank >= paired:
            self._send(total, beyond)
            return self._receive(total, beyond)
        if beyond < self.size:
            total = total + self._receive(total, beyond)
        while step < paired:
            other, partner = np.empty_like(total), self.rank ^ step
            self._wait(total.nbytes, self._data.Irecv(other, partner), self._data.Isend(total, partner))
            total = total + other
            step *= 2
        if beyond < self.size:
            self._send(total, beyond)
        return total

    def _send(self, array: Array, rank: int) -> None:
        self._wait(array.nbytes, self._data.Isend(array, rank))

    def _receive(self, like: Array, rank: int) -> Array:
        array = np.empty_like(like)
        self._wait(0, self._data.Irecv(array, rank))
        return array

    def _sum_by_pieces(self, array: Array) -> None:
        """Sum a flat array over all ranks in place, in their order (reduce-scatter, then allgather).

        Each rank adds up one piece and sends it to all: 2 (size - 1) / size of the array is sent, which is the least.
        """
        bounds = engine.even(array.size, self.size)
        counts = [stop - start for start, stop in bounds]
        starts = [start for start, _ in bounds]
        own, count = array[slice(*bounds[self.rank])], counts[self.rank]
        pieces = self._pieces(count, array.dtype)
        places = ([count] * self.size, [count * rank for rank in range(self.size)])
        to_others = (array.size - count) * array.itemsize
        self._wait(to_others, self._data.Ialltoallv([array, (counts, starts)], [pieces, places]))

        def block(start: int, stop: int) -> None:
            np.add.reduce(pieces[:, start:stop], axis=0, out=own[start:stop])

        engine.for_blocks(block, count, (self.size + 1) * array.itemsize)
        to_others = own.nbytes * (self.size - 1)
        self._wait(to_others, self._data.Iallgatherv(self._mpi.IN_PLACE, [array, (counts, starts)]))

    def _pieces(self, count: int, dtype: Any) -> Array:
        key = (count, np.dtype(dtype))
        if key not in self._memory:
            self._memory[key] = engine.aligned(self.size * count, dtype).reshape(self.size, count)
        return self._memory[key]

    def allgather_objects(self, value: Any) -> list[Any]:
        """Gather the objects of all ranks, in their order."""
        data = np.frombuffer(bytearray(self._mpi.pickle.dumps(value)), np.uint8)
        sizes = self.allgather(np.array(data.size))
        everything = np.empty(sizes.sum(), np.uint8)
        self._wait(data.size * (self.size - 1), self._data.Iallgatherv(data, [everything, sizes]))
        return [self._mpi.pickle.loads(piece) for piece in np.split(everything, np.cumsum(sizes)[:-1])]

    def broadcast_object(self, value: Any) -> Any:
        """Broadcast the object of rank 0."""
        data = np.frombuffer(bytearray(self._mpi.pickle.dumps(value)), np.uint8)
        size = np.array([data.size])
        self._wait(size.nbytes, self._data.Ibcast(size))
        if self.rank:
            data = np.empty(size[0], np.uint8)
        self._wait(data.size, self._data.Ibcast(data))
        return self._mpi.pickle.loads(data)

    def _wait(self, sent: int, *requests: Any) -> None:
        """Wait until an exchange is complete, with ``sent`` bytes to others; raises what another rank failed with."""
        began = time.perf_counter()
        turn = 0
        try:
            while not self._mpi.Request.Testall(requests):
                turn += 1
                if turn % 32 == 0:
                    self._attend()
                _pause(time.perf_counter() - began)
        except self._mpi.Exception as error:
            raise RankError(f"{self.name} has lost the others: {error}") from None
        self.traffic.exchanges += 1
        self.traffic.bytes_sent += sent
        self.traffic.seconds += time.perf_counter() - began

    def _attend(self) -> None:
        """Raise what another rank has failed with, if one has, or an error if the launcher is gone."""
        if os.getppid() != self._parent:
            raise RankError(f"{self.name} has lost its launcher")
        status = self._mpi.Status()
        if self._notices.Iprobe(status=status):
            kind, code, text, name, trace = self._notices.recv(source=status.source)
            self._notified = True
            error = error_of(kind, f"{name}: {text}", code)
            error.add_note(f"{name}:\n{trace}")
            raise error

    def leave(self, error: BaseException | None) -> None:
        """Tell the others of an error, and wait until all are about to leave; end those that are not in time."""
        began = time.perf_counter()
        if error is not None and not self._notified:
            trace = "".join(traceback.format_exception(error))[-4000:]
            text = f"stopped by {error.name}" if isinstance(error, Stopped) else str(error)[:2000]
            notice = (type(error).__name__, exit_code(error), text, self.name, trace)
            self._told = [self._notices.isend(notice, rank) for rank in range(self.size) if rank != self.rank]
        if self._barrier is None:
            self._barrier = self._notices.Ibarrier()
        while not self._barrier.Test():
            waited = time.perf_counter() - began
            if error is None:
                self._attend()
            elif waited > PATIENCE and not self.agreed_to_end:
                self._mpi.COMM_WORLD.Abort(exit_code(error))
            _pause(waited)


def _pause(waited: float) -> None:
    """Yield the core to others: for a moment while something is about to come, for longer after a while."""
    if waited > _SPIN_SECONDS:
        time.sleep(1e-3 if waited > _DOZE_SECONDS else 5e-5)
    elif hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


def error_of(kind: str, text: str, code: int = 1) -> CnnliteError:
    """Make the error of cnnlite that is called ``kind``, or a RankError with the exit ``code`` for any other.

    Never Stopped, after which a run saves where it is: in the middle of a step there is nothing to save.
    """
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, CnnliteError):
        return found(text)
    return RankError(text if kind == Stopped.__name__ else f"{text} ({kind})", code)
