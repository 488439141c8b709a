"""Configs: YAML files read into checked, typed settings."""

import copy
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

import cnnlite.layers  # noqa: F401 - registers all layers
from cnnlite.annotations import options_of, show
from cnnlite.averaging import Averaging
from cnnlite.builder import Problems, construct
from cnnlite.data import Mixing, Source, Transform, Views, default_root
from cnnlite.data.dataset import Validation
from cnnlite.draft import Draft
from cnnlite.errors import ConfigError, Problem
from cnnlite.layers.base import Layer
from cnnlite.losses import CrossEntropy, Loss, losses
from cnnlite.optimizers import Optimizer, optimizers
from cnnlite.registry import did_you_mean
from cnnlite.schedules import Constant, Schedule, schedules
from cnnlite.yaml_reader import MAX_NODES, Document, Steps, clip, read_text, read_yaml, resolve


def positive(number: float) -> None:
    """Check that a number is above 0."""
    if not number > 0:
        raise ValueError(f"must be above 0, not {number}")


def countable(number: float) -> None:
    """Check that a number of epochs has a number of steps."""
    if number > 1e12:
        raise ValueError(f"must be at most 1e12, not {number:g}")


def not_negative(number: float) -> None:
    """Check that a number is at least 0."""
    if not number >= 0:
        raise ValueError(f"must be at least 0, not {number}")


def split_exists(validation: Validation) -> None:
    """Check that ``data.validation`` can be a part of something."""
    if isinstance(validation, float) and not 0 < validation < 1:
        raise ValueError(f"fraction {validation} is not in (0, 1)")
    if isinstance(validation, int) and validation < 1:
        raise ValueError(f"must be at least 1 image, not {validation}; write none for no validation")


@dataclass(frozen=True)
class Interval:
    """How often something happens: every so many steps, or epochs."""

    count: float
    unit: Literal["steps", "epochs"]

    @classmethod
    def from_config(cls, value: Any) -> "Interval":
        """Read a number of steps, or text such as ``500 steps``, ``1 epoch`` or ``0.5 epochs``."""
        wanted = "a number of steps, or text such as '1 epoch'"
        if type(value) is int:
            interval = cls(value, "steps")
        elif isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9}) steps?", value, re.ASCII)):
            interval = cls(int(match[1]), "steps")
        elif isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) epochs?", value, re.ASCII)):
            interval = cls(float(match[1]), "epochs")
        else:
            raise ValueError(f"expected {wanted}, got {show(value)}")
        if not 0 < interval.count < 1e15:
            raise ValueError(f"expected {wanted}, above 0 and of sensible size, got {show(value)}")
        return interval

    def to_config(self) -> int | str:
        """Write the interval as ``from_config`` reads it."""
        if self.unit == "steps":
            return int(self.count)
        return f"{self.count:.9f}".rstrip("0").rstrip(".") + (" epoch" if self.count == 1 else " epochs")

    def steps(self, steps_per_epoch: int) -> int:
        """Convert to whole steps, at least 1."""
        return int(self.count) if self.unit == "steps" else max(1, round(self.count * steps_per_epoch))


@dataclass(frozen=True)
class DataSettings:
    """Which images, how they are split, and what is done to them.

    Args:
        dataset: cifar10, cifar100, shapes, or folder.
        root: folder that holds the downloaded datasets, or the pictures.
        normalize: subtract the mean and divide by the deviation of each channel, of each value, or do neither.
        augment: random changes to the training images, in this order.
        mix: mix each training image, and its label, with another one of the batch.
        validation: which training images are held back: the dataset's default, none, a fraction, or a number of images.
        center_crop: side of the square to cut from the middle of each image.
        drop_last: leave out an epoch's last batch if it is smaller than the others.
    """

    dataset: Source
    root: str = field(default_factory=lambda: str(default_root()))
    normalize: Literal["per_channel", "per_pixel", "none"] = "per_channel"
    augment: list[Transform] = field(default_factory=list)
    mix: Mixing | None = None
    validation: Annotated[Validation, split_exists] = "default"
    center_crop: Annotated[int, positive] | None = None
    drop_last: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """How long and by which rule to train.

    Args:
        optimizer: the update rule, with the learning rate.
        epochs: how many times to go through the training images; give this or ``iterations``.
        iterations: how many steps to make.
        batch_size: images in a step.
        loss: what to make small.
        schedule: factor for the learning rate over the training.
        averaging: average of the weights to validate and test with.
        clip_norm: largest length of the gradient of all parameters together.
        validate_every: steps, or epochs, between validations.
        checkpoint_every: steps, or epochs, between checkpoints.
        patience: validations in a row without a better accuracy after which the training ends early; never if left out.
        tta: views of each test image, whose logits are averaged: none but itself, mirror, or mirror_translate.
    """

    optimizer: Optimizer
    epochs: Annotated[float, positive, countable] | None = None
    iterations: Annotated[int, positive] | None = None
    batch_size: Annotated[int, positive] = 64
    loss: Loss = field(default_factory=CrossEntropy)
    schedule: Schedule = field(default_factory=Constant)
    averaging: Averaging | None = None
    clip_norm: Annotated[float, positive] | None = None
    validate_every: Interval = Interval(1, "epochs")
    checkpoint_every: Interval = Interval(1, "epochs")
    patience: Annotated[int, positive] | None = None
    tta: Views = "none"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None):
            given = "neither" if self.epochs is None else "both"
            raise ValueError(f"expected one of epochs and iterations, got {given}")

    def rates(self, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
        """Find the learning rate of each step, counted from 0, in a training of so many steps."""
        optimizer = copy.deepcopy(self.optimizer)
        optimizer.plan(total_steps, steps_per_epoch)
        return lambda step: optimizer.rate(step, self.schedule.factor(step, total_steps, steps_per_epoch))

    def total_steps(self, steps_per_epoch: int) -> int:
        """How many updates the training makes, at least 1."""
        # An epoch count such as 0.3 must not become one step more for its last bits.
        return max(1, self.iterations or math.ceil((self.epochs or 0) * steps_per_epoch - 1e-6))


@dataclass(frozen=True)
class Config:
    """Everything that determines a training run."""

    model: Layer
    """Not built yet; its options are checked."""
    data: DataSettings
    train: TrainSettings
    seed: Annotated[int, not_negative] = 0
    resolved: dict[str, Any] = field(default_factory=dict, metadata={"option": False})
    """The config as plain data with every default written out; ``config_from_data`` reads it."""
    name: str = field(default="", metadata={"option": False})
    """Stem of the file's name."""


FLAGS: Mapping[str, tuple[str, ...]] = {"seed": ("seed",), "data": ("data", "root")}
"""Command-line options that stand for a place in the config."""


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), **flags: Any) -> Config:
    """Read a config: a path, a bundled name, or plain data.

    ``overrides`` are ``PLACE=VALUE``, ``flags`` those of ``FLAGS``. The later wins: source, overrides, flags that are
    not None. Raises ConfigError with all problems.
    """
    if isinstance(source, Mapping):
        path, document = Path("config"), Document(dict(source), {}, "")
    else:
        path = find_config(str(source))
        document = read_yaml(path)
    if not isinstance(document.data, dict):
        message = f"expected the keys {', '.join(options_of(Config))}, got {show(document.data)}"
        if document.data is None:
            message = f"the file is empty; a config has the keys {', '.join(options_of(Config))}"
        elif isinstance(document.data, list):
            message += "; a list of layers belongs below the key 'model'"
        raise ConfigError(document.problems or [Problem("", message, str(path), 1)])
    draft = Draft(Config, document)
    folders = [path.parent, bundled_folder()]
    draft.include_model(folders)
    for assignment in overrides:
        draft.override(assignment)
        draft.include_model([Path(), *folders])
    for flag, value in flags.items():
        if value is not None:
            draft.set(FLAGS[flag], value, f"--{flag}")
    return _check(draft.data, _Problems(draft.places, draft.problems), path.stem)


