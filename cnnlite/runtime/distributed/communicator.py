"""The communicator: the interface to ranks, here for a process that trains alone."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cnnlite.errors import CnnliteError, ConfigError
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array

T = TypeVar("T")


class Communicator:
    """Communicator of a single process, whose values are those of all ranks; `Ranks` is the one over MPI."""

    rank = 0
    size = 1
    offset = 0
    """Index in the whole batch of the first sample that this rank computes."""

    @property
    def first(self) -> bool:
        """True if this rank writes files and speaks to the user."""
        return self.rank == 0

    def begin_batch(self, count: int) -> slice:
        """Begin a batch of ``count`` samples; returns the part that this rank computes, one sample or more.

        `offset`, `samples`, `reduce_metrics`, `weighted`, `moments` and `batch_sums` refer to it until the next call.
        """
        return slice(0, count)

    def samples(self, own: int) -> int:
        """Number of samples in the whole batch, of which this rank has ``own``."""
        return own

    def reduce_metrics(self, loss: float, hits: float) -> tuple[float, float]:
        """Reduce mean loss and number of hits of this rank's part to those of the whole batch."""
        return loss, hits

    def weighted(self, gradient: Array) -> Array:
        """Weight the gradient of this rank's mean loss by its share of the batch; may change it in place."""
        return gradient

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Reduce float64 means and biased variances of channels of this rank's part to those of the whole batch."""
        return mean, variance

    def batch_sums(self, array: Array) -> Array:
        """Reduce float64 sums of this rank's part to those of the whole batch; zeros on a rank without samples."""
        return array

    def allreduce(self, arrays: Iterable[Array]) -> None:
        """Sum contiguous arrays over all ranks, in place."""

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

    def threads(self, wanted: int | None) -> int | None:
        """Number of threads for this rank: as wanted, or its share of the cores; None for all of them."""
        return wanted


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
