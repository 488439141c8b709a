"""The beginning of a training that starts from a trained network: which arrays fit, and which begin fresh."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cnnlite.config.load import Config
from cnnlite.config.options import to_plain
from cnnlite.data import Dataset
from cnnlite.errors import CheckpointError, ConfigError, Problem
from cnnlite.nn.layers.base import dotted
from cnnlite.nn.network import Network
from cnnlite.nn.torch_layout import layouts
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.pretrained import Source, locate, read_source
from cnnlite.utils.files import opened
from cnnlite.utils.patterns import renaming
from cnnlite.utils.printable import one_line
from cnnlite.utils.text import aligned
from cnnlite.utils.types import Array, Shape

_TAKEN = "taken"
_SHOWN = 4
"""Names that a line lists."""
_LISTED = 100
"""Names that ``environment.json`` lists, so that it stays small however large a network is."""


class Row(NamedTuple):
    """An array of the new network, and where its values are from."""

    name: str
    shape: Shape
    origin: str


@dataclass(frozen=True)
class Start:
    """The arrays of a source that fit a network, and a table of all."""

    source: Source
    arrays: Mapping[str, Array]
    """By the names of a checkpoint: ``param/...``, ``buffer/...``, perhaps ``normalize/...``."""
    rows: Sequence[Row]
    unused: Sequence[str]
    """Arrays of the source that were not taken."""
    notes: Sequence[str]

    def facts(self) -> dict[str, Any]:
        """Return what ``environment.json`` says of it."""
        fresh = [row.name for row in self.rows if row.origin != _TAKEN]
        taken = len(self.rows) - len(fresh)
        path, digest = str(self.source.path), self.source.sha256
        return {"path": path, "sha256": digest, "taken": taken, "fresh": fresh[:_LISTED], "unused": len(self.unused)}

    def checkpoint(self) -> Checkpoint:
        """Return what the run keeps, so that it does not need the source again."""
        return Checkpoint(
            dict(self.arrays), {"from": self.facts(), "table": {row.name: row.origin for row in self.rows}}
        )

    def describe(self) -> list[str]:
        """Format a table of all arrays of the network, and notes, as lines."""
        taken = sum(row.origin == _TAKEN for row in self.rows)
        source = f"{self.source.path} (SHA-256 {self.source.sha256})"
        rows = [(f"  {row.name}", " x ".join(map(str, row.shape)), row.origin) for row in self.rows]
        lines = [f"{taken} of {len(rows)} arrays are from {source}", *aligned(rows, left=(0, 1, 2)).split("\n")]
        if self.unused:
            lines.append(f"not taken from there: {_some(self.unused)}")
        return [*lines, *self.notes]


def check_start(config: Config) -> None:
    """Check that there is what ``train.from`` names, before any data are read; errors as from `read_start`."""
    if config.train.from_ is not None:
        with opened(locate(config.train.from_)):
            pass


def read_start(config: Config, dataset: Dataset) -> Start | None:
    """Read what ``train.from`` names, and choose what fits the network of a config; None if it names nothing.

    Raises:
        CheckpointError: If the file is damaged, or nothing in it fits; DataError if it cannot be read.
        ConfigError: If there is no such run, or ``train.rename`` does not fit the names in the file.
    """
    if config.train.from_ is None:
        return None
    source = read_source(locate(config.train.from_))
    shape, classes = dataset.train.images.shape[1:], dataset.classes
    with config.located():
        network = Network(config.model, shape, seed=None, classes=len(classes))
        arrays, rows, unused = fitting(source, network, config.train.rename)
    mode = to_plain(config.data.normalize)
    statistics = source.normalize if source.mode == mode else {}
    if any(array.shape not in (shape, shape[-1:]) for array in statistics.values()):
        statistics = {}
    notes = [*_about_classes(source, classes, rows), _about_normalization(source, mode, bool(statistics))]
    return Start(source, {**arrays, **statistics}, rows, unused, notes)


def fitting(
    source: Source, network: Network, rename: Sequence[tuple[str, str]]
) -> tuple[dict[str, Array], list[Row], list[str]]:
    """Choose the arrays of a source that have the names and shapes of an inferred network's.

    Returns:
        The arrays by the names of a checkpoint, a row for each array of the network, and the names of the others.

    Raises:
        CheckpointError: If no parameter fits.
        ConfigError: If a part of ``rename`` finds nothing, or gives two arrays one name.
    """
    given = _renamed(source, rename)
    places = layouts(network.model)
    chosen, rows, unused = {}, [], dict.fromkeys(given)
    specs = {dotted(prefix, key): spec for prefix, layer in network.model.walk() for key, spec in layer.specs.items()}
    for name, spec in specs.items():
        theirs = places[name].name if source.is_torch else name
        origin = "fresh: not there"
        if (array := given.get(theirs)) is not None:
            array = places[name].to_ours(array) if source.is_torch else array
            origin = _TAKEN if array.shape == spec.shape else f"fresh: is {' x '.join(map(str, array.shape))} there"
            if array.shape == spec.shape:
                chosen[f"{'param' if spec.trained else 'buffer'}/{name}"] = np.asarray(array, order="C")
                del unused[theirs]
        rows.append(Row(name, spec.shape, origin))
    if not any(name.startswith("param/") for name in chosen):
        there, here = _some([*given]) or "none", _some([*specs])
        hint = "train.rename can give them other names"
        raise CheckpointError(f"{source.path}: no array in it fits the network: there are {there}, here {here}; {hint}")
    return chosen, rows, list(unused)


def _renamed(source: Source, rename: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """Apply ``train.rename`` to the names of a source."""
    names = {name: name for name in source.arrays}
    for index, (match, name) in enumerate(rename):
        replace = renaming(match, name)
        after = {original: replace(current) for original, current in names.items()}
        if after == names:
            now = _some([*names.values()])
            message = f"{match!r} is found in no name of {source.path}, where these are left: {now}"
            raise ConfigError([Problem(f"train.rename[{index}]", message)])
        names = after
    found: dict[str, Array] = {}
    origins: dict[str, str] = {}
    for original, name in names.items():
        if name in found:
            message = f"gives {one_line(original, 80)} and {one_line(origins[name], 80)} the same name, {name}"
            raise ConfigError([Problem("train.rename", message)])
        found[name], origins[name] = source.arrays[original], original
    return found


def _about_classes(source: Source, classes: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Say what becomes of the last layer where the classes are others than those of the source."""
    if not source.classes or source.classes == tuple(classes):
        return []
    layer = rows[-1].name.rpartition(".")[0] or rows[-1].name
    fresh = any(row.origin != _TAKEN for row in rows if row.name.startswith(layer))
    if len(source.classes) != len(classes):
        return [
            f"{len(classes)} classes instead of {len(source.classes)}: the last layer, {layer}, begins fresh"
        ] * fresh
    return (
        [] if fresh else [f"the last layer, {layer}, is taken, though the classes are not those of {source.path.name}"]
    )


def _about_normalization(source: Source, mode: Any, taken: bool) -> str:
    """Say with whose statistics images are normalized."""
    if taken:
        return "images are normalized as they were there: with its mean and deviation"
    here = f"images are normalized as data.normalize says, {json.dumps(mode)}"
    if source.mode is None:
        return f"{here}; the file does not tell how they were normalized for it"
    if source.mode == mode:
        return f"{here}; the source's mean and deviation are of images of another shape"
    return f"{here}, and were otherwise for the source: {one_line(json.dumps(source.mode), 200)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(one_line(name, 80) for name in names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