def config_from_data(data: Any, name: str = "") -> Config:
    """Make a config from plain data such as ``Config.resolved``; ConfigError with all problems."""
    return _check(data, _Problems(), name)


def render(config: Config) -> str:
    """Write a config, every default included, as YAML that reads back as the same config."""
    return yaml.dump(
        config.resolved, Dumper=_Dumper, default_flow_style=None, sort_keys=False, width=120, allow_unicode=True
    )


def flatten(data: Any, place: str = "") -> dict[str, Any]:
    """Turn nested data into one level: ``{"train.optimizer.sgd.lr": 0.1}``."""
    if isinstance(data, dict) and data:
        items = [(f"{place}.{key}" if place else str(key), value) for key, value in data.items()]
    elif isinstance(data, list) and data:
        items = [(f"{place}[{index}]", value) for index, value in enumerate(data)]
    else:
        return {place: data}
    return {name: leaf for key, value in items for name, leaf in flatten(value, key).items()}


def bundled_folder() -> Path:
    """Find the configs that come with cnnlite: inside the installed package, or at the top of a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def bundled_configs() -> list[str]:
    """List the file names of the configs that come with cnnlite."""
    return sorted(path.name for path in bundled_folder().glob("*.yaml"))


def find_config(name: str) -> Path:
    """Find a config: the file if there is one, else a bundled config, with or without ``.yaml``; or ConfigError."""
    if os.path.exists(name) and not os.path.isdir(name):
        return Path(name)
    bundled = bundled_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in bundled:
            return bundled_folder() / candidate
    if os.path.exists(name):
        return Path(name)  # a folder; reading it says so
    way_out = did_you_mean(clip(name), bundled) or f"; bundled: {', '.join(bundled)}"
    raise ConfigError([Problem("", f"no such file, and no bundled config of that name{way_out}", clip(name, 200))])


def config_text(name: str) -> str:
    """Read a config, a path or a bundled name, as it is written."""
    return read_text(find_config(name))


def _check(data: Any, problems: Problems, name: str) -> Config:
    config: Config
    config, resolved = construct(Config, data, (), problems)
    problems.raise_any()
    if _count(resolved) > MAX_NODES:  # a run's config.yaml could not be read again
        raise ConfigError([Problem("", f"more than {MAX_NODES:,} values, defaults included; that is not a config")])
    return replace(config, resolved=resolved, name=name)


def _count(data: Any) -> int:
    items = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return 1 + sum(map(_count, items))


class _Problems(Problems):
    def misplaced(self, steps: Steps, key: str) -> str:
        if steps[:1] == ("model",):
            return ""
        if key in options_of(Config):
            return "the top, beside 'model'"
        for settings in fields(Config)[1:3]:
            if key in options_of(settings.type if isinstance(settings.type, type) else object):
                return f"{settings.name}.{key}"
        for place, registry in ("optimizer", optimizers), ("schedule", schedules), ("loss", losses):
            owners = [name for name in registry if key in options_of(registry[name])]
            if owners and steps[:2] != ("train", place):
                return f"train.{place}, among the options of {', '.join(owners)}"
        return ""


class _Dumper(yaml.SafeDumper):
    """Small collections in one line, no anchors, and quotes around all text that would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        quotes = None if resolve(text) == text else "'"
    except ValueError:
        quotes = "'"
    if not text.isprintable():
        quotes = '"'  # the only style with escapes
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


_Dumper.add_representer(str, _represent_text)
