"""Processes of workers: where they are forked and where spawned, how they start, and how they end."""

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Literal, TypeAlias, get_args

from cnnlite.errors import ConfigError, Problem
from cnnlite.utils.signals import SIGNALS

Way: TypeAlias = Literal["fork", "spawn", "threads"]
"""A worker is a copy of this process, a process that begins anew, or a thread of this one."""

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_X86 = ("x86_64", "amd64")
_CHOICE = "CNNLITE_WORKERS"


def way() -> Way:
    """Return how workers are started: as the environment variable CNNLITE_WORKERS says, or else the best way here."""
    asked = os.environ.get(_CHOICE)
    if not asked:
        return _best()
    if asked not in get_args(Way) or (asked == "fork" and not hasattr(os, "fork")):
        raise ConfigError([Problem(_CHOICE, f"{asked!r:.60} is not fork (not on Windows), spawn or threads")])
    return asked  # type: ignore[return-value]


def _best() -> Way:
    """Return the best way on this system.

    - Without the global lock of Python, threads use all cores, and need no copies.
    - Fork takes a millisecond, and copies nothing. On macOS it is not safe once libraries of the system have run, and
      Windows has none.
    - Others than x86-64 may show a counter before what was written before it, and need a fence, see `fence`.
    - A program that is frozen into one file is no Python that could be started once more.
    """
    ordered = platform.machine().lower() in _X86
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "threads"
    if sys.platform == "linux":
        return "fork" if ordered and hasattr(os, "memfd_create") else "threads"
    if getattr(sys, "frozen", False) or not sys.executable:
        return "threads"
    return "spawn" if ordered or fence() is not None else "threads"


@cache
def fence() -> Callable[[], object] | None:
    """Return the function that keeps all reads and writes before it before those after it; None where none is known.

    Only processors that change their order need one. That of macOS is in libSystem, see OSMemoryBarrier(3).
    """
    if sys.platform != "darwin":
        return None
    function: Callable[[], object] | None = getattr(ctypes.CDLL(None), "OSMemoryBarrier", None)
    return None if platform.machine().lower() in _X86 else function


def start_copy() -> int:
    """Copy this process; returns the number of the copy, and 0 in it."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return os.fork()  # other threads of this process are not ours; a worker needs none of them


def start_python(code: str, files: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Start Python with the statement ``code``, and ``files`` open; its input ends when this process does.

    It finds modules where this process does, and does not import the program's main module, which might train.
    """
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!a}; {code}"]
    with _held_signals():
        return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=files)  # noqa: S603 (this program)


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Hold signals back inside the block; a process started there has to let them through, by `let_signals_through`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_through() -> None:
    """Let signals through that were held back while this process started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_of(process: int, spawned: "subprocess.Popen[bytes] | None") -> str | None:
    """Say how a worker ended; None if it has not."""
    if spawned is not None:
        code = spawned.poll()
    else:
        try:
            done, status = os.waitpid(process, os.WNOHANG)
        except ChildProcessError:  # the program ignores SIGCHLD, or waits for all its children
            return "is gone"
        code = os.waitstatus_to_exitcode(status) if done else None
    if code is None:
        return None
    reason = "; was there too little memory?" if code == -KILL else ""
    return f"was killed by {signal.Signals(-code).name}{reason}" if code < 0 else f"ended with exit code {code}"


def kill(process: int) -> None:
    """End a worker at once, if it has not ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # which is what Windows says of one that has ended
        os.kill(process, KILL)


def end_with_parent() -> None:
    """Let the system end this process as soon as its parent ends, where it can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, KILL)  # PR_SET_PDEATHSIG
