"""Blocks of samples on threads, and the team of workers that tasks are divided among.

Every heavy kernel hands this module a task and a number of items; the task is called for *blocks* of items small enough
for the L2 cache. Block boundaries follow from sizes alone, never from the number of threads or workers.
"""

import contextlib
import ctypes
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np

from cnnlite.runtime import arrays, cgroups
from cnnlite.runtime.arrays import aligned, scratch, shared
from cnnlite.runtime.team import Team
from cnnlite.runtime.threads import Pool
from cnnlite.utils.types import Array

__all__ = ["aligned", "scratch", "shared"]

T = TypeVar("T")
Bounds: TypeAlias = tuple[tuple[int, int], ...]

BLOCK_BYTES = 2 * 2**20
"""Working set of a block: about what one core keeps in its L2 cache.

Smaller blocks would mean shorter passes, and between passes threads wait for one another at the interpreter lock."""
LEAST_BYTES = 384 * 1024
"""Less work than this is not worth another block: handing one to a thread costs tens of microseconds."""


@lru_cache(maxsize=4096)
def blocks(count: int, item_bytes: int, least: int = 1) -> Bounds:
    """Split ``count`` items, each touching ``item_bytes`` bytes, into consecutive ``(start, stop)`` blocks.

    A block has ``least`` items or more: a matrix product needs many rows to be worth loading its other factor.
    """
    total = count * max(item_bytes, 1)
    pieces = math.ceil(total / BLOCK_BYTES)
    if pieces < 8:  # few, so let them divide evenly among cores as far as that pays
        pieces = min(8, total // LEAST_BYTES)
    return even(count, max(1, min(count // least, pieces)))


@lru_cache(maxsize=4096)
def cache_blocks(count: int, item_bytes: int) -> Bounds:
    """Split ``count`` items into as few blocks as fit in the cache, for a task that goes through them by itself."""
    return even(count, min(count, math.ceil(count * item_bytes / BLOCK_BYTES)))


@lru_cache(maxsize=4096)
def even(count: int, pieces: int) -> Bounds:
    """Split ``count`` items into ``pieces`` consecutive ``(start, stop)`` ranges of equal size, give or take one."""
    edges = [count * i // pieces for i in range(pieces + 1)]
    return tuple(itertools.pairwise(edges))


def for_blocks(task: Callable[[int, int], T], count: int, item_bytes: int, least: int = 1) -> list[T]:
    """Call ``task(start, stop)`` for every block of ``count`` items, where any blocks give the same results.

    Returns:
        Results of the calls, in the order of the blocks; in lockstep, those of other workers are left out.
    """
    bounds = blocks(count, item_bytes, least)
    return [task(0, count)] if len(bounds) == 1 and not _in_lockstep else each(task, bounds)


def each(task: Callable[[int, int], T], bounds: Bounds) -> list[T]:
    """Call ``task(start, stop)`` for all of ``bounds`` as `for_blocks` does."""
    results: dict[int, T] = {}

    def block(index: int) -> None:
        results[index] = task(*bounds[index])

    run(block, len(bounds))
    return [results[index] for index in sorted(results)]


def run(task: Callable[[int], None], count: int) -> None:
    """Call ``task(0) ... task(count - 1)`` on all threads, started in this order; raises what a task raised.

    In lockstep, each worker calls the task for its share of the numbers, and waits for the others.
    """
    global _in_lockstep
    if _in_lockstep and _team.size > 1:
        _in_lockstep = False  # a task is a worker's own
        try:
            for index in range(_team.index, count, _team.size):
                task(index)
        finally:
            _in_lockstep = True
        _team.meet(count)
    elif count <= 1 or _pool.size == 1:
        for index in range(count):
            task(index)
    else:
        _pool.run(task, count)


_team = Team()
_in_lockstep = False


def team() -> Team:
    """Return the workers that compute together with this process."""
    return _team


def set_team(members: Team) -> None:
    """Let this process be one of ``members``."""
    global _team
    _team = members


@contextlib.contextmanager
def in_lockstep(active: bool) -> Iterator[None]:
    """Let all workers of the team work on the same tasks and arrays, inside the block; see `shards.lockstep`."""
    global _in_lockstep
    before, _in_lockstep = _in_lockstep, active
    try:
        yield
    finally:
        _in_lockstep = before


def is_in_lockstep() -> bool:
    """True inside `in_lockstep`, but not inside a task, which is one worker's own."""
    return _in_lockstep


_pool = Pool(1)


def _begin_anew() -> None:
    """Be alone, in a process forked from this one: it has none of its threads, and is none of its workers."""
    global _team, _in_lockstep, _pool
    _team, _in_lockstep, _pool = Team(), False, Pool(1)


if hasattr(os, "register_at_fork"):  # a program may fork while another of its threads trains
    os.register_at_fork(after_in_child=_begin_anew)


def hold_blas_to_one_thread() -> None:
    """Stop OpenBLAS from starting threads of its own, also where NumPy was loaded before this package."""
    # Another BLAS has no such function: then the variables set in __init__.py must do.
    with contextlib.suppress(OSError, AttributeError, KeyError):
        module = sys.modules["numpy._core._multiarray_umath"]  # through which the functions of its BLAS are found
        library = ctypes.CDLL(module.__file__)
        library.scipy_openblas_set_num_threads64_(1)


hold_blas_to_one_thread()


def available_cores() -> int:
    """Number of cores this process may use, no more than its control group lets it keep busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, math.ceil(cgroups.processors() or cores))


def set_threads(count: int | None) -> str:
    """Compute on ``count`` threads from now on; None for one per available core. Results do not depend on it.

    Returns:
        A message for the user if the system does not let so many be started; else an empty string.
    """
    global _pool
    count = available_cores() if count is None else count
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    if count != _pool.size:
        _pool.close()
        _pool = Pool(count)
    if _pool.size == count:
        return ""
    return f"only {_pool.size} of {count} threads could be started (ulimit -u, pids.max, memory); this will be slower"


_wanted: tuple[int | None, int | None] = (None, None)


def set_workers(count: int | None, most: int | None = None) -> str:
    """Compute with ``count`` workers from now on; None to choose, at ``most`` so many, by default one per core.

    Outside of training, workers are threads. Returns a message as `set_threads` does.
    """
    global _wanted
    _wanted = count, most
    return set_threads(count or most_workers())


def workers() -> int | None:
    """Number of workers that was asked for; None if it is to be chosen."""
    return _wanted[0]


def most_workers() -> int:
    """Maximum number of workers, where it is to be chosen."""
    return _wanted[1] or available_cores()


def threads() -> int:
    """Number of threads that compute."""
    return _pool.size


_slabs = arrays.Slabs()


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Allocate like np.empty, from recycled memory if the array is large; in lockstep, from memory of all workers."""
    if _in_lockstep and _team.size > 1:
        return _team.slabs.empty(shape, dtype)
    if math.prod(shape) * np.dtype(dtype).itemsize < arrays.RECYCLED_BYTES:
        return np.empty(shape, dtype)
    return _slabs.empty(shape, dtype)


def release() -> None:
    """Return free slabs and scratch memory to the operating system."""
    _slabs.release()
    arrays.forget_scratch()
