"""Metrics of a run for TensorBoard, written with tensorboardX."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnnlite.errors import StorageError

_CHARTS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "validation_balanced_accuracy": "accuracy/validation_balanced",
    "validation_macro_f1": "macro_f1/validation",
    "lr": "lr",
    "images_per_second": "images_per_second",
}


class TensorBoard:
    """Writes each row of the metrics to event files in ``folder``; earlier rows after ``step`` are hidden.

    The folder is made with the first row.

    Raises:
        StorageError: If the folder is a link, or not a folder.
    """

    def __init__(self, folder: Path, step: int = 0):
        from tensorboardX import SummaryWriter

        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise StorageError(f"{folder}: is not a folder; remove it")
        first = step + 1 if folder.exists() else None
        # File names hold the time in seconds only: the step keeps a run that is resumed at once from replacing its
        # earlier file, and the token avoids a link placed there. A name that began with "s3:" would not be a file.
        self._begin: Callable[[], Any] = lambda: SummaryWriter(
            str(folder.absolute()), purge_step=first, filename_suffix=f".{step:09}.{secrets.token_hex(4)}"
        )
        self._writer: Any = None

    def row(self, figures: Mapping[str, float | None]) -> None:
        """Write a row of metrics.csv."""
        if self._writer is None:
            self._writer = self._begin()
        step = int(figures["step"] or 0)
        for name, chart in _CHARTS.items():
            if (value := figures.get(name)) is not None:
                self._writer.add_scalar(chart, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
