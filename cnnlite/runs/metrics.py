"""Running means, the confusion matrix, and the CSV file of a run's metrics."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnlite.errors import StorageError
from cnnlite.utils.files import is_missing, is_special, open_to_append, reading, replacing, writing
from cnnlite.utils.types import Array

_LONGEST_LINE = 10_000
"""Bytes; longer lines were not written by cnnlite, and are read as several."""

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
)


def hits(logits: Array, targets: Array) -> float:
    """Return the number of correct predictions; a mixed image counts by the share of its predicted class.

    ``targets`` are labels ``(N,)`` or probabilities ``(N, K)``. Source: arXiv:1710.09412.
    """
    predicted = logits.argmax(axis=1)
    if targets.ndim == 1:
        return float(np.count_nonzero(predicted == targets))
    return float(targets[np.arange(len(targets)), predicted].sum(dtype=np.float64))


@dataclass
class Mean:
    """A mean as sum and count, divided once at the end, so that a short last batch has its true weight."""

    total: float = 0.0
    count: int = 0

    def add(self, total: float, count: int) -> None:
        """Add ``count`` values whose sum is ``total``."""
        self.total += total
        self.count += count

    @property
    def value(self) -> float | None:
        """The mean, or None without values."""
        return self.total / self.count if self.count else None


class ConfusionMatrix:
    """Number of images by true class (row) and predicted class (column)."""

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, labels: Array, predictions: Array) -> None:
        """Count a batch; both are integers of shape ``(N,)``."""
        classes = len(self.counts)
        pairs = np.bincount(labels * classes + predictions, minlength=classes * classes)
        self.counts += pairs.reshape(classes, classes)

    @property
    def accuracy(self) -> float | None:
        """Fraction of images on the diagonal, or None without images."""
        return Mean(int(self.counts.trace()), int(self.counts.sum())).value

    def per_class(self) -> list[float | None]:
        """Return the fraction of correct predictions for each true class; None for a class without images."""
        return [Mean(int(row[index]), int(row.sum())).value for index, row in enumerate(self.counts)]


class MetricsFile:
    """A CSV file with one row per evaluation: appended to, truncated on resume, never with a row twice.

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
            if all(kept for _, kept in self._lines(step)):
                return
            with replacing(self.path) as file:
                file.write(self._header)
                file.writelines(line for line, kept in self._lines(step) if kept and line != self._header)

    def reaches_beyond(self, step: int) -> bool:
        """Return True if there is a row after ``step``; StorageError if the file cannot be read."""
        if is_missing(self.path):
            return False
        with reading(self.path):
            return any(self._is_row(line) and not kept for line, kept in self._lines(step))

    @property
    def _header(self) -> bytes:
        return ",".join(COLUMNS).encode() + b"\n"

    def _lines(self, step: int) -> Iterator[tuple[bytes, bool]]:
        """Yield all lines, one in memory at a time, each with True if it is kept; none is kept without the header."""
        with self.path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            yield first, first == self._header
            while line := file.readline(_LONGEST_LINE):
                yield line, first == self._header and self._is_row(line) and int(line.split(b",", 1)[0]) <= step

    def _is_row(self, line: bytes) -> bool:
        fields = line.removesuffix(b"\n").split(b",")
        return line.endswith(b"\n") and len(fields) == len(COLUMNS) and fields[0].isdigit() and len(fields[0]) < 19


class NoMetrics(MetricsFile):
    """Metrics that another rank stores."""

    def append(self, row: Mapping[str, float | None]) -> None:
        """Do nothing."""

    def cut_back(self, step: int) -> None:
        """Do nothing."""

    def reaches_beyond(self, step: int) -> bool:
        """Return False: the other rank checks its file."""
        return False


def _field(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
