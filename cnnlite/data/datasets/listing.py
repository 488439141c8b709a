"""Listings: the examples of a dataset in order, before any is read; `splits.divide` says what each is for."""

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Self, TypeVar

from cnnlite.utils.types import Array, Shape

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation", "dev", "development", "eval", "evaluation"),
    TEST: ("test", "testing"),
}
"""Names of a part, in any case: of folders, files and arrays, or in a column."""
PART_OF = {name: part for part, names in PARTS.items() for name in names}


class Examples(ABC):
    """Examples of one part with their labels, none of which is read yet."""

    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """Concatenate two parts."""

    @abstractmethod
    def take(self, which: Array) -> Self:
        """Select examples by an index array."""

    @abstractmethod
    def keys(self) -> list[str]:
        """Return what decides the part of each, the same on all systems; examples of one key stay together."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name an example for messages."""


E = TypeVar("E", bound=Examples)


@dataclass
class Listing(Generic[E]):
    """Examples of a dataset, in an order that follows from names or contents alone."""

    root: Path
    shape: Shape
    """Shape of an image, (H, W, C)."""
    classes: tuple[str, ...]
    train: E
    """Training examples, those for validation among them as the last ones."""
    above: Array
    """Fraction above which each of ``train`` is for validation, in descending order; see `splits.turns`."""
    has_validation: bool
    """True if the source says which of ``train`` are for validation; ``above`` is `FIRST` or `NEVER` of `splits`."""
    test: E
    has_test: bool
    """True if the source says which examples are for the test."""
    digest: str
    """SHA-256 over all that the listing was made from, and over `stamp`: another one where contents may be others."""
    left_out: list[str] = field(default_factory=list)
    """Messages about what is not used."""

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.train) + len(self.test)


def spelled(name: str) -> str:
    """Normalize a name to UTF-8 in NFC, whatever the locale and the spelling of the file system."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "surrogateescape"))


def counted(count: int, what: str) -> str:
    """Count things in words, such as ``2 files``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def stamp(path: Path | str) -> bytes:
    """Describe the state of a file by size, times and inode; as missing if it is a link to nothing, say."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # it cannot be read either, which is reported then
        return b"missing"
    # Archives and rsync set mtime; what was put in a file's place has another ctime or inode.
    return b"%d\0%d\0%d\0%d" % (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
