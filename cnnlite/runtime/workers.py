"""Workers: processes started by this one, which make training steps together over memory that all share.

Each has an interpreter of its own, so that none waits for another's lock. How they start, serve and end is here; how
they meet and exchange numbers, in `shared_team`.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from cnnlite.errors import CnnliteError, exit_code
from cnnlite.runtime import engine, handover, processes
from cnnlite.runtime.handover import HandoverError
from cnnlite.runtime.shared_team import LINE, SharedTeam, WorkerError
from cnnlite.runtime.team import Team
from cnnlite.utils.printable import one_line
from cnnlite.utils.signals import SIGNALS

PATIENCE = 5.0
"""Seconds that workers have to end by themselves."""
_ERROR_BYTES = 2**14
_END = -1


def supported() -> bool:
    """True where workers are processes, by `processes.way`."""
    return processes.way() != "threads"


class Workers(SharedTeam):
    """Team of ``size`` processes, of which this one is the first.

    Args:
        size: number of workers, with this one.
        functions: functions that all workers call when the first one does; each takes a whole number.
        begin: called in each worker with its number, before anything else.

    Raises:
        OSError: If no more processes can be started.
        WorkerError: If workers have to be spawned, and ``functions`` cannot be handed over to them.
    """

    def __init__(self, size: int, functions: Sequence[Callable[[int], Any]], begin: Callable[[int], None]):
        super().__init__(size)
        self._functions = functions
        self._errors = engine.shared((size, _ERROR_BYTES), np.uint8)
        self._busy = True
        self._parent = os.getpid()
        self.processes: list[int] = []
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._numbers: dict[int, int] = {}
        self._held: list[handover.Packed] = []
        engine.set_threads(1)
        engine.release()
        try:
            if processes.way() == "spawn":
                self._spawn(begin)
            else:
                self._fork(begin)
            begin(0)
            self.meet()  # now it is known that all could begin
            self._held = []
        except BaseException:
            self.close()
            raise
        self._busy = False

    def _fork(self, begin: Callable[[int], None]) -> None:
        for index in range(1, self.size):
            if not (process := processes.start_copy()):
                self._serve(index, lambda: (self._functions, begin))
            self._note_process(index, process)

    def _spawn(self, begin: Callable[[int], None]) -> None:
        try:
            given = handover.pack((self._functions, begin))
            packed = handover.pack((self, given.content))
        except HandoverError as error:
            raise WorkerError(f"what they need cannot be handed over: {error}") from None
        self._held = [given, packed]
        for index in range(1, self.size):
            code = f"from cnnlite.runtime import workers; workers.serve({index}, {packed.arguments})"
            spawned = processes.start_python(code, [*given.descriptors, *packed.descriptors])
            self._spawned[spawned.pid] = spawned
            self._note_process(index, spawned.pid)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a spawned worker gets of the team; the functions come later, as they may be wrong there."""
        empty: dict[str, Any] = {"_functions": (), "_spawned": {}, "_held": []}
        return vars(self) | empty | dict.fromkeys(("_counters", "_fence"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a part of the team, in a spawned worker."""
        vars(self).update(state, _counters=state["_lines"].data, _fence=processes.fence())

    def _note_process(self, index: int, process: int) -> None:
        self.processes.append(process)
        self._numbers[process] = index

    # Life

    def attend(self) -> None:
        """Raise what keeps others from coming."""
        if self.index:
            self._end_without_parent()
            return
        self._raise_error()
        for process in self.processes:
            if (how := self._end_of(process)) is not None:
                self._raise_error()
                number = self._numbers[process]
                self.processes.remove(process)
                self._busy = True  # the others would wait for it
                raise WorkerError(f"worker {number} of {self.size} (process {process}) {how}")

    def _raise_error(self) -> None:
        """Raise what a worker has failed with, if one has."""
        if failed := self._counters[LINE]:
            if self._fence:
                self._fence()
            row = self._errors[failed]
            length = int(row[:4].view(np.int32)[0])
            text, code, error, trace = pickle.loads(row[4 : 4 + length].tobytes())  # noqa: S301 (written by a worker)
            if error is None:
                error = CnnliteError(f"worker {failed} of {self.size} failed: {text}")
                error.exit_code = code
            error.add_note(f"in worker {failed}:\n{trace}")
            raise error

    @property
    def signal(self) -> int:
        """Number of a signal that came to a worker, 0 if none did."""
        return int(self._counters[2 * LINE])

    def call(self, which: int, argument: int) -> Any:
        """Let all workers call a function with ``argument``, and return what it returns in this one."""
        self._busy = True  # until the function returns: after an error the others may be in the middle of it
        engine.set_team(self)
        try:
            self._command(which, argument)
            found = self._functions[which](argument)
        finally:
            engine.set_team(Team())
        self._busy = False
        return found

    def _command(self, which: int, argument: int) -> None:
        place = 2 * ((self._generation + 1) % 2)  # a slow worker may still be reading the command before
        self._counters[place], self._counters[place + 1] = which, argument
        self.meet()

    def _serve(self, index: int, given: Callable[[], tuple[Any, Callable[[int], None]]]) -> NoReturn:
        """Do what the first worker commands, until it says that this is the end; ``given`` returns what to begin with.

        That is the functions, and one to call before anything else.
        """
        code, self.index = 1, index
        try:
            self._prepare()
            engine.set_team(self)
            self._functions, begin = given()
            begin(index)
            self.meet()
            with np.errstate(all="ignore"):
                while True:
                    self.meet()
                    place = 2 * (self._generation % 2)
                    which, argument = self._counters[place], self._counters[place + 1]
                    if which == _END:
                        break
                    self._functions[which](argument)
            code = 0
        except BaseException as error:
            self._tell(error)
        finally:
            os._exit(code)

    def _prepare(self) -> None:
        processes.end_with_parent()
        self._end_without_parent()
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self._note)
        processes.let_signals_through()

    def _end_without_parent(self) -> None:
        if os.name == "posix" and os.getppid() != self._parent:
            os._exit(1)

    def _note(self, number: int, frame: object) -> None:
        self._counters[2 * LINE] = number

    def _tell(self, error: BaseException) -> None:
        """Leave an error to the first worker: itself, if it is an expected one, or else what it is called."""
        text, trace = (
            one_line(repr(error))[:1000],
            "".join(traceback.format_tb(error.__traceback__))[-_ERROR_BYTES // 8 :],
        )
        data = pickle.dumps((text, exit_code(error), None, trace))
        if isinstance(error, CnnliteError | MemoryError):
            with contextlib.suppress(Exception):  # of those that cannot be written, or not read again
                whole = pickle.dumps((text, 0, error, trace))
                pickle.loads(whole)  # noqa: S301 (written here)
                data = whole if len(whole) <= _ERROR_BYTES - 4 else data
        row = self._errors[self.index]
        row[4 : 4 + len(data)] = np.frombuffer(data, np.uint8)
        row[:4].view(np.int32)[0] = len(data)
        if self._fence:
            self._fence()
        self._counters[LINE] = self._counters[LINE] or self.index

    def close(self) -> None:
        """Let the other workers end, or end them; this process goes on alone."""
        try:
            if self._busy:
                self._kill()
            elif self.processes:
                self._command(_END, 0)
        except (CnnliteError, MemoryError):  # of one that failed when the first one was done
            self._kill()
        until = time.monotonic() + PATIENCE
        for process in self.processes:
            while self._end_of(process) is None:
                if time.monotonic() > until:
                    self._kill()
                time.sleep(1e-3)
        for spawned in self._spawned.values():
            spawned.communicate()  # closes the pipe to it
        self.processes = []
        self.slabs.close()

    def _kill(self) -> None:
        for process in self.processes:
            processes.kill(process)

    def _end_of(self, process: int) -> str | None:
        return processes.end_of(process, self._spawned.get(process))


def serve(index: int, *content: Any) -> NoReturn:
    """Be a worker, in a process spawned for it; ``content`` is where the first one has packed what it needs."""
    end_with_input()
    team: Workers
    team, given = handover.unpack(*content)
    team._serve(index, lambda: handover.read(given))


def end_with_input() -> None:
    """Let this process end as soon as the other end of its input is closed, as that of a process that is gone."""

    def wait() -> None:
        os.read(0, 1)  # nothing is ever written
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
