"""Progress output of a run: a bar in a terminal, plain lines elsewhere, and the same lines in log.txt."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm
from tqdm.std import TqdmDefaultWriteLock  # type: ignore[attr-defined]  # the stubs leave it out

from cnnlite.training.tensorboard import TensorBoard
from cnnlite.utils.console import mute, only_ascii, say
from cnnlite.utils.files import open_to_append, unwritable, writing
from cnnlite.utils.printable import escaped

_BAR = "{desc} {percentage:3.0f}% |{bar}| {remaining} left{postfix}"


def _columns() -> int:
    """Return the current width of the terminal; 80 if unknown."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class _Bar(tqdm):  # type: ignore[type-arg] # at run time it takes none
    """A progress bar; its defaults let it be collected half-made, about which older versions of tqdm complain."""

    last_print_t, start_t = -1.0, 0.0

    def __init__(self, **options: Any):
        self.start_t = time.time()  # before it is drawn for the first time, with the seconds since then
        super().__init__(**options)


tqdm.monitor_interval = 0  # no thread that refreshes bars: the loops refresh them
tqdm.set_lock(TqdmDefaultWriteLock.th_lock)  # the default has one for processes too, which needs /dev/shm


class _Display:
    """Shows a bar in a terminal; nothing elsewhere, or once the terminal is gone."""

    def __init__(self) -> None:
        self._bar: Any = None

    def _open(self, **style: Any) -> None:
        if sys.stderr is None or not sys.stderr.isatty():
            return
        with self._drawing():
            self._bar = _Bar(
                **style,
                ascii=True if only_ascii(sys.stderr) else None,
                ncols=_columns(),
                nrows=20,  # tqdm shows nothing on terminals that do not know their height
                leave=False,
                file=sys.stderr,
            )

    @contextlib.contextmanager
    def _drawing(self) -> Iterator[None]:
        """Continue without the bar if the terminal is gone."""
        try:
            yield
        except (OSError, ValueError):
            if self._bar is not None:
                self._bar.disable = True
                self._bar = None
            mute(sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            with self._drawing():
                self._bar.close()
            self._bar = None


class Reporter(_Display):
    """Shows progress on stderr, with a bar in a terminal, and writes a log.

    ``quiet`` shows only warnings. ``mute``, for ranks other than the first, shows and logs nothing.
    """

    def __init__(self, *, quiet: bool = False, mute: bool = False):
        super().__init__()
        self.quiet = quiet or mute
        self.mute = mute
        self.row_logs: list[TensorBoard] = []
        self._activity, self._epoch = "train", 1
        self._log: IO[str] | None = None
        self._early: list[str] = []
        self._log_path = Path()

    def open_log(self, path: Path) -> None:
        """Append all lines to this file, earlier ones too; StorageError if it cannot be written."""
        if self.mute:
            return
        with writing(path):
            file = open_to_append(path, unshare=True)
        self._log = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace")
        self._log_path = path
        early, self._early = self._early, []
        for text in early:
            self.note(text)

    def start(self, step: int, total: int, epoch: int) -> None:
        """Show progress from ``step`` to ``total``, with ``epoch`` steps per epoch."""
        self._epoch = epoch
        if not self.quiet:
            self._open(total=total, initial=step, desc=self._place(step, total), bar_format=_BAR)

    def update(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Show the current metrics; meant to be called ten times a second, not every step."""
        if self._bar is not None:
            with self._drawing():
                self._bar.n = step
                self._bar.ncols = _columns()
                self._bar.set_description_str(self._place(step, self._bar.total), refresh=False)
                figures = f"loss {loss:.3f}, acc {accuracy:.1%}, {images_per_second:,.0f} images/s"
                self._bar.set_postfix_str(figures, refresh=False)
                self._bar.refresh()

    def activity(self, name: str, step: int) -> None:
        """Show on the bar what is being done from ``step`` on: training, validation or test."""
        self._activity = name
        if self._bar is not None:
            with self._drawing():
                self._bar.n = step
                self._bar.set_description_str(self._place(step, self._bar.total))

    def _place(self, step: int, total: int) -> str:
        epochs = f"{total / self._epoch:.1f}".removesuffix(".0")
        return f"{self._activity:8} epoch {step / self._epoch:.1f}/{epochs}"

    def row(self, figures: Mapping[str, float | None], text: str) -> None:
        """Print a row of the metrics as ``text``, and pass its values to all row logs."""
        self.line(text)
        for log in self.row_logs:
            if not self.mute:
                log.row(figures)

    def line(self, text: str) -> None:
        """Print a line, unless quiet, and log it."""
        self._write(text, shown=not self.quiet)

    def warn(self, text: str) -> None:
        """Print a line even if quiet, and log it."""
        self._write(text, shown=not self.mute)

    def note(self, text: str) -> None:
        """Log a line without printing it."""
        self._write(text, shown=False)

    def _write(self, text: str, shown: bool) -> None:
        if shown:
            with self._drawing():
                if self._bar is not None:
                    self._bar.clear()
                say(text, error=True)
                if self._bar is not None:
                    self._bar.refresh()
        if self._log is None:
            self._early.append(text)
        else:
            try:
                self._log.write(escaped(text) + "\n")
                self._log.flush()
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._log.close()
                self._log = None
                raise unwritable(self._log_path, error) from error

    def close(self) -> None:
        """Remove the bar and close the logs."""
        for log in self.row_logs:
            log.close()
        self.row_logs.clear()
        super().close()
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
            self._log = None


class CountBar(_Display):
    """Shows in a terminal how many bytes are downloaded or unpacked, or how many of another ``unit`` are done."""

    def __init__(self, unit: str = "B"):
        super().__init__()
        self._unit = unit
        self._done = 0

    def __call__(self, done: int, total: int | None, /) -> None:
        """Show that ``done`` of ``total`` are done; ``total`` is None if unknown."""
        if self._bar is None or done < self._done:  # the next of several downloads
            self.close()
            self._open(total=total, initial=done, unit=self._unit, unit_scale=self._unit == "B")
        else:
            with self._drawing():
                self._bar.update(done - self._done)
        self._done = done
