"""Handover to processes that are started, not forked: memory that they map too, and objects with arrays in it."""

import io
import mmap
import os
import pickle
import secrets
import sys
import tempfile
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from cnnlite.errors import CnnliteError
from cnnlite.utils.types import Array, DType, Shape

_LARGE = 2**16
"""Bytes from which an array is put into memory that all map, and not copied by each process."""

HANDED_OVER = "__handed_over__"
"""Name of a function in a module that no process can import by its name: as `__reduce__`, for what is defined there."""


class HandoverError(CnnliteError):
    """Something cannot be handed over."""


class MemoryFile:
    """Memory that other processes can map; it grows to what is mapped.

    Linux has files that are in memory alone and have no name, Windows memory with a name; elsewhere it is a temporary
    file, without a name any more, which the system need not write before memory is scarce.
    """

    handle: int | str
    """Descriptor of the file, or the name of the memory."""
    _is_own = False

    def __init__(self) -> None:
        if os.name == "nt":
            self.handle = f"cnnlite-{os.getpid()}-{secrets.token_hex(8)}"
        elif hasattr(os, "memfd_create"):
            self.handle = os.memfd_create("cnnlite", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile(prefix="cnnlite-") as file:
                self.handle = os.dup(file.fileno())
        self._is_own = True

    @staticmethod
    def opened(handle: int | str) -> "MemoryFile":
        """Return the file that another process has made; it stays open in this one."""
        file = MemoryFile.__new__(MemoryFile)
        file.handle = handle
        return file

    def map(self, start: int, size: int, access: int = mmap.ACCESS_DEFAULT) -> "Memory":
        """Map ``size`` bytes from ``start``, zeros at first; both are multiples of the size of a page."""
        if isinstance(self.handle, str):
            named: dict[str, Any] = {"tagname": f"{self.handle}-{start}"}
            memory = Memory(-1, size, access=access, **named)
        else:
            if os.fstat(self.handle).st_size < start + size:
                os.ftruncate(self.handle, start + size)  # by each process that comes here, to the same size
            memory = Memory(self.handle, size, access=access, offset=start)
        memory.file, memory.start = self, start
        return memory

    def close(self) -> None:
        """Give the file back; what is mapped stays."""
        if self._is_own and isinstance(self.handle, int):
            os.close(self.handle)
        self._is_own = False

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return MemoryFile.opened, (self.handle,)


class Memory(mmap.mmap):
    """Part of a `MemoryFile` in the memory of this process."""

    file: MemoryFile
    start: int


class Unnamed(mmap.mmap):
    """Memory that this process can share only with those that are forked from it."""


class Packed(NamedTuple):
    """Result of `pack`."""

    content: Array
    """Bytes for `unpack`, in memory that another process can map."""
    descriptors: set[int]
    """Files that the process has to inherit."""
    held: list[Array]
    """Arrays that must not be freed before the process has unpacked everything."""

    @property
    def arguments(self) -> str:
        """Arguments for `unpack`, as Python."""
        owner = _owner(self.content)
        return f"{owner.file.handle!r}, {len(owner)}, {self.content.size}"


def pack(value: object) -> Packed:
    """Write an object down for another process.

    Arrays in a `Memory` are the same ones for both. Others are the process's own, as if it were forked: large ones are
    copied when it writes to them, and mapped files are opened again.

    Raises:
        HandoverError: If something in it cannot be written down, or not be read by another process.
    """
    written = io.BytesIO()
    pickler = _Pickler(written)
    try:
        pickler.dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise HandoverError(str(error)) from None
    content = pickler.copied(np.frombuffer(written.getbuffer(), np.uint8))
    pickler.note(_owner(content).file)
    return Packed(content, pickler.descriptors, pickler.held)


def unpack(handle: int | str, mapped: int, size: int) -> Any:
    """Read what another process has packed."""
    return pickle.loads(memoryview(_mapped(handle, 0, mapped))[:size])  # noqa: S301 (written by this program)


def read(content: Array) -> Any:
    """Read what another process has packed, from an array that was itself handed over."""
    return pickle.loads(content.data)  # noqa: S301 (written by this program)


class _Pickler(pickle.Pickler):
    """Pickler that leaves arrays where they are, and notes the files that they are in."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, 5)
        self.descriptors: set[int] = set()
        self.held: list[Array] = []

    def note(self, file: MemoryFile) -> None:
        """Note a file that the other process needs."""
        if isinstance(file.handle, int):
            self.descriptors.add(file.handle)

    def copied(self, array: Array) -> Array:
        """Copy an array to memory that other processes can map."""
        memory = MemoryFile().map(0, whole_pages(array.nbytes))
        order: Any = "F" if array.flags.fnc else "C"
        copy: Array = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape, order=order)
        copy[...] = array
        self.held.append(copy)
        return copy

    def reducer_override(self, value: Any) -> Any:
        """Return how an object is written, where that is not as usual."""
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            advice = "in a module that it imports, processes can share it"
            raise pickle.PicklingError(f"{value.__qualname__} is defined in the program itself; {advice}")
        if isinstance(value, type | FunctionType) and (write := getattr(_module(value), HANDED_OVER, None)):
            return write(value)
        if isinstance(value, MemoryFile):
            self.note(value)
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return NotImplemented
        owner, access = _owner(value), mmap.ACCESS_DEFAULT
        if not isinstance(owner, Memory | np.memmap):
            if isinstance(owner, Unnamed):
                raise pickle.PicklingError("an array is in memory that only forked processes share")
            if value.nbytes < _LARGE:
                return NotImplemented
            copy = self.copied(value)
            copy.flags.writeable = value.flags.writeable
            value, owner, access = copy, _owner(copy), mmap.ACCESS_COPY
        first = owner if isinstance(owner, np.memmap) else np.frombuffer(owner, np.uint8)
        view = (_address(value) - _address(first), value.shape, value.strides, value.dtype, value.flags.writeable)
        if isinstance(owner, np.memmap):
            return _view_of_file, (owner.filename, owner.offset, owner.nbytes, *view)
        self.note(owner.file)
        return _view, (owner.file.handle, owner.start, len(owner), access, *view)


def _module(value: type | FunctionType) -> ModuleType | None:
    return sys.modules.get(value.__module__)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _owner(array: Array) -> Any:
    """Find what an array is a view of: a mapped file, a piece of memory, or whatever holds its numbers."""
    base: Any = array
    while isinstance(base, np.ndarray) and not (isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap)):
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def whole_pages(size: int) -> int:
    """Round a size up to that of whole pages, one or more."""
    return -(-max(1, size) // mmap.PAGESIZE) * mmap.PAGESIZE


@cache
def _mapped(handle: int | str, start: int, size: int, access: int = mmap.ACCESS_DEFAULT) -> Memory:
    return MemoryFile.opened(handle).map(start, size, access)


def _view(handle: int | str, start: int, size: int, access: int, *view: Any) -> Array:
    return _viewed(_mapped(handle, start, size, access), *view)


def _view_of_file(name: str, start: int, size: int, *view: Any) -> Array:
    return _viewed(np.memmap(name, np.uint8, "r", start, (size,)), *view)


def _viewed(memory: Any, place: int, shape: Shape, strides: Shape, dtype: DType, writeable: bool) -> Array:
    array: Array = np.ndarray(shape, dtype, memory, place, strides)
    array.flags.writeable &= writeable
    return array
