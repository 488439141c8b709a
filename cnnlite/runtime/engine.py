"""Blocks of samples, shards of a batch, and workers: who computes what, so that it never changes a bit.

Every heavy kernel hands this module a task and a number of items; the task is called for *blocks* of items small enough
for the L2 cache. A batch is cut into *shards*, at places that follow from sizes alone. No block of a matrix product or
of a sum crosses them, and sums over shards are added in pairs, pairs of pairs, and so on. So whether one process
computes all shards, on one thread or several, or each worker of a team some of them, the results have the same bits.

The workers of a team run the same code, each on its own part of the batch. Where they have to work on arrays together
(weights, and what large weights are multiplied with), they are in *lockstep*: arrays are shared, tasks are divided
among them, and all wait for each other at the end.
"""

import contextlib
import ctypes
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

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
LARGE_SUM = 2**20
"""Bytes of a sum that is not kept once for each shard."""
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
    return [task(0, count)] if len(bounds) == 1 and not _in_lockstep else _each(task, bounds)


def _each(task: Callable[[int, int], T], bounds: Bounds) -> list[T]:
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
        _team.meet()
    elif count <= 1 or _pool.size == 1:
        for index in range(count):
            task(index)
    else:
        _pool.run(task, count)


# Shards


class Division(NamedTuple):
    """Division of a batch among the workers of a team."""

    shards: Bounds
    """Samples of all shards."""
    first: int
    """Of the shards of this worker, consecutive ones."""
    last: int
    """Beyond its shards; equal to ``first`` for a worker that has none."""
    additions: tuple[tuple[int, int], ...]
    """Pairs of workers ``(to, from)``: the order in which sums of all workers are added; the last one is to worker 0."""

    @property
    def own(self) -> slice:
        """Samples that this worker computes: those of its shards, or else one whose results do not count."""
        if self.first == self.last:
            return slice(0, 1)
        return slice(self.shards[self.first][0], self.shards[self.last - 1][1])


@lru_cache(maxsize=256)
def division(count: int, pieces: int, index: int, size: int) -> Division:
    """Divide ``count`` samples into ``pieces`` shards, a power of two, and those among ``size`` workers by halving."""
    owned: dict[int, tuple[int, int]] = {}
    additions: list[tuple[int, int]] = []

    def divide(first: int, last: int, begin: int, end: int) -> None:
        """Give shards ``first`` to ``last`` to the workers from ``begin`` to ``end``."""
        if end - begin == 1 or last - first == 1:
            owned[begin] = first, last
            return
        middle, half = (first + last) // 2, (begin + end + 1) // 2
        divide(first, middle, begin, half)
        divide(middle, last, half, end)
        additions.append((begin, half))

    divide(0, pieces, 0, size)
    return Division(even(count, pieces), *owned.get(index, (0, 0)), tuple(additions))


_division: Division | None = None


@contextlib.contextmanager
def divided(count: int, pieces: int) -> Iterator[Division]:
    """Divide a batch of ``count`` samples into shards, inside the block; ``pieces`` must be a power of two."""
    global _division
    _division = division(count, pieces, _team.index, _team.size)
    try:
        yield _division
    finally:
        _division = None


def shards(count: int) -> Bounds:
    """Bounds of the shards among ``count`` samples, those of this worker: one shard if no batch is divided."""
    return ((0, count),) if _division is None or _in_lockstep else _own_shards(_division, count)


@lru_cache(maxsize=256)
def _own_shards(batch: Division, count: int) -> Bounds:
    start, own = batch.own.start, batch.shards[batch.first : batch.last]
    if count != batch.own.stop - start:
        raise ValueError(f"{count} samples where this worker computes {batch.own.stop - start} of its batch")
    return tuple((first - start, last - start) for first, last in own) or ((0, count),)


def for_shards(task: Callable[[int, int], T], count: int, item_bytes: int, least: int = 1) -> list[list[T]]:
    """Call ``task(start, stop)`` for blocks of ``count`` samples that do not cross the shards.

    For matrix products, whose bits may depend on the number of rows, and for sums.

    Returns:
        Results of the calls, in order, a list for each shard.
    """
    if len(own := shards(count)) == 1:
        return [for_blocks(task, count, item_bytes, least)]
    bounds = [
        [(first + start, first + stop) for start, stop in blocks(last - first, item_bytes, least)]
        for first, last in own
    ]
    results = iter(_each(task, tuple(itertools.chain.from_iterable(bounds))))
    return [list(itertools.islice(results, len(each))) for each in bounds]


