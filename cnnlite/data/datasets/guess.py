"""Guess of the kind of dataset that a path holds, by names alone."""

import os
from pathlib import Path

from cnnlite.data.datasets.base import sources
from cnnlite.data.datasets.cifar import CIFAR10, CIFAR100
from cnnlite.data.datasets.tree import Tree
from cnnlite.errors import DataError

_FILES = {
    "arrays": (".npz", ".npy"),
    "coco": (".json",),
    "idx": ("-ubyte", "-ubyte.gz"),
    "list": (".csv", ".tsv", ".txt"),
}
"""Names in configs, and what the names of files of each kind end in."""


def kind_of(path: Path) -> str | None:
    """Return the name in configs of the dataset that a file or folder looks like; None if it is like none.

    Raises:
        DataError: If it cannot be opened.
    """
    found = _of_folder(path) if os.path.isdir(path) else _of_name(path.name)
    return found if found in sources else None


def _of_name(name: str) -> str | None:
    return next((kind for kind, endings in _FILES.items() if name.lower().endswith(endings)), None)


def _of_folder(folder: Path) -> str | None:
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from None
    for cifar in (CIFAR10, CIFAR100):
        if any(version.folder in names or names.issuperset(version.files) for version in cifar.versions):
            return cifar.name
    if any(name.lower().endswith(".json") for name in _inside(folder / "annotations")):
        return "coco"
    kinds = set(map(_of_name, names))
    if found := [kind for kind in ("arrays", "idx") if kind in kinds]:
        return found[0]
    return "folder" if Tree(folder).picture_below("") is not None else None


def _inside(folder: Path) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
