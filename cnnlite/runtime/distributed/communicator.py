"""What the rest of cnnlite knows of ranks: a communicator, here that of a process that trains alone."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cnnlite.errors import CnnliteError, ConfigError
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array

T = TypeVar("T")


class Communicator:
    """Has all there is, and leaves everything as it is; `Ranks` does what the methods say."""

    rank = 0
    size = 1
    offset = 0
    """Place in the whole batch of the first sample that this rank computes."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks to the user."""
        return self.rank == 0

    def begin_batch(self, count: int) -> slice:
        """Begin a batch of ``count`` samples; returns the part that this rank computes, one sample or more.

        `offset`, `samples`, `figures`, `weighted`, `moments` and `batch_sums` speak of it up to the next call.
        """
        return slice(0, count)

    def samples(self, own: int) -> int:
        """Samples in the whole batch, of which this rank has ``own``."""
        return own

    def figures(self, loss: float, hits: float) -> tuple[float, float]:
        """Mean loss and number of hits of the whole batch, from those of this rank's part."""
        return loss, hits

    def weighted(self, gradient: Array) -> Array:
        """The gradient of the whole batch's mean loss, from that of this rank's mean loss; may be changed in place."""
        return gradient

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and biased variance of channels over the whole batch, from those of this rank's part, in float64."""
        return mean, variance

    def batch_sums(self, array: Array) -> Array:
        """Sums over the whole batch, from this rank's in float64; zeros where it has no samples to use them for."""
        return array

    def allreduce(self, arrays: Iterable[Array]) -> None:
        """Replace contiguous arrays by their sums over all ranks."""

    def allgather(self, value: T) -> list[T]:
        """What every rank gave, in the order of the ranks."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """Broadcast what ``make`` returns on rank 0, or the error of cnnlite it raises; others do not call it."""
        return make()

    def each_alone(self, compute: Callable[[], T]) -> list[T]:
        """What ``compute`` returns on every rank, without messages while it computes."""
        return [compute()]

    def agreed(self, stop: StopFlag) -> StopFlag:
        """A flag whose check raises Stopped on all ranks if a signal came to any; all have to check as often."""
        return stop

    def check_same(self, facts: Mapping[str, Any], error: type[CnnliteError] = ConfigError) -> None:
        """Raise an ``error`` on all ranks if the facts are not the same everywhere."""

    def check_replicas(self, state: Mapping[str, Array]) -> None:
        """Raise RankError on all ranks if the arrays do not have the same bits everywhere."""

    def threads(self, wanted: int | None) -> int | None:
        """How many threads this rank computes on: as wanted, or its share of the cores; None for all of them."""
        return wanted


_current = Communicator()


def current() -> Communicator:
    """The communicator in use."""
    return _current


@contextlib.contextmanager
def using(communicator: Communicator) -> Iterator[None]:
    """Let `current` be another one inside the block."""
    global _current
    before, _current = _current, communicator
    try:
        yield
    finally:
        _current = before
