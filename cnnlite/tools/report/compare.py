"""Comparison of runs: their results, and the differences of their configs."""

import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from cnnlite.config.load import flatten
from cnnlite.config.options import Option, options_of, to_plain
from cnnlite.data import mixings, sources, transforms
from cnnlite.nn.losses import losses
from cnnlite.optim import optimizers
from cnnlite.optim.averaging import averagings
from cnnlite.optim.schedules import schedules
from cnnlite.tools.report.paired import Paired, pairs
from cnnlite.tools.report.record import Record
from cnnlite.utils.registry import Registry
from cnnlite.utils.text import aligned, duration, percent

_ORDER = ("model", "data", "train", "plugins")
_CHOICES: Mapping[str, Registry[Any]] = {
    "data.dataset": sources,
    "data.augment": transforms,
    "data.mix": mixings,
    "train.optimizer": optimizers,
    "train.schedule": schedules,
    "train.loss": losses,
    "train.averaging": averagings,
}
"""Places in a config where something is chosen by name; options of different choices are not compared."""
SAME = "The configs are the same, seeds and folders aside."
_ABSENT = "-"


@dataclass(frozen=True)
class Entry:
    """Results of a run; accuracies are fractions, None if unknown yet."""

    run: str
    config: str | None
    status: str
    seed: int
    steps: int
    epochs: float
    seconds: float | None
    best_validation_accuracy: float | None
    test_accuracy: float | None
    test_loss: float | None
    test_macro_f1: float | None
    parameters: int | None


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seeds: mean and standard deviation (n - 1) of their figures."""

    runs: list[str]
    validation: tuple[float, float] | None
    test: tuple[float, float] | None
    macro_f1: tuple[float, float] | None
    """Of the test images."""


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison."""

    entries: list[Entry]
    differences: dict[str, dict[str, Any]]
    """Values by run, for each place where the configs differ; runs without the place are left out."""
    groups: list[Group]
    paired: list[Paired]

    def facts(self) -> dict[str, Any]:
        """Return the comparison as an object for JSON."""
        return asdict(self)

    def rows(self) -> list[list[str]]:
        """Return the table of runs, heading first."""
        heading = ["run", "config", "status", "seed", "steps", "epochs", "time", "validation", "test", "macro F1"]
        return [[*heading, "parameters"], *(_row(entry) for entry in self.entries)]

    def difference_rows(self) -> list[list[str]]:
        """Return the table of differences, heading first."""
        heading = ["option", *(entry.run for entry in self.entries)]
        runs = heading[1:]
        return [
            heading,
            *(
                [place, *(_plain(values[run]) if run in values else _ABSENT for run in runs)]
                for place, values in self.differences.items()
            ),
        ]

    def describe(self) -> str:
        """Format the comparison as text."""
        (_, *names), *rows = self.difference_rows()
        parts = [aligned(self.rows(), left=(0, 1, 2))]
        parts += [text for group in self.groups if (text := describe_group(group))]
        parts += ["\n".join(pair.describe() for pair in self.paired)] * bool(self.paired)
        parts.append("\n".join(_difference_line(names, row) for row in rows) or SAME)
        return "\n\n".join(parts)


def compare(records: Sequence[Record]) -> Comparison:
    """Compare runs, finished or not."""
    names = run_names(records)
    configs = [_compared(record) for record in records]
    entries = [_entry(name, record) for name, record in zip(names, records, strict=True)]
    return Comparison(entries, _differences(names, configs), _groups(entries, configs), pairs(names, records))


def run_names(records: Sequence[Record]) -> list[str]:
    """Return a name for each run: its directory's, or its path if two have the same."""
    names = [record.name for record in records]
    return [str(record.path) if names.count(name) > 1 else name for name, record in zip(names, records, strict=True)]


