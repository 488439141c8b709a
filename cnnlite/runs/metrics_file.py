"""The CSV file of a run's metrics."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cnnlite.errors import StorageError
from cnnlite.utils.files import is_missing, is_special, open_to_append, reading, replacing, writing

_LONGEST_LINE = 10_000
"""Bytes; longer lines were not written by cnnlite, and are read as several."""

OLDEST = 9
"""Number of columns of the first versions."""
COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "lr",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "images_per_second",
    "validation_balanced_accuracy",
    "validation_macro_f1",
)
"""Names of the columns. New ones come last: rows of an older version lack fields at their end."""


class MetricsFile:
    """A CSV file with one row per evaluation: appended to, truncated on resume, never with a row twice.

    A file of an older version, with fewer columns, gets the others when it is cut back, before anything is appended.
    ``before`` is called before each write, and may refuse it.
    """

    def __init__(self, path: Path, before: Callable[[], object] = lambda: None):
        self.path = path
        self._before = before

    def append(self, row: Mapping[str, float | None]) -> None:
        """Append a row, with an empty field for a missing value; StorageError if it cannot be written."""
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise ValueError(f"no such columns: {', '.join(sorted(unknown))}")
        text = ",".join(_field(row.get(column)) for column in COLUMNS) + "\n"
        self._before()
        with writing(self.path), open_to_append(self.path, unshare=True) as file:
            if file.tell() == 0:
                text = ",".join(COLUMNS) + "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def cut_back(self, step: int) -> None:
        """Remove the rows after ``step``, and any incomplete row of a killed process."""
        if is_missing(self.path):
            return
        self._before()
        if self.path.is_symlink() or is_special(self.path):  # nothing could be appended to it later
            raise StorageError(f"{self.path}: is not a regular file; remove it")
        with reading(self.path):
            missing = len(COLUMNS) - self._width()
            if not missing and all(kept for _, kept in self._lines(step)):
                return
            with replacing(self.path) as file:
                file.write(_header(COLUMNS))
                rows = (line for line, kept in itertools.islice(self._lines(step), 1, None) if kept)
                file.writelines(row.removesuffix(b"\n") + b"," * missing + b"\n" for row in rows)

    def reaches_beyond(self, step: int) -> bool:
        """Return True if there is a row after ``step``; StorageError if the file cannot be read."""
        if is_missing(self.path):
            return False
        with reading(self.path):
            width = self._width() or len(COLUMNS)
            return any(_is_row(line, width) and not kept for line, kept in self._lines(step))

    def _width(self) -> int:
        """Return the number of columns that the header names: all, or those of an older version; 0 if it is neither."""
        with self.path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
        widths = range(OLDEST, len(COLUMNS) + 1)
        return next((width for width in widths if first == _header(COLUMNS[:width])), 0)

    def _lines(self, step: int) -> Iterator[tuple[bytes, bool]]:
        """Yield all lines, one in memory at a time, each with True if it is kept; none is kept without the header."""
        width = self._width()
        with self.path.open("rb") as file:
            yield file.readline(_LONGEST_LINE), width > 0
            while line := file.readline(_LONGEST_LINE):
                yield line, _is_row(line, width) and int(line.split(b",", 1)[0]) <= step


class NoMetrics(MetricsFile):
    """Metrics that another rank stores."""

    def append(self, row: Mapping[str, float | None]) -> None:
        """Do nothing."""

    def cut_back(self, step: int) -> None:
        """Do nothing."""

    def reaches_beyond(self, step: int) -> bool:
        """Return False: the other rank checks its file."""
        return False


def _header(columns: Sequence[str]) -> bytes:
    return ",".join(columns).encode() + b"\n"


def _is_row(line: bytes, width: int) -> bool:
    fields = line.removesuffix(b"\n").split(b",")
    return line.endswith(b"\n") and len(fields) == width and fields[0].isdigit() and len(fields[0]) < 19


def _field(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
