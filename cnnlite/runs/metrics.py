"""Averages, the confusion matrix, and the CSV file that a run's figures go to."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnlite.errors import StorageError
from cnnlite.utils.files import is_missing, is_special, open_to_append, replacing, unreadable, unwritable
from cnnlite.utils.types import Array

_LONGEST_LINE = 10_000
"""Bytes; longer ones are none of ours, and taken for several."""

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
    """How many predictions are right; of a mixed image, the share of the predicted class counts (arXiv:1710.09412).

    ``targets`` are labels ``(N,)`` or probabilities ``(N, K)``.
    """
    predicted = logits.argmax(axis=1)
    if targets.ndim == 1:
        return float(np.count_nonzero(predicted == targets))
    return float(targets[np.arange(len(targets)), predicted].sum(dtype=np.float64))


@dataclass
class Mean:
    """A mean as sum and count, divided once at the end, so that a short last batch counts for what it is."""

    total: float = 0.0
    count: int = 0

    def add(self, total: float, count: int) -> None:
        """Take in ``count`` values whose sum is ``total``."""
        self.total += total
        self.count += count

    @property
    def value(self) -> float | None:
        """The mean, or None of nothing."""
        return self.total / self.count if self.count else None


class ConfusionMatrix:
    """Counts of images by true class (row) and predicted class (column)."""

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, labels: Array, predictions: Array) -> None:
        """Count a batch; both are integers of shape ``(N,)``."""
        classes = len(self.counts)
        pairs = np.bincount(labels * classes + predictions, minlength=classes * classes)
        self.counts += pairs.reshape(classes, classes)

    @property
    def accuracy(self) -> float | None:
        """Fraction of images on the diagonal, or None of no images."""
        return Mean(int(self.counts.trace()), int(self.counts.sum())).value

    def per_class(self) -> list[float | None]:
        """For each true class, the fraction predicted right; None where there is no image of the class."""
        return [Mean(int(row[index]), int(row.sum())).value for index, row in enumerate(self.counts)]


class MetricsFile:
    """A CSV file with one row an evaluation: appended to, cut back on resume, never with a row twice.

    ``before`` is called before each writing, and may refuse it.
    """

    def __init__(self, path: Path, before: Callable[[], object] = lambda: None):
        self.path = path
        self._before = before

    def append(self, row: Mapping[str, float | None]) -> None:
        """Write one row; a missing value is an empty field. StorageError if it cannot be written."""
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise ValueError(f"no such columns: {', '.join(sorted(unknown))}")
        text = ",".join(_field(row.get(column)) for column in COLUMNS) + "\n"
        self._before()
        try:
            with open_to_append(self.path, unshare=True) as file:
                if file.tell() == 0:
                    text = ",".join(COLUMNS) + "\n" + text
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def cut_back(self, step: int) -> None:
        """Drop the rows after ``step`` and any row that a killed process left unfinished."""
        if is_missing(self.path):
            return
        self._before()
        if self.path.is_symlink() or is_special(self.path):  # to which nothing could be appended later
            raise StorageError(f"{self.path}: is not a regular file; remove it")
        try:
            if all(kept for _, kept in self._lines(step)):
                return
            with replacing(self.path) as file:
                file.write(self._header)
                file.writelines(line for line, kept in self._lines(step) if kept and line != self._header)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def reaches_beyond(self, step: int) -> bool:
        """Tell whether there is a row after ``step``; StorageError if that cannot be read."""
        try:
            return not is_missing(self.path) and any(
                self._is_row(line) and not kept for line, kept in self._lines(step)
            )
        except OSError as error:
            raise unreadable(self.path, error) from error

    @property
    def _header(self) -> bytes:
        return ",".join(COLUMNS).encode() + b"\n"

    def _lines(self, step: int) -> Iterator[tuple[bytes, bool]]:
        """All lines, one in memory at a time, and whether to keep each: none if the first is not the header."""
        with self.path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            yield first, first == self._header
            while line := file.readline(_LONGEST_LINE):
                yield line, first == self._header and self._is_row(line) and int(line.split(b",", 1)[0]) <= step

    def _is_row(self, line: bytes) -> bool:
        fields = line.removesuffix(b"\n").split(b",")
        return line.endswith(b"\n") and len(fields) == len(COLUMNS) and fields[0].isdigit() and len(fields[0]) < 19


class NoMetrics(MetricsFile):
    """For figures that another rank keeps."""

    def append(self, row: Mapping[str, float | None]) -> None:
        """Do nothing."""

    def cut_back(self, step: int) -> None:
        """Do nothing."""

    def reaches_beyond(self, step: int) -> bool:
        """Leave it to the other rank to say so."""
        return False


def _field(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
