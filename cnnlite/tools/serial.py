"""Serial time: that of a training step outside of what workers or threads divide, however many they are."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array


class SerialClock:
    """Clock of all time, and of that outside of parallel work.

    Parallel is what `engine` computes of the shards of a batch, or in several tasks. What is outside is done by one
    worker alone, or by each; or directly by a layer, for its own samples, and counted as serial though it is not.
    """

    def __init__(self) -> None:
        self._parallel = 0.0
        self._inside = False

    def __call__(self) -> Array:
        """Return seconds: of all time, and of serial time."""
        now = time.perf_counter()
        return np.array([now, now - self._parallel])

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Tell parallel work from other time inside the block, which must not begin inside of such work."""
        places = [(engine, "run"), (engine, "for_blocks"), (shards, "sum_over_shards")]
        before = [(module, name, getattr(module, name)) for module, name in places]
        for module, name, function in before:
            setattr(module, name, self._timed(function))
        try:
            yield
        finally:
            for module, name, function in before:
                setattr(module, name, function)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let a function of engine or shards count as parallel work, where it is."""
        counts_tasks = function.__name__ == "run"

        @wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            is_parallel = shards.are_several() or (counts_tasks and arguments[1] > 1)
            if self._inside or not is_parallel:
                return function(*arguments, **options)
            self._inside, began = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._inside = False
                self._parallel += time.perf_counter() - began

        return called
