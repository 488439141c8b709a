"""The communicator over MPI, for processes that train together."""

import os
import platform
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from cnnlite.errors import CnnliteError, ConfigError
from cnnlite.runtime import engine, shards
from cnnlite.runtime.distributed.communicator import Communicator, using
from cnnlite.runtime.distributed.messages import Messages, RankError, error_of
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array

T = TypeVar("T")


class Ranks(Communicator):
    """Splits batches among ranks and reduces their results; `Communicator` describes each method.

    Args:
        mpi: the module ``mpi4py.MPI``, initialized.
    """

    def __init__(self, mpi: Any):
        self._place = (platform.node(), _cores())
        self.messages = Messages(mpi, f"rank {mpi.COMM_WORLD.rank} on {platform.node()}")
        self.rank, self.size = self.messages.rank, self.messages.size
        self._total: int | None = None
        self._rows: list[int] = []

    @contextmanager
    def batch(self, count: int, pieces: Callable[[int], int]) -> Iterator[slice]:
        parts = engine.even(count, self.size)
        start, stop = parts[self.rank]
        # Messages have to match, and layers need a sample: a rank without one computes another's, which does not count.
        first, own = min(start, count - 1), max(1, stop - start)
        self._rows = [pieces(end - begin) if end > begin else 0 for begin, end in parts]
        self._total = count
        with shards.divided(own, pieces(own)) as division:
            self.offset = first + division.own.start
            yield slice(self.offset, first + division.own.stop)
        self._total, self.offset = None, 0

    def samples(self, own: int) -> int:
        return own if self._total is None else self._total

    @property
    def counts(self) -> bool:
        return shards.counts() and self._rows[self.rank] > 0

    def gather(self, rows: Array) -> Array:
        rows = shards.gather(rows)
        if self._total is None:
            return rows
        own = rows[: self._rows[self.rank]]
        exchange = partial(self.messages.allgather_rows, own, self._rows)
        return engine.team().share(exchange, (sum(self._rows), *rows.shape[1:]))

    def allreduce(self, arrays: Iterable[Array]) -> None:
        for array in arrays:
            if engine.team().index == 0:
                self.messages.allreduce(array)
        engine.team().meet()

    def allgather(self, value: T) -> list[T]:
        return self.messages.allgather_objects(value)

    def broadcast(self, make: Callable[[], T]) -> T:
        value: T | None = None
        failure: CnnliteError | None = None
        if self.first:
            try:
                value = make()
            except CnnliteError as error:
                failure = error
        found, kind, text = self.messages.broadcast_object((value, failure and type(failure).__name__, str(failure)))
        if kind is not None:
            raise failure or error_of(kind, text)
        result: T = found
        return result

    def allgather_local(self, compute: Callable[[], T]) -> list[T]:
        with using(Communicator()):
            value = compute()
        return self.allgather(value)

    def reduce_stop(self, stop: StopFlag) -> StopFlag:
        return _ReducedStop(stop, self.messages)

    def check_same(self, facts: Mapping[str, Any], error: type[CnnliteError] = ConfigError) -> None:
        (first, first_name), *others = self.allgather((dict(facts), self.messages.name))
        lines = [
            f"{name} has {key} {found.get(key)!r:.80}, {first_name} has {first.get(key)!r:.80}"
            for found, name in others
            for key in sorted(first.keys() | found.keys())
            if first.get(key) != found.get(key)
        ]
        if lines:
            raise error("\n".join([*lines[:3], "all ranks have to train the same network on the same images"]))

    def check_replicas(self, state: Mapping[str, Array]) -> None:
        sums = {name: zlib.crc32(array.tobytes()) for name, array in state.items()}
        if any(found != sums for found in self.allgather(sums)):
            raise RankError("the ranks no longer hold the same network; run all of them on processors of one kind")

    def most_workers(self) -> int | None:
        # Launchers may have given each rank cores of its own, or all ranks of a host the same.
        sharing = self.allgather(self._place).count(self._place)
        return max(1, engine.available_cores() // sharing)


class _ReducedStop(StopFlag):
    """Stop flag of all ranks: a signal to one of them stops all."""

    def __init__(self, own: StopFlag, messages: Messages):
        super().__init__()
        self._own = own
        self._messages = messages

    @contextmanager
    def deferred(self, promise: str = "") -> Iterator[None]:
        """Defer signals inside the block."""
        with self._own.deferred(promise):
            yield

    def check(self) -> None:
        """Raise Stopped on all ranks if a signal came to one of them; all have to call this as often."""
        number = int(self._messages.allgather(np.array(self._own.number or self.number)).max())
        if number:
            self._messages.agreed_to_end = True
            self._own.end(number)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
