"""Progress of a run, and its result."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cnnlite.config.settings import Monitor
from cnnlite.errors import CheckpointError
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.scores import Figures, Mean
from cnnlite.utils.files import read_small

FIGURES: dict[Monitor, str] = {
    "accuracy": "accuracy",
    "loss": "loss",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
}
"""Names of figures, for people."""
_LARGEST_OBJECT = 1_000_000
"""Bytes of JSON; real files have a thousandth of it."""
_LARGEST_NUMBER = 1e18


@dataclass
class Progress:
    """Progress of a run, as a checkpoint holds it beside the arrays."""

    step: int = 0
    evaluated: int = 0
    """The last step with a row in metrics.csv."""
    seconds: float = 0.0
    """Time spent training and validating, over all sessions."""
    loss: Mean = field(default_factory=Mean)
    """Mean over the training batches since the last row, as is `accuracy`."""
    accuracy: Mean = field(default_factory=Mean)
    best_step: int | None = None
    best_accuracy: float | None = None
    """On the validation images, as is `best_loss`."""
    best_loss: float | None = None
    """None too in old checkpoints without it; the first of equal accuracies then stays the best."""
    best_macro_f1: float | None = None
    best_balanced_accuracy: float | None = None

    def is_better(self, found: Figures, monitor: Monitor = "accuracy") -> bool:
        """Return True if a validation beats the best so far by the figure ``monitor``, or in that equal, by the loss.

        This decides which checkpoint is ``best``, and what ``patience`` waits for.
        """
        if self.best_step is None:
            return True
        best, value = getattr(self, f"best_{monitor}"), getattr(found, monitor)
        if monitor != "loss" and value != best:
            return best is None or bool(value > best)
        return self.best_loss is not None and found.loss < self.best_loss

    def take_best(self, found: Figures) -> None:
        """Make the validation of this step the best so far."""
        self.best_step, self.best_accuracy, self.best_loss = self.step, found.accuracy, found.loss
        self.best_macro_f1, self.best_balanced_accuracy = found.macro_f1, found.balanced_accuracy

    def stale(self, every: int) -> int:
        """Return the number of validations, one each ``every`` steps, since the best one; 0 before the first."""
        return 0 if self.best_step is None else self.evaluated // every - self.best_step // every

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Progress":
        """Return the progress in a checkpoint; CheckpointError if there is none."""
        try:
            return cls.from_meta(checkpoint.fact("progress", dict))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the checkpoint does not say how far the run was ({error})") from None

    @classmethod
    def from_meta(cls, data: dict[str, Any]) -> "Progress":
        """Invert `dataclasses.asdict`; KeyError or TypeError if ``data`` does not come from it."""
        progress = cls(**{**data, "loss": Mean(**data["loss"]), "accuracy": Mean(**data["accuracy"])})
        for part in (progress, progress.loss, progress.accuracy):
            for known in fields(part):
                if not _is_a(value := getattr(part, known.name), known.type):
                    raise TypeError(f"{known.name} {value!r:.40}")
        return progress


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a run: the content of result.json."""

    config: str
    seed: int
    steps: int
    epochs: float
    train_seconds: float
    best_step: int | None
    best_validation_accuracy: float | None
    test_accuracy: float | None
    test_loss: float | None
    parameters: int
    cnnlite_version: str
    status: str
    """``complete``, ``interrupted`` or ``diverged``; only a complete run has test metrics."""
    test_balanced_accuracy: float | None = None
    """None too in results of older versions, as is all that follows."""
    test_macro_f1: float | None = None
    test_digest: str | None = None
    """SHA-256 of the test images and labels; runs with the same one have seen the same test."""
    monitor: Monitor = "accuracy"
    """Figure by which the best checkpoint was chosen."""
    best_validation: float | None = None
    """That figure of the best checkpoint, on the validation images."""


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a run's file; empty if the file is missing or holds something else.

    Raises:
        DataError: If it cannot be read: not a regular file, no permission, or larger than any that a run writes.
    """
    try:
        content = json.loads(read_small(path, _LARGEST_OBJECT))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_result(path: Path) -> dict[str, Any]:
    """Return those fields of a `Result` that a file holds with the right type; DataError as from `read_object`."""
    content, kinds = read_object(path), {field.name: field.type for field in fields(Result)}
    return {name: value for name, value in content.items() if name in kinds and _fits(value, kinds[name])}


def _fits(value: Any, kind: Any) -> bool:
    sensible = not isinstance(value, int | float) or abs(value) < _LARGEST_NUMBER
    return sensible and _is_a(value, kind)


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Monitor:
        return isinstance(value, str) and value in FIGURES
    return isinstance(value, int | float if kind is float else kind)


def describe_row(row: dict[str, Any], total: int, *, best: bool = False, monitor: Monitor = "accuracy") -> str:
    """Format a row of the metrics; ``total`` is the number of steps of the run, ``best`` marks a new best."""
    parts = [f"epoch {row['epoch']:.2f}".removesuffix(".00"), f"step {row['step']}/{total}"]
    parts.append(f"train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}")
    if row["validation_loss"] is not None:
        mark = " (best)" if best else ""
        found = f"validation loss {row['validation_loss']:.4f}, accuracy {row['validation_accuracy']:.2%}"
        if monitor not in ("accuracy", "loss"):
            found += f", {_figure(monitor, row[f'validation_{monitor}'])}"
        parts.append(found + mark)
    parts.append(f"lr {row['lr']:.3g}")
    if row["images_per_second"]:  # none are trained where a resumed run only evaluates
        parts.append(f"{row['images_per_second']:,.0f} images/s")
    parts.append(f"{row['seconds']:.0f} s")
    return "  ".join(parts)


def describe_result(result: Result) -> str:
    """Put the end of a run into words."""
    tested, best = f"accuracy {result.test_accuracy or 0:.2%}", f"best step {result.best_step} of {result.steps}"
    if (monitor := result.monitor) != "accuracy":
        tested += f", {_figure(monitor, getattr(result, f'test_{monitor}', None))}"
    known = result.best_validation_accuracy if monitor == "accuracy" else result.best_validation
    if known is not None:
        best += f", validation {_figure(monitor, known)}"
    return f"test {tested}  ({best}, {result.train_seconds:.0f} s)"


def _figure(name: Monitor, value: float | None) -> str:
    return f"{FIGURES[name]} {value or 0:{'.4f' if name == 'loss' else '.2%'}}"
