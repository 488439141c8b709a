"""Record of a run, read from its directory: config, metrics, result, network, and images to show it."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.config.load import Config, load_config
from cnnlite.data import Dataset, Images, Normalizer
from cnnlite.errors import CheckpointError, CnnliteError, ConfigError, DamagedError, DataError, PluginError
from cnnlite.nn.network import Network
from cnnlite.runs.locate import no_run
from cnnlite.runs.restore import image_counts, load_data, load_network, unregistered, with_copies
from cnnlite.runs.results import read_object, read_result
from cnnlite.runs.scores import mean_fraction
from cnnlite.utils.files import is_missing, read_small

Row = dict[str, float | None]
_BEYOND = 1e15
"""Number of steps, in all or in an epoch, that no run makes."""
_LISTS = ("images", "right", "predicted")
_LARGEST_METRICS = 100_000_000
"""Bytes: a row for each of a million validations."""


@dataclass(frozen=True)
class Record:
    """Files of a run, finished or not."""

    path: Path
    config: Config
    rows: list[Row]
    """Rows of metrics.csv; empty before the first validation."""
    result: dict[str, Any]
    """Content of result.json; empty if there is none yet."""
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def status(self) -> str:
        """Status in result.json, or ``unfinished``: training now, or killed."""
        return str(self.result.get("status", "unfinished"))

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of steps per epoch, as far as the metrics tell."""
        return next((round(row["step"] / row["epoch"]) for row in self.rows if row["step"] and row["epoch"]), None)

    @property
    def total_steps(self) -> int | None:
        """Number of steps that the config asks for; None if that takes a row of metrics, and there is none."""
        train = self.config.train
        if train.iterations is not None:
            return train.iterations
        return train.total_steps(self.steps_per_epoch) if self.steps_per_epoch else None

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """Return epochs and values of a column of the metrics, where it has finite values."""
        points = [(row.get("epoch"), row.get(name)) for row in self.rows]
        known = [(x, y) for x, y in points if x is not None and y is not None and math.isfinite(y)]
        return [x for x, _ in known], [y for _, y in known]

    def values(self, name: str) -> list[float]:
        """Return the values of a column, without the epochs."""
        return self.column(name)[1]


def read_record(path: Path) -> Record:
    """Read a run directory.

    Raises:
        ConfigError: If it is no run, or its config is wrong.
        CheckpointError: If its config has a name that is not registered.
    """
    if is_missing(path / "config.yaml"):
        raise no_run(path)
    rows = _rows(path / "metrics.csv")
    result = read_result(path / "result.json")
    if rows and result.get("steps", 0) < (rows[-1]["step"] or 0):
        result = {}  # of an earlier session: the run was resumed since
    try:
        config = load_config(path / "config.yaml", of_run=True)
    except PluginError as error:
        raise with_copies(error, path) from None
    except ConfigError as error:
        if hint := unregistered(error):
            raise CheckpointError(f"{error}{hint}") from None
        raise
    return Record(path, config, rows, result, read_object(path / "environment.json"))


def _rows(path: Path) -> list[Row]:
    """Return the rows of metrics.csv, without an incomplete row of a killed process."""
    try:
        text = read_small(path, _LARGEST_METRICS).decode(errors="replace")
        header, *lines = list(csv.reader(text.splitlines(keepends=True))) or [[]]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except csv.Error as error:
        raise DataError(f"{path}: is not a table of figures ({error})") from None
    rows = []
    for line in lines:
        try:
            row = {name: _number(text) for name, text in zip(header, line, strict=True)}
        except ValueError:
            continue
        step, epoch = row.get("step"), row.get("epoch")
        if step is not None and epoch is not None and 0 <= step < _BEYOND and (epoch == 0 or step < _BEYOND * epoch):
            rows.append(row)
    return rows


def _number(text: str) -> float | None:
    number = float(text or math.nan)
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class ByClass:
    """Numbers of images of each class in a validation."""

    images: list[int]
    right: list[int]
    """Predicted right, of those of the class."""
    predicted: list[int]
    """Predicted as the class, rightly or not."""

    @classmethod
    def of(cls, fact: Any, classes: int) -> "ByClass | None":
        """Return what a checkpoint of so many classes says of its validation; None if it does not."""
        lists = [image_counts(fact.get(name) if isinstance(fact, dict) else None, classes) for name in _LISTS]
        known = [numbers for numbers in lists if numbers is not None]
        return cls(*known) if len(known) == len(lists) and any(known[0]) else None

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are predicted right."""
        return sum(self.right) / sum(self.images)

    @property
    def balanced_accuracy(self) -> float:
        """See `scores.balanced_accuracy`."""
        return mean_fraction(np.array(self.right), np.array(self.images)) or 0.0


@dataclass(frozen=True)
class BestNetwork:
    """Network of a run's best checkpoint."""

    file: Path
    step: int
    network: Network
    normalizer: Normalizer
    classes: tuple[str, ...]
    digest: str
    """Digest of the dataset it was trained on."""
    config: Config
    class_counts: list[int] | None = None
    """Number of training images of each class; None in checkpoints too old to tell."""
    validated: ByClass | None = None
    """The validation that made it the best; None without one, and in old checkpoints."""


def load_trained(record: Record) -> BestNetwork:
    """Load the best checkpoint, or the last if there is no best one.

    Raises:
        CheckpointError: If none is whole, or one cannot be read now, though it may be whole; StorageError likewise.
    """
    folder = record.path / "checkpoints"
    problem = CheckpointError(f"{folder}: no checkpoint yet")
    for kind in ("best", "last", "previous"):
        file = folder / f"{kind}.npz"
        if not is_missing(file):
            try:
                return _trained(file)
            except DamagedError as error:
                problem = error
    raise problem


def _trained(file: Path) -> BestNetwork:
    checkpoint, config, network, normalizer, classes = load_network(file)
    digest = str(checkpoint.fact("dataset", dict).get("digest"))
    counts = image_counts(checkpoint.meta.get("class_counts"), len(classes))
    validated = ByClass.of(checkpoint.meta.get("validation"), len(classes))
    step = checkpoint.fact("step", int)
    return BestNetwork(file, step, network, normalizer, classes, digest, config, counts, validated)


@dataclass(frozen=True)
class Seen:
    """Images that a report shows the network."""

    split: str
    images: Images


def load_seen(record: Record, trained: BestNetwork, root: str | None = None) -> Seen:
    """Return the images that may be looked at: the validation images.

    Without them, the test images if the run is complete, so that its test is over, else the training images. ``root``
    overrides the folder of the dataset.

    Raises:
        DataError: If the dataset is missing, or not the one that the run was trained on.
    """
    try:
        dataset = load_data(record.config, root, trained.classes)
    except (CnnliteError, OSError) as error:
        raise DataError(str(error)) from None
    if dataset.digest != trained.digest or dataset.classes != trained.classes:
        raise DataError(f"the images of {dataset.name} here are not those that the run was trained on")
    split, images = _choose(dataset, record.status)
    return Seen(split, images)


def _choose(dataset: Dataset, status: str) -> tuple[str, Images]:
    if dataset.validation is not None:
        return "validation", dataset.validation
    return ("test", dataset.test) if status == "complete" else ("training", dataset.train)
