"""Shards: fixed parts of a batch, so that whoever computes them, and on how many cores, changes no bit.

A batch is cut into shards at places that follow from sizes alone. No block of a matrix product or of a sum crosses
them, and sums over shards are added in pairs, pairs of pairs, and so on. One process computes all shards, on one thread
or several, or each worker of a team some of them.

The workers of a team run the same code, each on its own part of the batch. Where they have to work on arrays together
(weights, and what large weights are multiplied with), they are in *lockstep*: arrays are shared, tasks are divided
among them, and all wait for each other at the end.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from cnnlite.runtime import engine
from cnnlite.utils.types import Array

T = TypeVar("T")

LARGE_SUM = 2**20
"""Bytes of a sum that is not kept once for each shard."""


class Division(NamedTuple):
    """Division of a batch among the workers of a team."""

    shards: engine.Bounds
    """Samples of all shards."""
    first: int
    """Of the shards of this worker, consecutive ones."""
    last: int
    """Beyond its shards; equal to ``first`` for a worker that has none."""
    additions: tuple[tuple[int, int], ...]
    """Pairs of workers ``(to, from)``, in the order in which their sums are added; the last one is to worker 0."""

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
    return Division(engine.even(count, pieces), *owned.get(index, (0, 0)), tuple(additions))


_division: Division | None = None


def _begin_anew() -> None:
    global _division
    _division = None


if hasattr(os, "register_at_fork"):  # see `engine`
    os.register_at_fork(after_in_child=_begin_anew)


@contextlib.contextmanager
def divided(count: int, pieces: int) -> Iterator[Division]:
    """Divide a batch of ``count`` samples into shards, inside the block; ``pieces`` must be a power of two."""
    global _division
    _division = division(count, pieces, engine.team().index, engine.team().size)
    try:
        yield _division
    finally:
        _division = None


MOST_SHARDS = 8
"""Number of shards of a large batch: as many workers can share it."""


def power_of_two(number: int) -> int:
    """Greatest power of two that is not above ``number``, from 1 to `MOST_SHARDS`."""
    return 1 << (max(1, min(MOST_SHARDS, number)).bit_length() - 1)


def bounds(count: int) -> engine.Bounds:
    """engine.Bounds of the shards among ``count`` samples, those of this worker: one shard if no batch is divided."""
    return ((0, count),) if _division is None or engine.is_in_lockstep() else _own_shards(_division, count)


@lru_cache(maxsize=256)
def _own_shards(batch: Division, count: int) -> engine.Bounds:
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
    if len(own := bounds(count)) == 1:
        return [engine.for_blocks(task, count, item_bytes, least)]
    cuts = [
        [(first + start, first + stop) for start, stop in engine.blocks(last - first, item_bytes, least)]
        for first, last in own
    ]
    results = iter(engine.each(task, tuple(itertools.chain.from_iterable(cuts))))
    return [list(itertools.islice(results, len(each))) for each in cuts]


def sum_over_shards(write: Callable[[int, int, Array], object], count: int, out: Array) -> None:
    """Sum what ``write(start, stop, part)`` writes to ``part`` for the shards of ``count`` samples, into ``out``.

    On one thread the sums of a pair are added while they are in the cache. Large sums are computed one after the other,
    and ``write`` divides its work among threads.
    """
    own = bounds(count) if _division is not None else engine.even(count, power_of_two(count))
    if len(own) == 1 or engine.threads() == 1 or out.nbytes > LARGE_SUM:
        _sum_by_halves(lambda index, part: write(*own[index], part), 0, len(own), out)
        return
    parts = engine.empty((len(own), *out.shape), out.dtype)

    def shard(index: int) -> None:
        write(*own[index], parts[index])

    engine.run(shard, len(own))
    np.copyto(out, sum_by_pairs(parts))


def _sum_by_halves(write: Callable[[int, Array], object], first: int, last: int, out: Array) -> None:
    if last - first == 1:
        write(first, out)
        return
    middle = (first + last) // 2
    _sum_by_halves(write, first, middle, out)
    part = engine.empty(out.shape, out.dtype)
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
    if _division is None or engine.team().size == 1:
        return rows
    return engine.team().gather(rows[: _division.last - _division.first], _division.first, len(_division.shards))


@contextlib.contextmanager
def lockstep(active: bool = True) -> Iterator[None]:
    """Work on shared arrays together with the other workers inside the block, if ``active``.

    All workers run the block. `for_blocks` and `run` divide tasks among them, and `empty` gives arrays that all share:
    only tasks may write to those. Where no batch is divided, as in evaluation, each worker goes on by itself.
    """
    with engine.in_lockstep(active and _division is not None):
        yield


def whole(x: Array) -> Array:
    """Gather the samples ``x`` of all workers, in a shared array; ``x`` itself for a team of one.

    The others may still be reading what was in that memory before: all meet first.
    """
    if _division is None or engine.team().size == 1:
        return x
    engine.team().meet()
    with lockstep():
        gathered = engine.empty((_division.shards[-1][1], *x.shape[1:]), x.dtype)
    if _division.first < _division.last:
        gathered[_division.own] = x
    engine.team().meet()
    return gathered


def own(gathered: Array) -> Array:
    """Return this worker's samples of an array of the whole batch."""
    return gathered if _division is None or engine.team().size == 1 else gathered[_division.own]


def add_up(rows: Array, out: Array) -> None:
    """Sum ``rows``, one written by each worker, into ``out``; all workers add a part, and ``rows`` may change.

    The order is that of `sum_over_shards`, so that the number of workers does not matter.
    """
    additions = _division.additions if _division is not None else ()

    def block(start: int, stop: int) -> None:
        for to, other in additions[:-1]:
            rows[to, start:stop] += rows[other, start:stop]
        if additions:
            to, other = additions[-1]
            np.add(rows[to, start:stop], rows[other, start:stop], out=out[start:stop])
        else:
            out[start:stop] = rows[0, start:stop]

    with lockstep():
        engine.for_blocks(block, out.size, (len(additions) + 2) * out.itemsize)


def collect(task: Callable[[int], float], count: int) -> Array:
    """Return what ``task(0) ... task(count - 1)`` return, float64, each computed by one worker or thread."""
    values = engine.team().numbers(count)
    with lockstep():
        engine.run(lambda index: values.__setitem__(index, task(index)), count)
    return values.copy()
