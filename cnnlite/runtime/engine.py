"""Blocks of samples on threads, scratch memory, recycled arrays; the only module that starts threads.

NumPy and BLAS release the interpreter lock while they compute, so plain threads use all cores. Every heavy kernel hands
this module a task and a number of items; the task is called for *blocks* of items small enough for the L2 cache. Block
boundaries follow from sizes alone, never from the number of threads, and partial sums are added in block order: the
result has the same bits with 1 thread and with 64.
"""

import contextlib
import ctypes
import itertools
import math
import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from cnnlite.runtime import cgroups
from cnnlite.utils.types import Array

T = TypeVar("T")

BLOCK_BYTES = 2 * 2**20
"""Working set of a block: about what one core keeps in its L2 cache.

Smaller blocks would mean shorter passes, and between passes threads wait for one another at the interpreter lock."""
LEAST_BYTES = 384 * 1024
"""Less work than this is not worth another block: handing one to a thread costs tens of microseconds."""


@lru_cache(maxsize=4096)
def blocks(count: int, item_bytes: int, least: int = 1) -> tuple[tuple[int, int], ...]:
    """Split ``count`` items, each touching ``item_bytes`` bytes, into consecutive ``(start, stop)`` blocks.

    A block has ``least`` items or more: a matrix product needs many rows to be worth loading its other factor.
    """
    total = count * max(item_bytes, 1)
    pieces = math.ceil(total / BLOCK_BYTES)
    if pieces < 8:  # few, so let them divide evenly among cores as far as that pays
        pieces = min(8, total // LEAST_BYTES)
    return even(count, max(1, min(count // least, pieces)))


@lru_cache(maxsize=4096)
def cache_blocks(count: int, item_bytes: int) -> tuple[tuple[int, int], ...]:
    """Split ``count`` items into as few blocks as fit in the cache, for a task that goes through them by itself."""
    return even(count, min(count, math.ceil(count * item_bytes / BLOCK_BYTES)))


@lru_cache(maxsize=4096)
def even(count: int, pieces: int) -> tuple[tuple[int, int], ...]:
    """Split ``count`` items into ``pieces`` consecutive ``(start, stop)`` ranges of equal size, give or take one."""
    edges = [count * i // pieces for i in range(pieces + 1)]
    return tuple(itertools.pairwise(edges))


def for_blocks(task: Callable[[int, int], T], count: int, item_bytes: int, least: int = 1) -> list[T]:
    """Call ``task(start, stop)`` for every block of ``count`` items, on all threads where the work is worth it.

    Returns:
        Results of the calls, in the order of the blocks.
    """
    bounds = blocks(count, item_bytes, least)
    if len(bounds) == 1:
        return [task(0, count)]
    results: dict[int, T] = {}

    def block(index: int) -> None:
        results[index] = task(*bounds[index])

    run(block, len(bounds))
    return [results[index] for index in range(len(bounds))]


def run(task: Callable[[int], None], count: int) -> None:
    """Call ``task(0) ... task(count - 1)`` on all threads, started in this order; raises what a task raised."""
    if count <= 1 or _pool.size == 1:
        for index in range(count):
            task(index)
    else:
        _pool.run(task, count)


class _Job:
    """One call of `run`: the indices still to be done, and how many are finished."""

    def __init__(self, task: Callable[[int], None], count: int):
        self.task = task
        self.count = count
        self.next_index = itertools.count().__next__  # one bytecode, so atomic
        self.finished = itertools.count(1).__next__
        self.all_done = threading.Lock()
        self.all_done.acquire()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Do tasks until none is left to start."""
        while (index := self.next_index()) < self.count:
            if self.error is None:
                try:
                    self.task(index)
                except BaseException as error:
                    self.error = error
            if self.finished() == self.count:
                self.all_done.release()


class _Pool:
    """Pool of threads that wait for jobs; the caller works too. Fewer than ``size`` if no more can be started."""

    def __init__(self, size: int):
        self._queues: list[SimpleQueue[_Job | None]] = []
        for number in range(size - 1):
            queue: SimpleQueue[_Job | None] = SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(queue,), name=f"engine-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as Python calls EAGAIN: a limit of processes, or no memory for a stack
                break
            self._queues.append(queue)
        self.size = len(self._queues) + 1

    @staticmethod
    def _serve(queue: "SimpleQueue[_Job | None]") -> None:
        np.seterr(all="ignore")  # the training loop finds values that are not finite
        while (job := queue.get()) is not None:
            job.work()
            del job  # the task holds arrays; let go of them while waiting

    def run(self, task: Callable[[int], None], count: int) -> None:
        job = _Job(task, count)
        for queue in self._queues[: count - 1]:
            queue.put(job)
        job.work()
        job.all_done.acquire()
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # its traceback refers to this frame: let go of what the task held

    def close(self) -> None:
        for queue in self._queues:
            queue.put(None)


_pool = _Pool(1)


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
        _pool = _Pool(count)
    if _pool.size == count:
        return ""
    return f"only {_pool.size} of {count} threads could be started (ulimit -u, pids.max, memory); this will be slower"


def threads() -> int:
    """Number of threads that compute."""
    return _pool.size


class _Local(threading.local):
    """Scratch memory of each thread."""

    def __init__(self) -> None:
        self.pads: dict[tuple[str, Any], Array] = {}


_local = _Local()


CACHE_LINE = 64


def aligned(count: int, dtype: Any) -> Array:
    """Allocate uninitialised memory for ``count`` numbers, beginning on a cache line.

    NumPy's own begins 16 bytes after one, so that each vector instruction would touch two: up to half the speed.
    """
    size = count * np.dtype(dtype).itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    start = -raw.__array_interface__["data"][0] % CACHE_LINE
    array: Array = raw[start : start + size].view(dtype)
    return array


def scratch(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Return uninitialised memory of this thread, reused by the next call with the same name; never leaves a kernel."""
    size = math.prod(shape)
    pads = _local.pads
    pad = pads.get((name, dtype))
    if pad is None or pad.size < size:
        pad = pads[name, dtype] = aligned(size, dtype)
    return pad[:size].reshape(shape)


RECYCLED_BYTES = 128 * 1024
"""Smaller arrays come from the allocator as fast as from here."""


_slabs: list[Array] = []
"""Memory, in bytes, that large arrays are views of, one after another."""


def _references(slabs: list[Array]) -> list[int]:
    return [sys.getrefcount(slab.base) for slab in slabs]  # of which arrays are views, as the slab itself is


_UNUSED = _references([aligned(1, np.uint8)])[0]
"""Count of `_references` for a slab that no array is a view of."""


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Allocate like np.empty, but reuse the memory of earlier large arrays that are no longer referred to.

    Fresh memory costs a page fault for every 4 KiB, as long as a pass of computing over it. A network asks for the same
    sizes each step, so after the first step no memory is allocated. An array given out is a view of a slab; CPython's
    reference count of the slab tells when the last view is gone. Only for the thread that runs the network.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < RECYCLED_BYTES:
        return np.empty(shape, dtype)
    best: Array | None = None
    for slab, references in zip(_slabs, _references(_slabs), strict=True):
        if references == _UNUSED and size <= slab.size < (2 * size if best is None else best.size):
            best = slab
    if best is None:
        best = aligned(size, np.uint8)
        _slabs.append(best)
    array: Array = best[:size].view(dtype).reshape(shape)
    return array


def release() -> None:
    """Return free slabs to the operating system."""
    held = [references > _UNUSED for references in _references(_slabs)]
    _slabs[:] = itertools.compress(_slabs, held)
