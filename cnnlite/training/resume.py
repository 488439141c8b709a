"""Rules for resuming: which options may change, and what a new length does to the learning rate."""

import json
import math
import re
from typing import Any

from cnnlite import __version__
from cnnlite.config.load import Config, config_from_data, flatten
from cnnlite.config.options import options_of
from cnnlite.config.plugins import differences, readable_record
from cnnlite.data import sources
from cnnlite.errors import CheckpointError, ConfigError, Problem
from cnnlite.optim.schedules import schedules
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.environment import arithmetic, versions
from cnnlite.runs.locate import PLUGINS
from cnnlite.training.reporter import Reporter
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import one_line

PLACES = ("data.root", *(f"data.dataset.{name}.cache" for name in sources if "cache" in options_of(sources[name])))
MAY_CHANGE = (
    "train.epochs",
    "train.iterations",
    "train.patience",
    "train.validate_every",
    "train.checkpoint_every",
    "train.snapshots",
    *PLACES,
)
"""Places in the config that may differ on resume: length, intervals, snapshots, folders, nothing that is computed."""
_LENGTH = {"train.epochs", "train.iterations"}
_SHOWN = 5
"""Number of differences shown when a config is refused; another network has hundreds."""


def check_version(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if another version of cnnlite made the run, as its config may mean something else here."""
    version = checkpoint.fact("versions", dict).get("cnnlite")
    if version != __version__:
        wrote = one_line(str(version), 40)
        raise CheckpointError(
            f"the run was made by cnnlite {wrote}, this is {__version__}; install {wrote} to resume it"
        )


def check_same(config: Config, checkpoint: Checkpoint, reporter: Reporter) -> list[Problem]:
    """Compare config and versions with the checkpoint's, and report what differs.

    Returns:
        The allowed changes.

    Raises:
        ConfigError: If other options changed, or the run is already beyond the new length.
    """
    if foreign := differences(readable_record(checkpoint.fact("config", dict))):
        hint = f"a resumed run needs its own, which are in its folder {PLUGINS}: name those with {Argument('plugins')}"
        raise ConfigError([*(Problem("plugins", text) for text in foreign), Problem("", hint)])
    changes = _changes(config, checkpoint)
    if others := refused(config, checkpoint):
        more = f"and {len(others) - _SHOWN} more differences; " * (len(others) > _SHOWN)
        names = dict.fromkeys(re.sub(r"[a-z_0-9]+(?=\.cache)", "*", name) for name in MAY_CHANGE)
        allowed = f"a resumed run may change only {', '.join(names)}"
        config_given = f"{Argument('config')} and {Argument('overrides')}"
        hint = f"leave out {config_given}, or start a new run without {Argument('resume')}"
        raise ConfigError([*others[:_SHOWN], Problem("", f"{more}{allowed}; {hint}")])
    other_length = not _LENGTH.isdisjoint(change.path for change in changes)
    if other_length:
        _refuse_if_beyond(config, checkpoint)
    for change in changes:
        reporter.line(f"changed: {change}")
    if other_length and _position(checkpoint)[0]:
        reporter.line(f"changed: {describe_schedule(config, checkpoint)}")
    if arithmetic_changed := _arithmetic_changed(checkpoint):
        reporter.warn(f"warning: {arithmetic_changed}")
    return changes


def _arithmetic_changed(checkpoint: Checkpoint) -> str:
    """Describe changes in what the bits depend on, as far as the checkpoint tells; empty if there are none."""
    then = checkpoint.fact("versions", dict)
    recorded = checkpoint.meta.get("arithmetic")  # which older checkpoints do not have
    then = {**then, **(recorded if isinstance(recorded, dict) else {})}
    changed = {name: value for name, value in (versions() | arithmetic()).items() if then.get(name, value) != value}
    if not changed:
        return ""
    lines = [
        f"{name.replace('_', ' ')} was {one_line(str(then[name]), 160) or 'none'}, is {value or 'none'}"
        for name, value in changed.items()
    ]
    will = "may" if changed.keys() <= versions().keys() else "will"
    return f"{'; '.join(lines)}: from here on, bits {will} differ from those of a run without interruption"


def refused(config: Config, checkpoint: Checkpoint) -> list[Problem]:
    """Return the differences from a checkpoint's config that are not allowed on resume."""
    return [change for change in _changes(config, checkpoint) if change.path not in MAY_CHANGE]


def _changes(config: Config, checkpoint: Checkpoint) -> list[Problem]:
    before = flatten(_recorded(checkpoint))
    now = flatten(json.loads(json.dumps(config.resolved)))
    return [
        Problem(place, f"was {_shown(before, place)}, is {_shown(now, place)}")
        for place in sorted(before.keys() | now.keys())
        if before.get(place) != now.get(place)
    ]


def _recorded(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config in a checkpoint, with the defaults of options that it is too old to have."""
    data: dict[str, Any] = checkpoint.fact("config", dict)
    try:
        return config_from_data(data).resolved
    except ConfigError:  # which differs then, and is refused
        return data


def describe_schedule(config: Config, checkpoint: Checkpoint) -> str:
    """Describe how another length of the training changes the learning rates from the checkpoint on."""
    step, steps_per_epoch = _position(checkpoint)
    before, train = config_from_data(checkpoint.fact("config", dict)).train, config.train
    total_before, total = before.total_steps(steps_per_epoch), train.total_steps(steps_per_epoch)
    rates_before, rates = before.rates(total_before, steps_per_epoch), train.rates(total, steps_per_epoch)
    both = ((rates_before(i), rates(i)) for i in range(min(total_before, total)))
    changed = next((name for was, now in both for name in now if was[name] != now[name]), None)
    if changed is None:
        return f"{total} steps instead of {total_before}; the learning rates stay what they were"
    name, whose = schedules.name_of(type(train.schedule)), f" of {changed}" if changed else ""
    span = "schedules now span" if changed else f"schedule {name} now spans"
    was, now = rates_before(min(step, total_before - 1))[changed], rates(min(step, total - 1))[changed]
    return (
        f"the {span} {total} steps instead of {total_before}: at step {step} the learning rate{whose} is {now:.3g}, "
        f"not {was:.3g}; the run will not be the same as one of {total} steps from the start"
    )


def _position(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the step of a checkpoint, and the number of steps per epoch as far as it tells."""
    step, epochs = checkpoint.fact("step", int), checkpoint.fact("epoch", float)
    return step, max(1, round(step / epochs)) if epochs else 1


def _refuse_if_beyond(config: Config, checkpoint: Checkpoint) -> None:
    """Raise ConfigError if the new length is shorter than the training already done."""
    step, steps_per_epoch = _position(checkpoint)
    if step > (total := config.train.total_steps(steps_per_epoch)):
        key, least = ("epochs", math.ceil(step / steps_per_epoch)) if config.train.epochs else ("iterations", step)
        message = f"the run is at step {step} already, beyond the {total} asked for; give {least} or more"
        raise ConfigError([Problem(f"train.{key}", message)])


def _shown(flat: dict[str, Any], place: str) -> str:
    return json.dumps(flat[place]) if place in flat else "not there"
