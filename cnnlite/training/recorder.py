"""Records a training: rows of metrics, checkpoints (best.npz, last.npz and when each is written), and the result.

`runs.checkpoint` has their format, and `runs.directory` their places.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from cnnlite import __version__
from cnnlite.config.load import Config
from cnnlite.data import Dataset, class_counts
from cnnlite.errors import CheckpointError
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.environment import arithmetic, versions
from cnnlite.runs.predictions import PREDICTIONS, images_digest, predictions_text
from cnnlite.runs.results import Progress, Result, describe_result, describe_row
from cnnlite.runs.scores import Mean
from cnnlite.training.evaluation import Evaluation
from cnnlite.training.film import Film
from cnnlite.training.reporter import Reporter

_REFRESH_SECONDS = 0.1


class Recorder:
    """Keeps the progress of a run, and writes its metrics, checkpoints and result.

    Args:
        config: config of the run.
        run: directory to write to.
        dataset: dataset trained on.
        reporter: output for the user.
        film: snapshots, which are saved with the checkpoints to resume from.
        total_steps: number of steps of the whole training.
        steps_per_epoch: number of steps of an epoch.
    """

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        dataset: Dataset,
        reporter: Reporter,
        film: Film,
        *,
        total_steps: int,
        steps_per_epoch: int,
    ):
        self.config, self.run, self.dataset, self.reporter, self.film = config, run, dataset, reporter, film
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.metrics = run.metrics()
        self.progress = Progress()
        self._saved: tuple[int, int] | None = None
        self._images, self._seconds = 0, 0.0
        self._shown = 0.0

    @property
    def epoch(self) -> float:
        """Number of epochs done."""
        return self.progress.step / self.steps_per_epoch

    def resume(self, progress: Progress) -> None:
        """Resume from ``progress``, and remove later rows of the metrics; CheckpointError if it is beyond the end."""
        if progress.step > self.total_steps:
            raise CheckpointError(f"the run is at step {progress.step}, beyond the {self.total_steps} asked for")
        self.progress = progress
        self.metrics.cut_back(progress.evaluated)
        self._resume_film(progress.step)
        self._saved = (progress.step, progress.evaluated)

    def _resume_film(self, step: int) -> None:
        """Take over the snapshots up to ``step``; without them, the film begins here."""
        try:
            if (saved := self.run.load_snapshots()) is not None:
                self.film.resume(saved, step)
        except CheckpointError as error:
            self.reporter.warn(f"warning: {error}; the film of the training begins at step {step}")

    def begin(self, first_save: int) -> None:
        """Start from step 0, and remove rows of an earlier attempt that ended before its ``first_save``.

        Raises:
            CheckpointError: If there are rows after ``first_save``: the checkpoint written then is missing.
        """
        if self.metrics.reaches_beyond(first_save):
            raise CheckpointError(
                f"{self.metrics.path}: has figures from after step {first_save}, where a checkpoint was written, but "
                "there is none; start a new run instead"
            )
        self.metrics.cut_back(0)

    def start(self) -> None:
        """Start counting time and showing progress."""
        self._started = time.perf_counter() - self.progress.seconds
        self.reporter.start(self.progress.step, self.total_steps, self.steps_per_epoch)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time inside the block as time of training steps."""
        self._began, self._began_images = time.perf_counter(), self._images
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - self._began

    def step(self, loss: float, hits: float, images: int) -> None:
        """Record a step, with the mean loss and the number of correct predictions of its batch."""
        progress = self.progress
        progress.loss.add(loss * images, images)
        progress.accuracy.add(hits, images)
        progress.step += 1
        self._images += images
        now = time.perf_counter()
        if now - self._shown > _REFRESH_SECONDS:
            self._shown = now
            speed = (self._images - self._began_images) / (now - self._began)
            self.reporter.update(progress.step, progress.loss.value or 0.0, progress.accuracy.value or 0.0, speed)

    def row(self, lr: float, found: Evaluation | None, checkpoint: Callable[[], Checkpoint]) -> None:
        """Write a row of the metrics, with the validation if any, and save the ``checkpoint`` if that is the best."""
        progress = self.progress
        progress.seconds = time.perf_counter() - self._started
        row = {
            "step": progress.step,
            "epoch": self.epoch,
            "seconds": round(progress.seconds, 3),
            "lr": lr,
            "train_loss": progress.loss.value,
            "train_accuracy": progress.accuracy.value,
            "validation_loss": found.loss if found else None,
            "validation_accuracy": found.accuracy if found else None,
            "images_per_second": round(self._images / max(self._seconds, 1e-9), 1),
            "validation_balanced_accuracy": found.balanced_accuracy if found else None,
            "validation_macro_f1": found.macro_f1 if found else None,
        }
        monitor = self.config.train.monitor
        best = found is not None and progress.is_better(found, monitor)
        self.metrics.append(row)
        self.reporter.row(row, describe_row(row, self.total_steps, best=best, monitor=monitor))
        progress.evaluated = progress.step
        progress.loss, progress.accuracy = Mean(), Mean()
        self._images, self._seconds = 0, 0.0
        if found and best:
            progress.take_best(found)
            whole = checkpoint()
            whole.meta["validation"] = found.by_class()
            self.save_best(whole)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Save the checkpoint to test with."""
        self.run.save("best", checkpoint)

    def save_last(self, checkpoint: Callable[[], Checkpoint]) -> None:
        """Save the checkpoint to resume from, unless this state is saved already."""
        state = (self.progress.step, self.progress.evaluated)
        if state != self._saved:
            self.progress.seconds = time.perf_counter() - self._started
            if (snapshots := self.film.checkpoint()) is not None:
                self.run.save_snapshots(snapshots)
            self.run.save("last", checkpoint())
            self._saved = state

    def facts(self) -> dict[str, Any]:
        """Return the metadata of a checkpoint."""
        return {
            "step": self.progress.step,
            "epoch": self.epoch,
            "seed": self.config.seed,
            "name": self.config.name,
            "config": self.config.resolved,
            "in_shape": list(self.dataset.train.images.shape[1:]),
            "classes": list(self.dataset.classes),
            "class_counts": class_counts(self.dataset).tolist(),
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
            "progress": asdict(self.progress),
            "versions": versions(),
            "arithmetic": arithmetic(),
        }

    def finish(
        self, status: str, parameters: int, tested: Progress | None = None, test: Evaluation | None = None
    ) -> Result:
        """Write and return the result of the run; ``test`` evaluates the checkpoint whose progress is ``tested``."""
        progress = self.progress
        best = tested or progress
        result = Result(
            config=self.config.name,
            seed=self.config.seed,
            steps=progress.step,
            epochs=self.epoch,
            train_seconds=round(progress.seconds, 3),
            best_step=best.best_step or (best.step if test else None),
            best_validation_accuracy=best.best_accuracy,
            test_accuracy=test.accuracy if test else None,
            test_loss=test.loss if test else None,
            test_balanced_accuracy=test.balanced_accuracy if test else None,
            test_macro_f1=test.macro_f1 if test else None,
            test_digest=images_digest(self.dataset.test) if test else None,
            monitor=self.config.train.monitor,
            best_validation=getattr(best, f"best_{self.config.train.monitor}"),
            parameters=parameters,
            cnnlite_version=__version__,
            status=status,
        )
        if test:
            labels = self.dataset.test.labels
            self.run.write_text(PREDICTIONS, predictions_text(self.dataset.classes, labels, test.predictions))
        self.run.write_json("result.json", asdict(result))
        if test:
            self.reporter.note(describe_result(result))
        return result
