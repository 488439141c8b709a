"""Memory of arrays: aligned, recycled, scratch, and shared with workers."""

import contextlib
import itertools
import math
import mmap
import os
import sys
import threading
from typing import Any

import numpy as np

from cnnlite.runtime.handover import MemoryFile, Unnamed, whole_pages
from cnnlite.runtime.processes import way
from cnnlite.utils.types import Array, Shape

CACHE_LINE = 64
HUGE_PAGE = 2**21
RECYCLED_BYTES = 128 * 1024
"""Smaller arrays come from the allocator as fast as from `Slabs`."""
_CHUNK_BYTES = 2**20
"""Shared memory is taken from the system in pieces of at least this size."""
_FILE_BYTES = 2**24
"""The same where each piece is a file, as some systems let a process have few of them."""


def aligned(count: int, dtype: Any) -> Array:
    """Allocate uninitialised memory for ``count`` numbers, beginning on a cache line.

    NumPy's own begins 16 bytes after one, so that each vector instruction would touch two: up to half the speed.
    """
    size = count * np.dtype(dtype).itemsize
    array: Array = _bytes(size, CACHE_LINE)[:size].view(dtype)
    return array


def _bytes(size: int, alignment: int) -> Array:
    raw = np.empty(size + alignment, np.uint8)
    start = -raw.__array_interface__["data"][0] % alignment
    return raw[start : start + size]


class Pages:
    """Memory in huge pages, where the system has them: large arrays begin on one, smaller ones share one.

    Long strides over pages of 4 KiB cost more for finding the pages than for the numbers. It comes from the system, and
    goes back to it, by itself: freed memory of the C library stays with the process, and with each that is forked.
    """

    def __init__(self) -> None:
        self._page = memoryview(b"")
        """Rest of the page that small arrays share."""

    def allocate(self, size: int) -> Array:
        """Allocate ``size`` bytes, uninitialised, beginning on a cache line, as the whole of their ``base``."""
        if size >= HUGE_PAGE:
            return self._from_system(size)[:]
        taken = -(-size // CACHE_LINE) * CACHE_LINE
        if taken > len(self._page):
            self._page = self._from_system(HUGE_PAGE).data
        whole, self._page = np.frombuffer(self._page, np.uint8, size), self._page[taken:]
        return whole[:]

    def _from_system(self, size: int) -> Array:
        if not hasattr(mmap, "MADV_HUGEPAGE"):
            return np.frombuffer(_bytes(size, CACHE_LINE), np.uint8)
        try:
            place = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:
            message = f"Unable to allocate {size / 2**20:.4g} MiB for an array"  # as NumPy says it
            raise MemoryError(message) from None
        start = -np.frombuffer(place, np.uint8).__array_interface__["data"][0] % HUGE_PAGE
        with contextlib.suppress(OSError):  # a system built without them
            place.madvise(mmap.MADV_HUGEPAGE, start, size - size % HUGE_PAGE)
        return np.frombuffer(place, np.uint8, size, start)


class _Local(threading.local):
    """Scratch memory of each thread."""

    def __init__(self) -> None:
        self.pads: dict[tuple[str, Any], Array] = {}
        self.pages = Pages()


_local = _Local()


def scratch(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Return uninitialised memory of this thread, reused by the next call with the same name; never leaves a kernel."""
    size = math.prod(shape)
    pads = _local.pads
    pad = pads.get((name, dtype))
    if pad is None or pad.size < size:
        pad = pads[name, dtype] = _local.pages.allocate(size * np.dtype(dtype).itemsize).view(dtype)
    return pad[:size].reshape(shape)


def forget_scratch() -> None:
    """Give back the scratch memory of this thread, which must not be computing."""
    _local.pads, _local.pages = {}, Pages()


def _references(slabs: list[Array]) -> list[int]:
    return [sys.getrefcount(slab.base) for slab in slabs]  # of which arrays are views, as the slab itself is


_UNUSED = _references([Pages().allocate(1)])[0]
"""Count of `_references` for a slab that no array is a view of."""


class Slabs:
    """Memory that large arrays are views of, one after another.

    Fresh memory costs a page fault for every 4 KiB, as long as a pass of computing over it. A network asks for the same
    sizes each step, so after the first step no memory is allocated. An array given out is a view of a slab; CPython's
    reference count of the slab tells when the last view is gone. Only for the thread that runs the network.
    """

    def __init__(self) -> None:
        self._slabs: list[Array] = []
        self._pages = Pages()

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Allocate like np.empty, but reuse the memory of earlier arrays that are no longer referred to."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        best: Array | None = None
        for slab, references in zip(self._slabs, _references(self._slabs), strict=True):
            if references == _UNUSED and size <= slab.size < (2 * size if best is None else best.size):
                best = slab
        if best is None:
            best = self.allocate(size)
            self._slabs.append(best)
        array: Array = best[:size].view(dtype).reshape(shape)
        return array

    def allocate(self, size: int) -> Array:
        """Allocate ``size`` bytes for another slab."""
        return self._pages.allocate(size)

    def release(self) -> None:
        """Return free slabs to the operating system."""
        held = [references > _UNUSED for references in _references(self._slabs)]
        self._slabs[:] = itertools.compress(self._slabs, held)


_chunk = memoryview(b"")
"""Shared memory that is still to be given out, by this process alone."""


def _forget_chunk() -> None:
    global _chunk
    _chunk = memoryview(b"")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_chunk)


def shared(shape: Shape, dtype: Any) -> Array:
    """Allocate zeros that this process and the workers that it will start have in common."""
    global _chunk
    count = math.prod(shape)
    size = -(-count * np.dtype(dtype).itemsize // CACHE_LINE) * CACHE_LINE
    place = _chunk
    if size > len(place):
        place = memoryview(_fresh(size))
    if len(place) - size >= len(_chunk) or place is _chunk:
        _chunk = place[size:]  # what is left of it is given out next
    array: Array = np.frombuffer(place, dtype, count).reshape(shape)
    return array


def _fresh(size: int) -> mmap.mmap:
    if way() == "spawn":
        with contextlib.suppress(OSError):  # there can be no more files: then they cannot be shared, which is found
            return MemoryFile().map(0, whole_pages(max(size, _FILE_BYTES)))
    return Unnamed(-1, max(size, _CHUNK_BYTES))
