"""Hints: what a message advises to do, as data that becomes text in the words of whoever reads it.

Programs read of arguments, and users of the command line of flags. A message goes through other errors, warnings, logs
and ranks as plain text, so `cli` says beforehand how hints in it are rendered.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


class _Rendered:
    def __str__(self) -> str:
        return _render(self)


@dataclass(frozen=True)
class Argument(_Rendered):
    """An argument of the function, or option of the command, that was called; with the value to give it, if any."""

    name: str
    value: str | bool | Sequence[str] | None = None


@dataclass(frozen=True)
class Override(_Rendered):
    """An override of the config, ``KEY=VALUE``."""

    assignment: str


@dataclass(frozen=True)
class Train(_Rendered):
    """A training with these arguments of `cnnlite.train`, those that are not None."""

    arguments: Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class Download(_Rendered):
    """The command that downloads a dataset; programs have no function for it."""

    dataset: str
    root: str


Hint: TypeAlias = Argument | Override | Train | Download
"""Part of a message, such as ``f"{path}: is not a folder; name another {Argument('data')}"``."""


def words(hint: Hint) -> str:
    """Say in Python what a hint advises."""
    match hint:
        case Argument(name, value):
            return name if value is None else f"{name}={value!r}"
        case Override(assignment):
            return assignment
        case Train(arguments):
            given = (f"{name}={value!r}" for name, value in arguments.items() if value is not None)
            return f"cnnlite.train({', '.join(given)})"
        case Download(dataset, root):
            return f"`cnnlite download-cifar` ({dataset} into {root})"


_render: Callable[[Any], str] = words


@contextlib.contextmanager
def rendered_by(render: Callable[[Hint], str]) -> Iterator[None]:
    """Render hints another way inside the block."""
    global _render
    before, _render = _render, render
    try:
        yield
    finally:
        _render = before
