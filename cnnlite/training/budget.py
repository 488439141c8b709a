"""Time budgets: measures the pace of a training, and chooses the number of steps that fits."""

import bisect
import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnlite.config.load import Config, config_from_data
from cnnlite.config.settings import TrainSettings
from cnnlite.data import Dataset, views_of
from cnnlite.errors import ConfigError
from cnnlite.optim.composite import Composite
from cnnlite.optim.schedules import Step
from cnnlite.runs.directory import RunDirectory
from cnnlite.runtime import distributed, machine
from cnnlite.training.evaluation import BATCH_SIZE
from cnnlite.training.loop import Training, prepared
from cnnlite.training.reporter import Reporter
from cnnlite.utils.hints import Argument, Override
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.text import duration

RESERVE = 0.03
"""Fraction of a budget left unplanned, as times vary by that much."""
_WARM_UP_STEPS = 3
_SECONDS = 2.0


@dataclass(frozen=True)
class Pace:
    """Cost of each part of a training, in seconds, and how often each part is due."""

    setup: float
    """Everything before the first step, once the dataset is loaded."""
    step: float
    validation: float
    """One pass over the validation images, with the checkpoint of a new best."""
    save: float
    test: float
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int
    peak_memory_bytes: int
    """Of the process during the measurement; 0 if the system does not tell."""

    def seconds(self, steps: int) -> float:
        """Return the duration of a training of ``steps`` steps, with validations, checkpoints and test."""
        validations, saves = math.ceil(steps / self.validate_every), math.ceil(steps / self.checkpoint_every)
        return self.setup + steps * self.step + validations * self.validation + saves * self.save + self.test

    def steps_within(self, seconds: float) -> int:
        """Return the largest number of steps whose training fits; 0 if not even one does."""
        return bisect.bisect_right(range(1, 1 + max(0, int(seconds / self.step))), seconds, key=self.seconds)


def measure(config: Config, dataset: Dataset, stop: StopFlag) -> Pace:
    """Time steps, an evaluation and a checkpoint of the training that ``config`` describes; no files remain."""
    machine.reset_peak_memory()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cnnlite-"))
        run = stack.enter_context(contextlib.closing(RunDirectory.create_at(Path(folder))))
        began = time.perf_counter()
        training = stack.enter_context(prepared(config, run, dataset, Reporter(quiet=True), stop))
        training.begin()
        setup = time.perf_counter() - began
        with np.errstate(all="ignore"):  # as in training
            step = _seconds_of_a_step(training)
        image = _seconds_of_an_image(training)
        began = time.perf_counter()
        run.save("last", training.checkpoint())
        save = time.perf_counter() - began
    views = len(views_of(dataset.test.images[:1], config.train.tta))
    return Pace(
        setup=setup,
        step=step,
        validation=image * len(dataset.validation) + save if dataset.validation else 0.0,
        save=save,
        test=image * len(dataset.test) * views,  # at most: with tta_below some images are seen once
        steps_per_epoch=training.batches.steps_per_epoch,
        validate_every=training.validate_every,
        checkpoint_every=training.checkpoint_every,
        peak_memory_bytes=machine.peak_memory_bytes(),
    )


def _seconds_of_a_step(training: Training) -> float:
    def one() -> None:
        training.train_until(training.progress.step + 1)

    while training.progress.step < _WARM_UP_STEPS or not distributed.current().broadcast(
        lambda: training.choice.settled
    ):
        one()
    return _mean_seconds(one, _WARM_UP_STEPS, _SECONDS)


def _seconds_of_an_image(training: Training) -> float:
    images = training.dataset.test.take(slice(BATCH_SIZE))
    training.evaluation_of(images, "none")
    return _mean_seconds(lambda: training.evaluation_of(images, "none"), 1, _SECONDS / 2) / len(images)


def _mean_seconds(work: Callable[[], object], fewest: int, seconds: float) -> float:
    """Return the mean duration of ``work``, run on all ranks together for about ``seconds``."""
    began, count = time.perf_counter(), 0

    def enough() -> bool:
        return count >= fewest and time.perf_counter() - began >= seconds

    while not distributed.current().broadcast(enough):
        work()
        count += 1
    return (time.perf_counter() - began) / count


def plan(config: Config, pace: Pace, budget: float | None, spent: float = 0.0) -> tuple[Config, str]:
    """Describe the duration of a training; fit it into ``budget`` seconds, if given.

    The number of steps becomes part of the config, so that the training, with its whole schedule, no longer depends on
    time: it is the same when resumed or repeated. ``spent`` seconds of the budget are already used.

    Returns:
        The config to train, and the description.

    Raises:
        ConfigError: If not even one step fits.
    """
    if budget is None:
        return config, _describe(pace, config.train.total_steps(pace.steps_per_epoch))
    steps = pace.steps_within((budget - spent) * (1 - RESERVE))
    if not steps:
        least = math.ceil(spent + 1.1 * pace.seconds(1) / (1 - RESERVE))
        raise ConfigError(f"{Argument('budget')}: not even a step and the test fit into it; give at least {least}s")
    train = {**config.resolved["train"], "iterations": steps, "epochs": None}
    lines = [f"budget: {_describe(pace, steps)}", *(f"warning: {text}" for text in _unmoved(config.train, pace, steps))]
    return config_from_data({**config.resolved, "train": train}, config.name), "\n".join(lines)


def _unmoved(train: TrainSettings, pace: Pace, steps: int) -> Iterator[str]:
    """Yield a warning for each part of the training whose length does not follow the budget's ``steps``."""
    members = train.optimizer.members if isinstance(train.optimizer, Composite) else []
    schedules = [train.schedule, *(member.schedule for member in members if member.schedule)]
    if any(isinstance(schedule, Step) for schedule in schedules):
        yield "the schedule step has epochs of its own, whatever the budget; cosine or linear would fit it"
    for index, epochs in enumerate(member.epochs for member in members):
        if epochs is not None:
            same_part = epochs * steps / train.total_steps(pace.steps_per_epoch)
            hint = Override(f"train.optimizer.composite.members.{index}.epochs={same_part:.3g}")
            yield (
                f"members[{index}] of the optimizer is trained for {epochs:g} epochs, whatever the budget; for "
                f"the same part of the training give {hint}"
            )
    warmup = max(schedule.warmup(pace.steps_per_epoch) for schedule in schedules)
    if warmup >= steps:
        yield f"the warm-up of {warmup} steps does not end within the budget; give it less, or none"


def _describe(pace: Pace, steps: int) -> str:
    """Format the duration of a training of ``steps`` steps, and of an epoch."""
    epoch = duration(pace.steps_per_epoch * pace.step)
    return (
        f"{steps:,} steps of {pace.step * 1e3:,.1f} ms ({steps / pace.steps_per_epoch:.2f} epochs of {epoch}), "
        f"with validation and test {duration(pace.seconds(steps))}"
    )