def _differences(names: Sequence[str], configs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the values by run, for each place that is not the same in all configs.

    A different optimizer, schedule or the like counts as one value; models with other layers are outlined.
    """
    outlines = [[*_kinds(config["model"])] for config in configs]
    leaves = [flatten(config) for config in configs]
    for place, registry in _CHOICES.items():
        part, _, key = place.partition(".")
        chosen = [config[part][key] for config in configs]
        if any(_names(value) != _names(chosen[0]) for value in chosen):
            for config, value in zip(leaves, chosen, strict=True):
                for inner in [inner for inner in config if re.match(rf"{place}\b", inner)]:
                    del config[inner]
                config[place] = _shortened(value, registry)
    if any(outline != outlines[0] for outline in outlines):
        for config, outline in zip(leaves, outlines, strict=True):
            for place in [place for place in config if place.startswith("model")]:
                del config[place]
            config["model"] = ", ".join(f"{count} {kind}" for kind, count in Counter(outline).items())
    differences = {}
    places = dict.fromkeys(place for config in leaves for place in config)
    for place in sorted(places, key=lambda place: _ORDER.index(re.split(r"\W", place)[0])):
        values = {name: config[place] for name, config in zip(names, leaves, strict=True) if place in config}
        if len(values) < len(names) or any(value != leaves[0][place] for value in values.values()):
            differences[place] = values
    return differences


def _names(value: Any) -> list[str]:
    """Return the names of a choice: one, several for a list, or none."""
    if isinstance(value, list):
        return [name for item in value for name in _names(item)]
    return [value] if isinstance(value, str) else list(value or ())


def _shortened(value: Any, registry: Registry[Any]) -> Any:
    """Return a choice without the options that have their defaults."""
    if isinstance(value, list):
        return [_shortened(item, registry) for item in value]
    if not isinstance(value, dict):
        return value
    [(name, given)] = value.items()
    options = options_of(registry[name])
    changed = {key: item for key, item in given.items() if not _is_default(options[key], item)}
    return {name: changed} if changed else name


def _is_default(option: Option, value: Any) -> bool:
    return option.default is not None and bool(to_plain(option.default()) == value)


def _kinds(node: Any) -> Iterator[str]:
    """Yield the names of the layers in a model, including those inside containers."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for kind, options in node.items():
            yield kind
            for option in options.values():
                if isinstance(option, (list, dict)):
                    yield from _kinds(option)
    elif isinstance(node, list):
        for item in node:
            yield from _kinds(item)


def _compared(record: Record) -> dict[str, Any]:
    """Return the config without what does not affect training, or has a column of its own."""
    config = {**record.config.resolved, "data": {**record.config.resolved["data"], "root": None}}
    del config["seed"]
    return config


def _entry(name: str, record: Record) -> Entry:
    result, last = record.result, record.rows[-1] if record.rows else {}
    highest = max(record.values("validation_accuracy"), default=None)
    return Entry(
        run=name,
        config=result.get("config"),
        status=record.status,
        seed=record.config.seed,
        steps=int(last.get("step") or result.get("steps") or 0),
        epochs=float(last.get("epoch") or result.get("epochs") or 0),
        seconds=last.get("seconds"),
        best_validation_accuracy=result.get("best_validation_accuracy") or highest,
        test_accuracy=result.get("test_accuracy"),
        test_loss=result.get("test_loss"),
        test_macro_f1=result.get("test_macro_f1"),
        parameters=result.get("parameters"),
    )


def _groups(entries: Sequence[Entry], configs: Sequence[dict[str, Any]]) -> list[Group]:
    """Group complete runs with the same config and different seeds."""
    groups = []
    for index, config in enumerate(configs):
        if config in configs[:index]:
            continue
        members = [entry for entry, other in zip(entries, configs, strict=True) if other == config]
        members = [entry for entry in members if entry.status == "complete"]
        if len({entry.seed for entry in members}) > 1:
            names = ("best_validation_accuracy", "test_accuracy", "test_macro_f1")
            spreads = (_spread([getattr(entry, name) for entry in members]) for name in names)
            groups.append(Group([entry.run for entry in members], *spreads))
    return groups


def _spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (statistics.mean(known), statistics.stdev(known)) if len(known) == len(values) else None


def describe_group(group: Group) -> str:
    """Format the figures of runs with several seeds; empty if they have none."""
    parts = [
        f"{name} {100 * found[0]:.1f}% +- {100 * found[1]:.1f}"
        for name, found in (("validation", group.validation), ("test", group.test), ("macro F1", group.macro_f1))
        if found is not None
    ]
    return f"{len(group.runs)} seeds of one config ({', '.join(group.runs)}): {', '.join(parts)}" if parts else ""


def _row(entry: Entry) -> list[str]:
    return [
        entry.run,
        entry.config or _ABSENT,
        entry.status,
        str(entry.seed),
        f"{entry.steps:,}",
        f"{entry.epochs:.4g}",
        _ABSENT if entry.seconds is None else duration(entry.seconds),
        percent(entry.best_validation_accuracy),
        percent(entry.test_accuracy),
        percent(entry.test_macro_f1),
        _ABSENT if entry.parameters is None else f"{entry.parameters:,}",
    ]


def _difference_line(names: Sequence[str], row: Sequence[str]) -> str:
    """Format a row: ``train.batch_size: 64 (small, small-2), 16 (tiny)``."""
    place, *values = row
    parts = []
    for value in dict.fromkeys(values):
        runs = ", ".join(name for name, other in zip(names, values, strict=True) if other == value)
        parts.append(f"{'none' if value == _ABSENT else value} ({runs})")
    return f"{place}: {', '.join(parts)}"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (dict, list)):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=sys.maxsize).strip()
    return str(value)
