"""Settings of data and training, as a config gives them."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from cnnlite.config.kinds import CHECKS, positive
from cnnlite.config.options import show
from cnnlite.data import Mixing, Source, Transform, Views, default_root
from cnnlite.data.normalize import Mode
from cnnlite.data.sampling import Sampling
from cnnlite.data.splits import Validation
from cnnlite.errors import OptionError
from cnnlite.nn.losses import CrossEntropy, Loss
from cnnlite.optim import Optimizer
from cnnlite.optim.averaging import Averaging
from cnnlite.optim.schedules import Constant, Schedule, steps_in
from cnnlite.utils.files import place
from cnnlite.utils.hints import Argument, Override
from cnnlite.utils.patterns import NamePattern, renaming
from cnnlite.utils.types import Shape

LENGTHS = ("epochs", "iterations")
"""Options of `TrainSettings` of which one says how long to train."""
NO_LENGTH = "expected one of epochs and iterations, got neither; add epochs: 10"


def countable(number: float) -> None:
    """Check that a number of epochs has a number of steps."""
    if number > 1e12:
        raise ValueError(f"must be at most 1e12, not {number:g}")


def filmable(snapshots: int) -> None:
    """Check that a film has not more snapshots than anybody would look at."""
    if snapshots > 100:
        raise ValueError(f"must be at most 100, not {snapshots:,}")


def probability(number: float) -> None:
    """Check that a number can be a probability."""
    if number > 1:
        raise ValueError(f"must be at most 1, not {number:g}")


def split_exists(validation: Validation) -> None:
    """Check that ``data.validation`` can be a part of something."""
    if isinstance(validation, float) and not 0 < validation < 1:
        raise ValueError(f"fraction {validation} is not in (0, 1)")
    if isinstance(validation, int) and validation < 1:
        raise ValueError(f"must be at least 1 image, not {validation}; write none for no validation")


def searchable(match: str) -> None:
    """Check that text is a regular expression for names."""
    NamePattern(match)


def renames(pair: tuple[str, str]) -> None:
    """Check a regular expression for names, and what to put in the place of what it finds."""
    renaming(*pair)


def interval(value: int | str) -> int | str:
    """Check an interval between two events, and write it as usual: ``500``, ``1 epoch``, ``0.5 epochs``."""
    count, unit = _count_and_unit(value)
    if unit == "step":
        return int(count)
    return f"{count:.9f}".rstrip("0").rstrip(".") + (" epoch" if count == 1 else " epochs")


def steps_between(interval: int | str, steps_per_epoch: int) -> int:
    """Convert an interval to whole steps, at least 1."""
    count, unit = _count_and_unit(interval)
    return int(count) if unit == "step" else max(1, round(count * steps_per_epoch))


def _count_and_unit(interval: int | str) -> tuple[float, str]:
    text = f"{interval} steps" if isinstance(interval, int) else interval
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9}(?= epoch))?) (step|epoch)s?", text)
    if not found or float(found[1]) == 0:
        raise ValueError(f"expected {INTERVAL}, above 0, got {show(interval)}")
    return float(found[1]), found[2]


INTERVAL = "a number of steps, or text such as '1 epoch'"
Interval: TypeAlias = Annotated[int | str, INTERVAL, interval]
CHECKS[interval] = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^([0-9]+ steps?|[0-9]+(\.[0-9]+)? epochs?)$"},
    ]
}


Monitor: TypeAlias = Literal["accuracy", "loss", "macro_f1", "balanced_accuracy"]
"""Figures of a validation by which checkpoints can be compared; all but the loss are better when higher."""


@dataclass(frozen=True)
class DataSettings:
    """Images, their split, and what is done to them.

    Args:
        dataset: cifar10, cifar100, shapes, or data of one's own: folder, list, coco, arrays, idx.
        root: folder that holds the downloaded datasets, or folder or file with data of one's own; if left out, what the
            environment variable ``CNNLITE_DATA`` names, or else ``data``.
        normalize: subtract the mean and divide by the deviation of each channel, of each value, or do neither; or
            ``{mean: [...], std: [...]}`` of each channel, where white is 1. With ``train.from``, the first two are
            those of the source if it was trained so.
        sampling: shuffled, every training image once an epoch, or balanced, every class equally often: an epoch then
            shows each image of a rare class several times, and a part of a frequent one.
        augment: random changes to the training images, in this order.
        mix: mix each training image, and its label, with another one of the batch.
        validation: which training images are held back: the dataset's default, none, a fraction, or a number of images.
        center_crop: side of the square to cut from the middle of each image.
        drop_last: leave out an epoch's last batch if it is smaller than the others.
    """

    dataset: Source
    root: Annotated[str, place] = field(default_factory=lambda: str(default_root()))
    normalize: Mode = "per_channel"
    sampling: Sampling = "shuffled"
    augment: list[Transform] = field(default_factory=list)
    mix: Mixing | None = None
    validation: Annotated[Validation, split_exists] = "default"
    center_crop: Annotated[int, positive] | None = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        shape, size = self.dataset.in_shape, self.center_crop
        if shape is not None and size is not None and size > min(shape[:2]):
            raise OptionError(f"cannot take the centre {size}x{size} of {shape[0]}x{shape[1]} images", "center_crop")

    @property
    def in_shape(self) -> Shape | None:
        """Shape of the images that a network gets; None if only the data itself can tell."""
        return self.cropped(self.dataset.in_shape)

    def cropped(self, shape: Shape | None) -> Shape | None:
        """Return what is left of the shape (H, W, C) of stored images; None if that is not known."""
        if shape is None or self.center_crop is None:
            return shape
        return (self.center_crop, self.center_crop, shape[2])


@dataclass(frozen=True)
class TrainSettings:
    """Length of the training, and its rules.

    Args:
        optimizer: the update rule, with the learning rate.
        epochs: how many times to go through the training images; give this or ``iterations``.
        iterations: how many steps to make.
        from: trained network to start from: a run, a checkpoint, a ``.safetensors`` file, or the name of one that
            comes with cnnlite. Arrays are taken by name and shape, the others begin fresh.
        rename: for arrays with other names in ``from``: pairs of a regular expression and what to put in the place of
            what it finds, applied in this order.
        freeze: regular expression for names of parameters that stay as they are, such as ``^[0-3][.]``. A batch norm
            all of whose parameters match keeps its statistics too, and is computed as in evaluation.
        batch_size: images in a step.
        loss: what to make small.
        schedule: factor for the learning rate over the training.
        averaging: average of the weights to validate and test with.
        clip_norm: largest length of the gradient of all parameters together.
        validate_every: steps, or epochs, between validations.
        checkpoint_every: steps, or epochs, between checkpoints.
        monitor: figure of the validation images that says which checkpoint is the best, and what ``patience`` waits
            for: accuracy, loss, macro_f1 or balanced_accuracy. Of equal figures, that with the lower loss is better.
        patience: validations in a row without a better one after which the training ends early; never if left out.
        snapshots: number of times to keep first filters and some maps, for the film of ``cnnlite show``; at most 100.
        tta: views of each test image, whose logits are averaged: none but itself, mirror, or mirror_translate.
        tta_below: look at further views of those images only whose most probable class has a probability below this.
    """

    optimizer: Optimizer
    epochs: Annotated[float, positive, countable] | None = None
    iterations: Annotated[int, positive] | None = None
    from_: Annotated[str, place] | None = None
    rename: list[Annotated[tuple[str, str], renames]] = field(default_factory=list)
    freeze: Annotated[str, searchable] | None = None
    batch_size: Annotated[int, positive] = 64
    loss: Loss = field(default_factory=CrossEntropy)
    schedule: Schedule = field(default_factory=Constant)
    averaging: Averaging | None = None
    clip_norm: Annotated[float, positive] | None = None
    validate_every: Interval = "1 epoch"
    checkpoint_every: Interval = "1 epoch"
    monitor: Monitor = "accuracy"
    patience: Annotated[int, positive] | None = None
    snapshots: Annotated[int, positive, filmable] | None = None
    tta: Views = "none"
    tta_below: Annotated[float, positive, probability] = 1.0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None):
            if self.epochs is None:
                raise ValueError(NO_LENGTH)
            epochs, iterations = f"train.epochs={self.epochs:g}", f"train.iterations={self.iterations}"
            choice = f"{Override(epochs)} or {Override(iterations)}"
            raise OptionError(f"there are epochs too; leave one of them out, or choose: {choice}", "iterations")
        if self.rename and self.from_ is None:
            raise OptionError(
                f"is for the names in train.from; say where to start from ({Argument('from_')})", "rename"
            )

    def rates(self, total_steps: int, steps_per_epoch: int) -> Callable[[int], dict[str, float]]:
        """Find the learning rates of each step, counted from 0, in a training of so many steps: `Optimizer.rates`."""
        optimizer = copy.deepcopy(self.optimizer)
        optimizer.plan(total_steps, steps_per_epoch)
        return lambda step: optimizer.rates(step, self.schedule.factor(step, total_steps, steps_per_epoch))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of updates of the training, at least 1."""
        return max(1, self.iterations or steps_in(self.epochs or 0, steps_per_epoch))
