"""Reads the pickles of the CIFAR datasets without running what a pickle asks for: Python's own pickle is not used.

A pickle is a program for a machine with a stack (PEP 307). This machine knows only the instructions that make numbers,
text, lists, tuples, dicts and arrays of bytes. The three globals that the files name are matched and not imported, and
every other instruction or global is refused. Nothing is allocated, hashed or printed that the file does not hold:
memo numbers, announced lengths and nested keys of a hostile file cost nothing.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from cnnlite.utils.types import Array

_MOST_INSTRUCTIONS = 1_000_000
"""CIFAR-100's training images, the largest file, take 200,000."""
_MOST_DIMENSIONS = 4


class RefusedError(Exception):
    """The pickle is damaged, or holds something that CIFAR files do not."""


class _Global:
    """A name that a pickle may ask for."""


_RECONSTRUCT, _NDARRAY, _DTYPE = _Global(), _Global(), _Global()
_GLOBALS = {
    (b"numpy.core.multiarray", b"_reconstruct"): _RECONSTRUCT,
    (b"numpy", b"ndarray"): _NDARRAY,
    (b"numpy", b"dtype"): _DTYPE,
}
_UINT8 = object()
"""The only type of numbers in an array."""


class _Array:
    """An array; without content until BUILD."""

    content: Array | None = None

    def fill(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if dtype is not _UINT8 or type(data) is not bytes or type(shape) is not tuple:
            raise RefusedError("an array that is not plain bytes")
        whole = len(shape) <= _MOST_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
        if not whole or math.prod(shape) != len(data):
            raise RefusedError(f"an array whose shape does not fit its {len(data):,} bytes")
        self.content = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran is True else "C")


class _Machine:
    """Carries out one pickle."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_INSTRUCTIONS):
            code = self.data[self.at : self.at + 1]
            self.at += 1
            if (operation := _OPERATIONS.get(code)) is not None:
                operation(self)
            elif code == b".":
                return self.stack.pop()
            else:
                what = f"it holds the instruction {code!r}, which CIFAR files do not need" if code else "cut short"
                raise RefusedError(f"damaged, or {what}")
        raise RefusedError("more instructions than any CIFAR file has")

    def take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if count < 0 or self.at > len(self.data):
            raise RefusedError("damaged or cut short")
        return self.data[start : self.at]

    def number(self, count: int, signed: bool = False) -> int:
        if count > 8:
            raise RefusedError("a number beyond 64 bits")
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + 100)
        line = self.take(end - self.at)
        self.at += 1
        return line

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def last(self, count: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(target) is not dict or type(key) is not bytes:
                raise RefusedError("a dict whose keys are not text")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedError("damaged: a list is no list")
        self.stack[-1].extend(items)

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not bytes or type(name) is not bytes or (module, name) not in _GLOBALS:
            asked = b".".join((module, name)).decode("latin-1")  # TypeError if they are no text
            raise RefusedError(f"it asks for {asked!r}, which CIFAR files do not need")
        self.stack.append(_GLOBALS[module, name])

    def call(self) -> None:
        function, arguments = self.last(2)
        if function is _RECONSTRUCT:
            self.stack.append(_Array())
        elif function is _DTYPE and type(arguments) is tuple and arguments[:1] == (b"u1",):
            self.stack.append(_UINT8)
        else:
            raise RefusedError("an array of another type instead of uint8")

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Array):
            self.stack[-1].fill(state)
        elif self.stack[-1] is not _UINT8:  # whose state is byte order and the like, which mean nothing for bytes
            raise RefusedError("damaged: it builds what is no array")


_Operation: TypeAlias = Callable[[_Machine], Any]


def _push(value: Callable[[_Machine], Any]) -> _Operation:
    return lambda machine: machine.stack.append(value(machine))


def _put(size: int) -> _Operation:
    return lambda machine: machine.memo.__setitem__(machine.number(size), machine.stack[-1])


def _get(size: int) -> _Operation:
    return _push(lambda machine: machine.memo[machine.number(size)])


def _bytes(size: int) -> _Operation:
    return _push(lambda machine: machine.take(machine.number(size)))


_OPERATIONS: dict[bytes, _Operation] = {
    b"\x80": lambda machine: machine.take(1),  # PROTO
    b"\x95": lambda machine: machine.take(8),  # FRAME
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"N": _push(lambda machine: None),
    b"\x88": _push(lambda machine: True),
    b"\x89": _push(lambda machine: False),
    b"K": _push(lambda machine: machine.number(1)),
    b"M": _push(lambda machine: machine.number(2)),
    b"J": _push(lambda machine: machine.number(4, signed=True)),
    b"\x8a": _push(lambda machine: machine.number(machine.number(1), signed=True)),  # LONG1
    b"U": _bytes(1),
    b"C": _bytes(1),
    b"\x8c": _bytes(1),  # SHORT_BINUNICODE
    b"T": _bytes(4),
    b"B": _bytes(4),
    b"\x8e": _bytes(8),  # BINBYTES8
    b"]": _push(lambda machine: []),
    b"}": _push(lambda machine: {}),
    b")": _push(lambda machine: ()),
    b"t": _push(lambda machine: tuple(machine.since_mark())),
    b"\x85": _push(lambda machine: machine.last(1)),
    b"\x86": _push(lambda machine: machine.last(2)),
    b"\x87": _push(lambda machine: machine.last(3)),
    b"a": lambda machine: machine.extend([machine.stack.pop()]),
    b"e": lambda machine: machine.extend(machine.since_mark()),
    b"s": lambda machine: machine.set_items(list(machine.last(2))),
    b"u": lambda machine: machine.set_items(machine.since_mark()),
    b"q": _put(1),
    b"r": _put(4),
    b"\x94": lambda machine: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),  # MEMOIZE
    b"h": _get(1),
    b"j": _get(4),
    b"c": lambda machine: machine.find(machine.line(), machine.line()),
    b"\x93": lambda machine: machine.find(*machine.last(2)),  # STACK_GLOBAL
    b"R": _Machine.call,
    b"b": _Machine.build,
}


def read_pickle(data: bytes) -> dict[bytes, Any]:
    """The dict in a CIFAR pickle, its keys as bytes and its arrays uint8; raises RefusedError."""
    try:
        content = _Machine(data).run()
    except (IndexError, KeyError, ValueError, TypeError):
        raise RefusedError("damaged: its instructions make no sense") from None
    if not isinstance(content, dict):
        raise RefusedError(f"a {type(content).__name__} instead of a dict")
    return {key: value.content if isinstance(value, _Array) else value for key, value in content.items()}
