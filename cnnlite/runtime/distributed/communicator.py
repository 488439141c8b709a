"""The communicator: the interface to ranks, here for a process that trains alone."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cnnlite.errors import CnnliteError, ConfigError
from cnnlite.runtime import shards
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array

T = TypeVar("T")


class Communicator:
    """Communicator of a single process, whose values are those of all ranks; `Ranks` is the one over MPI."""

    rank = 0
    size = 1
    offset = 0
    """Index in the whole batch of the first sample that this process computes."""

    @property
    def first(self) -> bool:
        """True if this rank writes files and speaks to the user."""
        return self.rank == 0

    @contextlib.contextmanager
    def batch(self, count: int, pieces: Callable[[int], int]) -> Iterator[slice]:
        """Divide a batch of ``count`` samples inside the block, which has the part that this process computes.

        That is one sample or more. ``pieces`` gives the number of shards for a number of samples.
        """
        with shards.divided(count, pieces(count)) as division:
            self.offset = division.own.start
            yield division.own
        self.offset = 0

    def samples(self, own: int) -> int:
        """Number of samples in the whole batch, of which this process has ``own``."""
        return shards.total(own)

    @property
    def counts(self) -> bool:
        """True if the samples that this process computes are its own; False for one that has none, and stands in."""
        return shards.counts()

    def gather(self, rows: Array) -> Array:
        """Gather float64 ``rows``, one for each shard of this process, to those of all shards of the whole batch."""
        return shards.gather(rows)

    def allreduce(self, arrays: Iterable[Array]) -> None:
        """Sum contiguous arrays, which the workers of a rank share, over all ranks, in place."""

    def allgather(self, value: T) -> list[T]:
        """Gather the values of all ranks, in their order."""
        return [value]

    def broadcast(self, make: Callable[[], T]) -> T:
        """Broadcast what ``make`` returns on rank 0, or the error of cnnlite it raises; others do not call it."""
        return make()

    def allgather_local(self, compute: Callable[[], T]) -> list[T]:
        """Gather what ``compute`` returns on each rank, where it runs without communication."""
        return [compute()]

    def reduce_stop(self, stop: StopFlag) -> StopFlag:
        """Flag whose check raises Stopped on all ranks if a signal came to any; all have to check as often."""
        return stop

    def check_same(self, facts: Mapping[str, Any], error: type[CnnliteError] = ConfigError) -> None:
        """Raise an ``error`` on all ranks if the facts are not the same everywhere."""

    def check_replicas(self, state: Mapping[str, Array]) -> None:
        """Raise RankError on all ranks if the arrays do not have the same bits everywhere."""

    def most_workers(self) -> int | None:
        """Maximum number of workers of this rank, where it is to be chosen: its share of the cores; None for all."""
        return None


_current = Communicator()


def current() -> Communicator:
    """Return the communicator in use."""
    return _current


@contextlib.contextmanager
def using(communicator: Communicator) -> Iterator[None]:
    """Make ``communicator`` the `current` one inside the block."""
    global _current
    before, _current = _current, communicator
    try:
        yield
    finally:
        _current = before
