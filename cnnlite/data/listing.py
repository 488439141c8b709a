"""Which pictures a folder of classes holds: the names only, nothing is opened."""

import hashlib
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnlite.errors import DataError
from cnnlite.pictures import SUFFIXES
from cnnlite.printable import has_codes, is_text, one_line
from cnnlite.randomness import stream
from cnnlite.types import Array

TRAIN = "train"
VALIDATION = ("val", "validation", "valid")
TEST = "test"


@dataclass
class Pictures:
    """Files of pictures with their labels."""

    files: list[str] = field(default_factory=list)
    """Relative to the folder of the dataset."""
    labels: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files)

    def __add__(self, other: "Pictures") -> "Pictures":
        return Pictures(self.files + other.files, self.labels + other.labels)

    def take(self, which: Array) -> "Pictures":
        """Those that an index array selects."""
        return Pictures([self.files[index] for index in which], [self.labels[index] for index in which])


@dataclass
class Listing:
    """What a folder holds, in an order that follows from the names alone."""

    root: Path
    classes: tuple[str, ...] = ()
    """Names of the class folders with pictures to train on, sorted."""
    train: Pictures = field(default_factory=Pictures)
    """In an order that is random but always the same; then those of a validation folder, if there is a test folder."""
    validation: int = 0
    """How many of ``train``, the last ones, are from a validation folder."""
    test: Pictures = field(default_factory=Pictures)
    left_out: list[str] = field(default_factory=list)
    """What was seen and not taken, in words."""
    digest: str = ""
    """SHA-256 over names, sizes and times of modification."""


def list_pictures(root: Path, test_fraction: float) -> Listing:
    """List the pictures below ``root``: ``[train|val|test/]class/picture``; DataError if that is not what it holds.

    What to test with is the folder ``test``, else ``val``, else ``test_fraction`` of all pictures.
    """
    reader = _Reader(root)
    listing = reader.listing
    folder = TRAIN if os.path.isdir(root / TRAIN) else ""
    validation = next((name for name in VALIDATION if folder and (root / name).is_dir()), None)
    test = TEST if folder and (root / TEST).is_dir() else None
    train = reader.read_train(folder)
    train = train.take(stream(0, "folder").permutation(len(train)))
    if test or validation:
        listing.test = reader.read(test or str(validation))
        if not listing.test:
            raise DataError(f"{root / (test or str(validation))}: holds no pictures in folders named like classes")
    else:
        count = max(1, round(test_fraction * len(train)))
        order = np.arange(len(train))
        train, listing.test = train.take(order[:-count]), train.take(order[-count:])
    if test and validation:
        held_out = reader.read(validation)
        train, listing.validation = train + held_out, len(held_out)
    listing.train = train
    if not train:
        raise DataError(f"{root}: one picture is not enough to train and to test with")
    listing.digest = reader.digest.hexdigest()
    return listing


class _Reader:
    """Goes through folders in the order of their names, and takes note of all it sees."""

    def __init__(self, root: Path):
        self.root = root
        self.listing = Listing(root)
        self.digest = hashlib.sha256()

    def read_train(self, folder: str) -> Pictures:
        found = {name: files for name, files in self._class_folders(folder).items() if files}
        if len(found) < 2:
            raise DataError(
                f"{self.root / folder}: holds {len(found)} folders of pictures; it takes one for each class, two at "
                f"least, or {TRAIN}, {VALIDATION[0]} and {TEST} with such folders in each"
            )
        self.listing.classes = tuple(found)
        return self._labelled(found)

    def read(self, folder: str) -> Pictures:
        """The pictures of a folder that has no classes of its own."""
        found = {name: files for name, files in self._class_folders(folder).items() if files}
        if strange := sorted(found.keys() - set(self.listing.classes)):
            raise DataError(
                f"{self.root / folder / strange[0]}: there are no pictures of this class to train on"
                + f" (and {len(strange) - 1} more such folders)" * (len(strange) > 1)
            )
        return self._labelled(found)

    def _labelled(self, found: dict[str, list[str]]) -> Pictures:
        pictures = Pictures()
        for name, files in found.items():
            pictures.files += files
            pictures.labels += [self.listing.classes.index(name)] * len(files)
        return pictures

    def _class_folders(self, folder: str) -> dict[str, list[str]]:
        """The pictures of every class folder, by class name, both sorted."""
        classes: dict[str, list[str]] = {}
        for entry in self._entries(folder):
            if not entry.is_dir():
                continue
            name = os.fsencode(entry.name).decode("utf-8", "surrogateescape")  # the same class in every locale
            name = unicodedata.normalize("NFC", name)  # as macOS may spell it otherwise than Linux
            path = os.path.join(folder, entry.name)
            if not is_text(name):
                raise DataError(f"{self.root / path}: the name is not UTF-8; rename the folder")
            if has_codes(name):
                raise DataError(
                    f"{one_line(str(self.root / path))}: the name holds control characters; rename the folder"
                )
            if name in classes:
                raise DataError(f"{self.root / path}: there are two folders of this name, in different spellings")
            classes[name] = self._pictures(path)
            if not classes[name]:
                self.listing.left_out.append(f"{path}{os.sep} holds no pictures")
        return dict(sorted(classes.items()))

    def _pictures(self, folder: str) -> list[str]:
        files, others = [], 0
        for entry in self._entries(folder):
            if not entry.name.lower().endswith(SUFFIXES) or entry.is_dir():
                others += 1
                continue
            path = os.path.join(folder, entry.name)
            try:
                status = entry.stat()
                facts = (status.st_size, status.st_mtime_ns)
            except OSError:  # a link to nowhere: it cannot be read either, which is reported then
                facts = (-1, -1)
            self.digest.update(b"%s\0%d\0%d\n" % (os.fsencode(path), *facts))
            files.append(path)
        if others:
            self.listing.left_out.append(f"{folder}{os.sep}: {others} whose names are not those of pictures")
        return files

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """What is in a folder and not hidden, sorted."""
        path = self.root / folder
        try:
            with os.scandir(path) as entries:
                return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; --data names the folder that holds the pictures") from None
