"""Reads the pickles of the CIFAR datasets, with the standard library's reader cut down to what they need.

A pickle is a program for a machine with a stack (PEP 307). The machine here is `pickle._Unpickler`, written in Python:
the one in C cannot be told which instructions to refuse, and makes tables as long as a memo number says. Of its
instructions those stay that make numbers, text, lists, tuples, dicts and arrays of bytes. The three globals that the
files name are not imported but stand for functions and classes of this module. Nothing is allocated, hashed or printed
that the file does not hold.
"""

import io
import pickle
from typing import Any

import numpy as np

from cnnlite.utils.types import Array

_MOST_READS = 700_000
"""For instructions, and for what follows them; CIFAR-100's training images, the largest file, take 450,000."""


class RefusedError(Exception):
    """The pickle is damaged, or holds something that CIFAR files do not."""


class _File(io.BytesIO):
    """Ends with an error where it is short, and after more reads than any CIFAR file takes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise RefusedError("more instructions than any CIFAR file has")
        found = super().read(size)
        if len(found) != size:
            raise RefusedError("damaged or cut short")
        return found


class _Dict(dict[bytes, Any]):
    """Refuses keys that may take for ever to hash."""

    def __setitem__(self, key: bytes, value: Any) -> None:
        if type(key) is not bytes:
            raise RefusedError("a dict whose keys are not text")
        super().__setitem__(key, value)


class _Uint8:
    """The only type of numbers in an array."""

    def __init__(self, name: Any, *flags: Any):
        if name != b"u1":
            raise RefusedError("an array of another type instead of uint8")

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and the like, which mean nothing for bytes."""


class _Array:
    """An array of bytes; without content until `__setstate__`."""

    content: Array | None = None

    def __init__(self, *arguments: Any):
        """Ignore the class, shape and type of an empty array."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Uint8) or type(data) is not bytes or type(shape) is not tuple:
            raise RefusedError("an array that is not plain bytes")
        self.content = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran is True else "C")
        if self.content.shape != shape:  # a negative length fits anything
            raise RefusedError(f"an array whose shape does not fit its {len(data):,} bytes")


_GLOBALS = {("numpy.core.multiarray", "_reconstruct"): _Array, ("numpy", "ndarray"): None, ("numpy", "dtype"): _Uint8}


def _build(reader: Any) -> None:
    state = reader.stack.pop()
    if not isinstance(reader.stack[-1], _Array | _Uint8):  # others would get attributes
        raise RefusedError("damaged: it builds what is no array")
    reader.stack[-1].__setstate__(state)


def _stack_global(reader: Any) -> None:
    name, module = reader.stack.pop(), reader.stack.pop()
    reader.append(reader.find_class(module.decode(), name.decode()))


_known = pickle._Unpickler.dispatch


class _Reader(pickle._Unpickler):
    dispatch = {code: _known[code] for code in b"\x80.(NKMJ\x88\x89UTCB\x8e)t\x85\x86\x87]aesuqrhj\x94cR"} | {
        pickle.BUILD[0]: _build,
        pickle.EMPTY_DICT[0]: lambda reader: reader.append(_Dict()),
        pickle.FRAME[0]: lambda reader: reader.read(8),  # or what is in it would not be read from the file
        pickle.SHORT_BINUNICODE[0]: _known[pickle.SHORT_BINBYTES[0]],  # text is bytes, whoever wrote it
        pickle.STACK_GLOBAL[0]: _stack_global,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise RefusedError(f"it asks for {f'{module}.{name}'[:100]!r}, which CIFAR files do not need")
        return _GLOBALS[module, name]


def read_pickle(data: bytes) -> dict[bytes, Any]:
    """The dict in a CIFAR pickle, its keys as bytes and its arrays uint8; raises RefusedError."""
    try:
        content = _Reader(_File(data), encoding="bytes").load()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, pickle.UnpicklingError):
        raise RefusedError("damaged, or it holds instructions that CIFAR files do not need") from None
    if not isinstance(content, dict):
        raise RefusedError(f"a {type(content).__name__} instead of a dict")
    return {key: value.content if isinstance(value, _Array) else value for key, value in content.items()}
