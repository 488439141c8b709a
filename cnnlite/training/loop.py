"""The training loop, which can stop at any step and resume with the same bits.

`utils.signals` hears SIGTERM and the like; `recorder` writes what there is to keep.
"""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from cnnlite.config.load import Config
from cnnlite.config.settings import steps_between
from cnnlite.data import Batches, Dataset, Images, Normalizer, Views, class_counts, fingerprints, repeated
from cnnlite.errors import CheckpointError, DamagedError, DivergedError, StorageError
from cnnlite.nn.nan_check import advice, first_not_finite
from cnnlite.nn.network import Network, load_arrays
from cnnlite.nn.shape_errors import refuse_small_batches
from cnnlite.optim.averaging import NoAveraging
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import averaged_state_of, fitted_loss, normalizer_of, state_of
from cnnlite.runs.results import Progress, Result
from cnnlite.runtime import distributed, engine
from cnnlite.runtime.team import Team
from cnnlite.training.evaluation import Evaluation, Part, combined, evaluate_part
from cnnlite.training.film import Film
from cnnlite.training.recorder import Recorder
from cnnlite.training.reporter import Reporter
from cnnlite.training.resume import refused
from cnnlite.training.step import Choice, Step
from cnnlite.utils.files import is_missing
from cnnlite.utils.hints import Override
from cnnlite.utils.signals import StopFlag, Stopped
from cnnlite.utils.types import Array

VIEWS = get_args(Views)
_PROMISE = "stopping after this step, and saving; Ctrl-C again stops at once"


def train(
    config: Config,
    run: RunDirectory,
    *,
    dataset: Dataset,
    reporter: Reporter,
    stop: StopFlag,
    resume: Checkpoint | None = None,
) -> Result:
    """Train as ``config`` says, from the start or from ``resume``, and test with the best checkpoint.

    The start is random, but for arrays that the run directory holds (`RunDirectory.load_start`).

    A signal ends the run after the current step with a checkpoint, from which ``resume`` continues with the same bits.

    Raises:
        Stopped: If a signal came.
        DivergedError: If the loss or a gradient is not finite.
        StorageError: If a file cannot be written, or memory does not suffice.
    """
    try:
        start = distributed.current().broadcast(run.load_start) if resume is None else None
        known = resume or start
        normalizer = normalizer_of(known, run.path) if known is not None and known.part("normalize") else None
        shape = dataset.train.images.shape[1:]
        if normalizer is not None and normalizer.mean.shape not in (shape, shape[-1:]):
            raise CheckpointError(f"{run.path}: its normalization, {normalizer.mean.shape}, is not of images {shape}")
        with prepared(config, run, dataset, reporter, stop, normalizer) as training:
            if resume is None:
                training.begin(start)
            else:
                training.restore(resume)
            with np.errstate(all="ignore"), stop.deferred(_PROMISE):
                return training.complete()
    finally:
        reporter.close()


@contextlib.contextmanager
def prepared(
    config: Config,
    run: RunDirectory,
    dataset: Dataset,
    reporter: Reporter,
    stop: StopFlag,
    normalizer: Normalizer | None = None,
) -> Iterator["Training"]:
    """Yield a `Training` for the block; without a ``normalizer``, it computes one from the images.

    Raises:
        ConfigError: If it cannot be made, with file and line.
        StorageError: If memory does not suffice, here or in the block, with a batch size to try.
    """
    try:
        with config.located():
            training = Training(config, run, dataset, reporter, stop, normalizer)
        with training.step.working():
            yield training
    except MemoryError as error:
        size = config.train.batch_size
        reason = f"out of memory with batch size {size}: {error}".rstrip(": ")
        hint = Override(f"train.batch_size={max(1, size // 2)}")
        raise StorageError(f"{reason}; lower train.batch_size ({hint})") from None


def batches_of(config: Config, dataset: Dataset, normalizer: Normalizer | None = None) -> Batches:
    """Make the batches of a training; ConfigError if they do not fit the images."""
    return Batches(
        dataset.train,
        config.train.batch_size,
        seed=config.seed,
        transforms=config.data.augment,
        normalizer=normalizer or Normalizer.fit(dataset.train.images, config.data.normalize),
        sampling=config.data.sampling,
        drop_last=config.data.drop_last,
        mix=config.data.mix,
        classes=len(dataset.classes),
    )


