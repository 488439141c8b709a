"""The figures of a run for TensorBoard, through tensorboardX."""

import importlib.util
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnnlite.errors import StorageError, missing_extra
from cnnlite.utils.hints import Argument

_CHARTS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "lr": "lr",
    "images_per_second": "images_per_second",
}


def require_tensorboardx() -> None:
    """Raise ConfigError if the extra that writes event files is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise missing_extra(Argument("tensorboard"), "tensorboard")


class TensorBoard:
    """Writes each row of the metrics to event files in ``folder``; those after ``step`` are hidden, as on a resume.

    The folder is made with the first row. StorageError if a link, or anything but a folder, is there already.
    """

    def __init__(self, folder: Path, step: int = 0):
        from tensorboardX import SummaryWriter

        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise StorageError(f"{folder}: is not a folder; remove it")
        first = step + 1 if folder.exists() else None
        # Files are named by the second: the step keeps one that is resumed at once from replacing its own beginning,
        # and the token one at which somebody put a link. A name that began with "s3:" would not be one of a file.
        self._begin: Callable[[], Any] = lambda: SummaryWriter(
            str(folder.absolute()), purge_step=first, filename_suffix=f".{step:09}.{secrets.token_hex(4)}"
        )
        self._writer: Any = None

    def row(self, figures: Mapping[str, float | None]) -> None:
        """Take a row as it is in metrics.csv."""
        if self._writer is None:
            self._writer = self._begin()
        step = int(figures["step"] or 0)
        for name, chart in _CHARTS.items():
            if (value := figures.get(name)) is not None:
                self._writer.add_scalar(chart, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write whatever is not yet written."""
        if self._writer is not None:
            self._writer.close()
