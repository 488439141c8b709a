"""Teams: workers on this host that make a training step together; here, the team of a process that works alone."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cnnlite.runtime.arrays import Slabs
from cnnlite.utils.types import Array, Shape

T = TypeVar("T")


class Team:
    """Team of one; `Workers` is one of several processes, all of which call each method in the same order."""

    size = 1
    index = 0
    """Number of this worker, from 0."""
    waited = 0.0
    """Seconds of processor time that this worker has spent on waiting for others."""

    def __init__(self) -> None:
        self.slabs = Slabs()
        """Memory of arrays that all workers share."""

    def meet(self, mark: int = 0) -> None:
        """Wait until all workers have come here, with the same ``mark``."""

    def gather(self, rows: Array, first: int, count: int) -> Array:
        """Gather float64 rows of all workers, ``count`` in all, of which those of this worker begin at ``first``."""
        return rows

    def share(self, make: Callable[[], Array], shape: Shape) -> Array:
        """Return in all workers the float64 array of that shape that the first one makes."""
        return make()

    def exchange(self, value: T) -> list[T]:
        """Gather the objects of all workers, in their order."""
        return [value]

    def numbers(self, count: int) -> Array:
        """Return an array of ``count`` float64 numbers that all workers may write to, until the next call but one."""
        return np.empty(count)