class Training:
    """A run in progress: network, optimizer, batches and recorder, and the loop over them."""

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        dataset: Dataset,
        reporter: Reporter,
        stop: StopFlag,
        normalizer: Normalizer | None = None,
    ):
        self.config, self.run, self.dataset, self.reporter, self.stop = config, run, dataset, reporter, stop
        self.ranks = distributed.current()
        settings = config.train
        shape = dataset.train.images.shape[1:]
        self.network = Network(
            config.model, shape, seed=config.seed, classes=len(dataset.classes), frozen=settings.freeze
        )
        self.optimizer = copy.deepcopy(settings.optimizer)
        self.optimizer.bind(self.network.trainable)
        self.loss = fitted_loss(config, class_counts(dataset))
        self.seen = fingerprints(dataset)
        self.batches = batches_of(config, dataset, normalizer)
        self.normalizer = self.batches.normalizer
        steps_per_epoch = self.batches.steps_per_epoch
        refuse_small_batches(self.network.model, settings.batch_size, self.batches.size(steps_per_epoch - 1))
        self.total_steps = settings.total_steps(steps_per_epoch)
        self.optimizer.plan(self.total_steps, steps_per_epoch)
        self.averaging = copy.deepcopy(settings.averaging) or NoAveraging()
        self.validate_every = steps_between(settings.validate_every, steps_per_epoch)
        self.checkpoint_every = steps_between(settings.checkpoint_every, steps_per_epoch)
        shown = (dataset.validation or dataset.train).images[0]
        source = f"{'validation' if dataset.validation else 'training'} image 0 of {dataset.name}"
        moments = (settings.snapshots or 0, self.total_steps)
        self.film = Film(*moments, self.network, shown, self.normalizer, source)
        self.recorder = Recorder(
            config, run, dataset, reporter, self.film, total_steps=self.total_steps, steps_per_epoch=steps_per_epoch
        )
        self.step = Step(
            *(self.network, self.optimizer, self.loss, self.batches, self._factor),
            clip_norm=settings.clip_norm,
            averaging=self.averaging,
            others=[self._evaluate_part],
        )
        self.choice = Choice(self.step, engine.workers(), engine.most_workers())

    def __getstate__(self) -> dict[str, Any]:
        """Return what workers need that are spawned, to compute factors and evaluate."""
        names = ("config", "network", "dataset", "normalizer", "loss", "batches", "total_steps")
        return {name: getattr(self, name) for name in names}

    @property
    def progress(self) -> Progress:
        """Progress of the run."""
        return self.recorder.progress

    def begin(self, start: Checkpoint | None = None) -> None:
        """Prepare a new run for its first step, with the arrays of ``start``; a resumed run has all in its checkpoint.

        Raises:
            CheckpointError: If ``start`` does not fit the network.
        """
        for line in [*repeated(self.seen), *self.network.describe_frozen()]:
            self.reporter.line(line)
        self.network.fit(self.dataset.train.images, self.normalizer)
        if start is not None:
            own, given = self.network.state(), state_of(start)
            load_arrays({name: array for name, array in own.items() if name in given}, given, "network")
        self.averaging.bind(self.network.changing_state())
        saves = [self.checkpoint_every, *([self.validate_every] if self.dataset.validation else [])]
        self.ranks.broadcast(lambda: self.recorder.begin(min(saves)))

    def complete(self) -> Result:
        """Train to the end, test, and return the result; written too if a signal or divergence ends the run."""
        recorder, parameters = self.recorder, self.network.size
        recorder.start()
        try:
            self._train()
            self.reporter.activity("test", self.progress.step)
            return self._test()
        except Stopped as stopped:
            if self.progress.step:
                recorder.save_last(self.checkpoint)
                recorder.finish("interrupted", parameters)
                self.reporter.note(f"stopped by {stopped.name} at step {self.progress.step}, and saved")
            raise
        except DivergedError as error:
            recorder.finish("diverged", parameters)
            step = self.progress.step
            place = f"step {step}, learning rate {self._lr(min(step, self.total_steps - 1)):g}"
            hint = advice(self.config.resolved["train"])
            self.reporter.note(f"diverged: {place}: {error}")
            raise DivergedError(f"{place}: {error}\nthis step is not saved; {hint}") from None

    def _train(self) -> None:
        progress, patience = self.progress, self.config.train.patience
        self.reporter.activity("train", progress.step)
        while True:
            step, ended = progress.step, progress.step == self.total_steps
            self.film.take(step)
            if progress.evaluated < step and (ended or step % self.validate_every == 0):
                self._evaluate()
            if not ended and patience is not None and progress.stale(self.validate_every) >= patience:
                self.reporter.line(f"no better for {patience} validations: the training ends early")
                ended = True
            if ended or (step and step % self.checkpoint_every == 0):
                self.recorder.save_last(self.checkpoint)
            if ended:
                return
            ends = [step + every - step % every for every in (self.validate_every, self.checkpoint_every)]
            self.train_until(min(self.total_steps, *ends, *self.film.after(step)))

    def train_until(self, end: int) -> None:
        """Make updates up to step ``end``; raise Stopped between two of them if a signal came."""
        with self.recorder.counted():
            for step in range(self.progress.step, end):
                self._check()
                found = self.choice(step)
                if self.choice.message:
                    self.reporter.line(self.choice.message)
                    self.choice.message = ""
                if found.fault:
                    raise self._diverged(found.fault, step)
                self.recorder.step(found.loss, found.hits, found.images)

    def _evaluate(self) -> None:
        """Validate, and record the row, with a checkpoint if it is the best so far."""
        self.ranks.check_replicas(self.network.state())
        found = None
        if self.dataset.validation is not None:
            self.reporter.activity("validate", self.progress.step)
            with self.averaging.applied():
                found = self.evaluation_of(self.dataset.validation, "none")
            self.reporter.activity("train", self.progress.step)
        self.recorder.row(self._lr(self.progress.step - 1), found, self.checkpoint)

    def _check(self) -> None:
        """Raise Stopped if a signal came, here or to a worker; WorkerError if a worker is gone."""
        if (team := self.step.team) is not None:
            team.attend()
            self.stop.number = self.stop.number or team.signal
        self.stop.check()

    def evaluation_of(self, images: Images, views: Views) -> Evaluation:
        """Evaluate the network with its current parameters, with the workers if they know the images."""
        team, known = self.step.team, (self.dataset.validation, self.dataset.test)
        which = next((index for index, split in enumerate(known) if split is images), None)
        if team is None or which is None:
            own = [self._part(images, views, Team())]
        else:
            own = team.call(1, len(VIEWS) * which + VIEWS.index(views))
        return combined(list(itertools.chain.from_iterable(self.ranks.allgather(own))), self.dataset.classes)

    def _evaluate_part(self, code: int) -> list[Part]:
        """Evaluate this worker's share of the images of a split, coded with the views; all workers' parts in order."""
        which, views = divmod(code, len(VIEWS))
        images, team = (self.dataset.validation or self.dataset.test, self.dataset.test)[which], engine.team()
        return team.exchange(self._part(images, VIEWS[views], team))

    def _part(self, images: Images, views: Views, team: Team) -> Part:
        classes, loss = self.dataset.classes, self.loss
        check = self._check if team.index == 0 else lambda: None
        return evaluate_part(
            *(self.network, images, self.normalizer, loss, classes),
            views=views,
            below=self.config.train.tta_below,
            check=check,
            workers=team,
        )

    def _test(self) -> Result:
        """Evaluate on the test images, with the best checkpoint; without validation the last one becomes it."""
        tested, last = self.progress, self.checkpoint()
        if tested.best_step is None:
            self.recorder.save_best(last)
        self.network.load_state(averaged_state_of(last))
        if tested.best_step is not None:
            try:
                best = self.ranks.broadcast(self._best)
            except DamagedError as error:
                self.reporter.warn(f"warning: {error}; testing with the last parameters instead")
                tested = dataclasses.replace(tested, best_step=None, best_accuracy=None)
            else:
                self.network.load_state(averaged_state_of(best))
                tested = Progress.of(best)
        test = self.evaluation_of(self.dataset.test, self.config.train.tta)
        return self.recorder.finish("complete", self.network.size, tested, test)

    def _best(self) -> Checkpoint:
        """Load the best checkpoint of this run.

        Raises:
            DamagedError: If it is missing, damaged, or from another run.
            CheckpointError: If it cannot be read now, though it may be whole; StorageError likewise.
        """
        self.run.confirm()
        path = self.run.checkpoint_path("best")
        if is_missing(path) or (path.is_symlink() and not path.exists()):
            raise DamagedError(f"{path}: is gone")
        best = self.run.load("best")
        try:
            then, now = Progress.of(best), self.progress
            bests = [(progress.best_step, progress.best_accuracy, progress.best_loss) for progress in (then, now)]
            same = then.step == now.best_step and bests[0] == bests[1]
            same &= best.fact("dataset", dict) == self.recorder.facts()["dataset"] and not refused(self.config, best)
        except CheckpointError as error:
            raise DamagedError(f"{path}: {error}") from None
        if not same:
            raise DamagedError(f"{path}: was not written by this run")
        return best

    def checkpoint(self) -> Checkpoint:
        """Return everything needed to resume the run, or to evaluate the network elsewhere."""
        arrays: dict[str, Array] = {**self.network.state(), **self.normalizer.state()}
        arrays |= {f"optimizer/{name}": array for name, array in self.optimizer.state().items()}
        arrays |= {f"average/{name}": array for name, array in self.averaging.state().items()}
        arrays |= {f"seen/{part}": known for part, known in self.seen.items()}
        return Checkpoint(arrays, self.recorder.facts())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of the checkpoint; CheckpointError if it does not fit."""
        self.network.load_state(state_of(checkpoint))
        self.optimizer.load_state(checkpoint.part("optimizer"))
        self.averaging.bind(self.network.changing_state())
        load_arrays(self.averaging.state(), checkpoint.part("average"), "averages")
        self.recorder.resume(Progress.of(checkpoint))

    def _factor(self, step: int) -> float:
        """Return the schedule's factor for the learning rate at a step."""
        return self.config.train.schedule.factor(step, self.total_steps, self.batches.steps_per_epoch)

    def _lr(self, step: int) -> float:
        return self.optimizer.rate(step, self._factor(step))

    def _diverged(self, what: str, step: int) -> DivergedError:
        """Find out where a step went wrong, without the workers."""
        self.step.dismiss()
        loss = self.loss
        with self.ranks.batch(self.batches.size(step), lambda _: 1) as part:
            x, targets = self.batches.batch(step, part)
        places = self.ranks.allgather_local(lambda: first_not_finite(self.network, loss, x, targets, step))
        where = next((place for place in places if place), "the loss itself")
        return DivergedError(f"the {what} is not finite, first in {where}")
