"""Signals that ask the program to end: at once, or at the next moment when nothing is half done.

A training saves and says how to resume: `Training.complete` of `training.loop`, and `training.launch`.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

# No system has all of them. Schedulers of clusters announce the end of a job's time with those of the second line.
_NAMES = (
    *("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"),
    *("SIGUSR1", "SIGUSR2", "SIGXCPU"),
)
SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class Stopped(BaseException):
    """A signal asked the program to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number
        self.name = signal.Signals(number).name
        self.hint = ""
        """Hint for the message that the user sees last."""


class StopFlag:
    """Turns the signals that ask to end into `Stopped`, raised at once or, while deferred, by `check`."""

    def __init__(self) -> None:
        self.number = 0
        """The signal that came, 0 before."""
        self._deferred = False
        self._ending = False
        self._promise = ""

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside the block; those that are ignored (nohup, background jobs) stay ignored.

        After a signal the program is about to end, and SIGINT stays ignored.
        """
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            if self.number and signal.SIGINT in before:
                before[signal.SIGINT] = signal.SIG_IGN  # it would only break the exit of Python
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self, promise: str = "") -> Iterator[None]:
        """Defer signals inside the block, which calls `check` where it can end.

        ``promise`` is the answer to Ctrl-C at a terminal, where somebody waits.
        """
        self._deferred, self._promise = True, promise
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.number:
            self.end(self.number)

    def end(self, number: int) -> NoReturn:
        """Raise Stopped; no later signal raises it again, as SIGXCPU comes each second, during cleanup too."""
        self._ending = True
        raise Stopped(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            os._exit(128 + number)  # asked twice: no saving, no cleaning up, files are whole at any moment
        self.number = self.number or number
        if not self._deferred and not self._ending:
            self.end(self.number)
        if self._promise and number == signal.SIGINT:
            with contextlib.suppress(OSError):
                if os.isatty(2):  # not by way of sys.stderr, in whose middle the signal may have come
                    os.write(2, f"\n{self._promise}\n".encode(errors="backslashreplace"))
