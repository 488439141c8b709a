"""Finds the labelled images that a checkpoint is evaluated on: of its own dataset, or of another."""

from pathlib import Path

from cnnlite.config.load import Config
from cnnlite.data import Dataset, default_root, prepare, seen, sources
from cnnlite.data.datasets.base import OtherClasses, refuse_unread
from cnnlite.data.datasets.guess import kind_of
from cnnlite.data.frames import Frame
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.restore import load_data


def find_labelled(
    checkpoint: Checkpoint,
    config: Config,
    classes: tuple[str, ...],
    frame: Frame,
    root: str | None = None,
    kind: str | None = None,
) -> tuple[Dataset, bool]:
    """Load the dataset of a run from ``root``, or what else is there; ``kind`` is the name of its source in configs.

    What is there is another dataset if it is of another kind, or has other classes, or none of the images that the run
    has seen. Such a dataset is not split yet, and of its own size.

    Returns:
        The dataset, and True if it is another one.

    Raises:
        ConfigError: If there is a ``root``, but the dataset reads no files.
        DataError: If it cannot be read.
    """
    own = config.data.dataset
    if kind is None and root is None:
        return load_data(config, root, classes), False
    place = default_root() if root is None else Path(root)
    own_kind = sources.name_of(type(own.underlying))
    kind_there = kind or kind_of(place) or own_kind
    there = own if kind_there == own_kind else sources[kind_there].framed(frame)
    refuse_unread(there, root)
    if kind is not None or kind_there != own_kind:
        return there.underlying.reading_only(classes, some=True).load(place), True
    try:
        dataset = own.reading_only(classes).load(place)
    except OtherClasses:
        return own.reading_only(classes, some=True).load(place), True
    data = config.data
    is_same = checkpoint.fact("dataset", dict).get("digest") == dataset.digest
    before = checkpoint.part("seen")
    if not is_same and seen(prepare(dataset, validation="none", center_crop=data.center_crop), before) == 0:
        return dataset, True
    return prepare(dataset, validation=data.validation, center_crop=data.center_crop, seed=config.seed), False
