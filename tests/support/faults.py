"""Faults of the operating system on order: the n-th call that writes fails, or is the last that the process makes."""

import builtins
import contextlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

CALLS = ("open", "close", "fsync", "link", "replace", "unlink", "truncate", "mkdir")
"""Functions of `os` that are watched; so are opening, writing and closing files for writing with `open`."""


class Faults:
    """Counts the calls made while it is `watching`, and lets something happen at one of them."""

    def __init__(self, at: int, act: Callable[[], None], *, lasting: bool = False):
        self.at = at
        self.act = act
        self.lasting = lasting
        self.calls: list[str] = []
        self._plain_open = builtins.open

    def point(self, name: str) -> None:
        """Take note of a call that is about to be made."""
        self.calls.append(name)
        if len(self.calls) == self.at or (self.lasting and len(self.calls) > self.at):
            self.act()

    @contextlib.contextmanager
    def watching(self) -> Iterator["Faults"]:
        """Replace `open` and functions of `os` inside the block, whoever calls them."""
        before = {name: getattr(os, name) for name in CALLS}
        for name, function in before.items():
            setattr(os, name, self._watched(name, function))
        builtins.open = self._open
        try:
            yield self
        finally:
            builtins.open = self._plain_open
            for name, function in before.items():
                setattr(os, name, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name == "close":  # which lets go of the descriptor even where it reports an error
                function(*arguments)
                return self.point(name)
            self.point(name)
            return function(*arguments, **options)

        return call

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "b" not in mode or not set(mode) & set("wax+"):
            return self._plain_open(file, mode, *arguments, **options)
        self.point("open file")
        raw = _Raw(file, mode.replace("b", ""))
        raw.faults = self
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)


class _Raw(io.FileIO):
    faults: Faults

    def write(self, data: Any, /) -> int:
        self.faults.point("write")
        return super().write(memoryview(data)[:4000])  # a short write, which is anybody's right

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.faults.point("close file")


def failing(number: int) -> Callable[[], None]:
    """Make an act that raises the OSError of this number."""

    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def dying() -> None:
    """End the process without giving it a chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)