def sum_over_shards(write: Callable[[int, int, Array], object], count: int, out: Array) -> None:
    """Sum what ``write(start, stop, part)`` writes to ``part`` for the shards of ``count`` samples, into ``out``.

    On one thread the sums of a pair are added while they are in the cache. Large sums are computed one after the other,
    and ``write`` divides its work among threads.
    """
    own = shards(count)
    if len(own) == 1 or _pool.size == 1 or out.nbytes > LARGE_SUM:
        _sum_by_halves(lambda index, part: write(*own[index], part), 0, len(own), out)
        return
    parts = empty((len(own), *out.shape), out.dtype)

    def shard(index: int) -> None:
        write(*own[index], parts[index])

    run(shard, len(own))
    np.copyto(out, sum_by_pairs(parts))


def _sum_by_halves(write: Callable[[int, Array], object], first: int, last: int, out: Array) -> None:
    if last - first == 1:
        write(first, out)
        return
    middle = (first + last) // 2
    _sum_by_halves(write, first, middle, out)
    part = empty(out.shape, out.dtype)
    _sum_by_halves(write, middle, last, part)
    out += part


def sum_by_pairs(parts: Array) -> Array:
    """Sum ``parts``, as many as a power of two, over their first axis: pairs, then pairs of pairs. May change them."""
    step = 1
    while step < len(parts):
        parts[:: 2 * step] += parts[step :: 2 * step]
        step *= 2
    total: Array = parts[0]
    return total


def counts() -> bool:
    """True if the samples that this worker computes are its own, False if their results do not count."""
    return _division is None or _division.first < _division.last


def total(count: int) -> int:
    """Number of samples in the divided batch, of which this worker has ``count``."""
    return count if _division is None else _division.shards[-1][1]


def gather(rows: Array) -> Array:
    """Gather float64 ``rows``, one for each shard of this worker, from all workers: one for each shard of the batch."""
    if _division is None or _team.size == 1:
        return rows
    return _team.gather(rows[: _division.last - _division.first], _division.first, len(_division.shards))


# Workers


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
def lockstep(active: bool = True) -> Iterator[None]:
    """Work on shared arrays together with the other workers inside the block, if ``active``.

    All workers run the block. `for_blocks` and `run` divide tasks among them, and `empty` gives arrays that all share:
    only tasks may write to those. Where no batch is divided, as in evaluation, each worker goes on by itself.
    """
    global _in_lockstep
    before, _in_lockstep = _in_lockstep, active and _division is not None
    try:
        yield
    finally:
        _in_lockstep = before


def whole(x: Array) -> Array:
    """Gather the samples ``x`` of all workers, in a shared array; ``x`` itself for a team of one.

    The others may still be reading what was in that memory before: all meet first.
    """
    if _division is None or _team.size == 1:
        return x
    _team.meet()
    with lockstep():
        gathered = empty((_division.shards[-1][1], *x.shape[1:]), x.dtype)
    if _division.first < _division.last:
        gathered[_division.own] = x
    _team.meet()
    return gathered


def own(gathered: Array) -> Array:
    """Return this worker's samples of an array of the whole batch."""
    return gathered if _division is None or _team.size == 1 else gathered[_division.own]


def add_up(rows: Array, out: Array) -> None:
    """Sum ``rows``, one written by each worker, into ``out``; all workers add a part, and ``rows`` may change.

    The order is that of `sum_over_shards`, so that the number of workers does not matter.
    """
    assert _division is not None
    additions = _division.additions

    def block(start: int, stop: int) -> None:
        for to, other in additions[:-1]:
            rows[to, start:stop] += rows[other, start:stop]
        if additions:
            to, other = additions[-1]
            np.add(rows[to, start:stop], rows[other, start:stop], out=out[start:stop])
        else:
            out[start:stop] = rows[0, start:stop]

    with lockstep():
        for_blocks(block, out.size, (len(additions) + 2) * out.itemsize)


def collect(task: Callable[[int], float], count: int) -> Array:
    """Return what ``task(0) ... task(count - 1)`` return, float64, each computed by one worker or thread."""
    values = _team.numbers(count)
    with lockstep():
        run(lambda index: values.__setitem__(index, task(index)), count)
    return values.copy()


_pool = Pool(1)


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
    """Return free slabs to the operating system."""
    _slabs.release()
