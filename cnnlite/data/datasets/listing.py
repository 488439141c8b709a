"""Listing of the pictures in folders of classes, and their split: by names only, no file is opened."""

import hashlib
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnlite.data.datasets.tree import Tree, is_broken
from cnnlite.data.splits import FIRST, NEVER, turns
from cnnlite.errors import DataError
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import has_codes, is_text, one_line
from cnnlite.utils.types import Array

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation", "dev", "development", "eval", "evaluation"),
    TEST: ("test", "testing"),
}
"""Names of folders, in any case, that hold the pictures of a part."""
_PART_OF = {name: part for part, names in PARTS.items() for name in names}


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
        """Select pictures by an index array."""
        return Pictures([self.files[index] for index in which], [self.labels[index] for index in which])

    def keys(self) -> list[str]:
        """Names of the pictures, the same on all systems."""
        return [_spelled(file.replace(os.sep, "/")) for file in self.files]


@dataclass
class Listing:
    """Pictures of a folder, in an order that follows from the names alone."""

    root: Path
    classes: tuple[str, ...] = ()
    """Names of the class folders with pictures to train on, sorted."""
    train: Pictures = field(default_factory=Pictures)
    """Pictures in a random but reproducible order: those for validation are the last ones."""
    above: Array = field(default_factory=lambda: np.empty(0))
    """Fraction above which each of ``train`` is for validation, in descending order; see `splits.turns`."""
    has_validation: bool = False
    """True if a folder says which of ``train`` are for validation; ``above`` is `FIRST` or `NEVER` then."""
    test: Pictures = field(default_factory=Pictures)
    has_test: bool = False
    """True if a folder says which pictures are for the test."""
    left_out: list[str] = field(default_factory=list)
    """Messages about files and folders that are not used."""
    digest: str = ""
    """SHA-256 over names, sizes, times of change and inodes: another one where contents may be others."""


def list_pictures(root: Path, test_fraction: float, seed: int = 0, *, lenient: bool = False) -> Listing:
    """List the pictures below ``root``: ``[train|val|test/]class/picture``; DataError if that is not what it holds.

    Test images are those in the folder ``test``, else in ``val``, else about ``test_fraction`` of all pictures, chosen
    by the name of each and ``seed``. ``lenient`` takes what could not be trained on: a single class, one picture of
    each, classes that are in one part only.
    """
    reader = _Reader(root, lenient)
    listing = reader.listing
    parts = reader.parts()
    train = reader.read(parts.get(TRAIN, ""), TRAIN)
    given = {part: reader.read(parts[part], part) for part in (TEST, VALIDATION) if part in parts}
    listing.has_test = bool(given)
    if given:
        listing.test = given.pop(next(iter(given)))
    else:
        order, above = turns(train.keys(), train.labels, TEST, seed)
        held_out, kept = np.split(order, [np.searchsorted(above, test_fraction)])
        train, listing.test = train.take(kept), train.take(held_out)
        if not listing.test and not lenient:
            raise DataError(
                f"{root}: no class has more than one picture, so none is left to test with; a class needs 2, and 3 to "
                "validate with too"
            )
    order, above = turns(train.keys(), train.labels, VALIDATION, seed)
    listing.train, listing.above = train.take(order[::-1]), above[::-1]
    if validation := given.get(VALIDATION):
        listing.has_validation = True
        listing.train += validation
        listing.above = np.repeat([NEVER, FIRST], [len(train), len(validation)])
    listing.left_out = list(reader.tree.told())
    listing.digest = reader.digest.hexdigest()
    return listing


class _Reader:
    """Finds the arrangement of the folders, and lists them in the order of their names."""

    def __init__(self, root: Path, lenient: bool):
        self.root = root
        self.lenient = lenient
        self.tree = Tree(root)
        self.listing = Listing(root)
        self.digest = hashlib.sha256()
        self._places: dict[str, tuple[str, str]] = {}  # part and path of each class folder, by where it really is

    def parts(self) -> dict[str, str]:
        """Find the folder of each part, if there is one to train on; else ``root`` holds folders of classes."""
        tree = self.tree
        found: dict[str, list[str]] = {}
        folders, _, files = tree.look("")
        for file in files:
            if file.name.casefold() in _PART_OF and is_broken(file):
                raise DataError(f"{self.root / file.name}: is a link to nothing; mend or remove it")
        for name in folders:
            found.setdefault(_PART_OF.get(name.casefold(), ""), []).append(name)
        others, trains = found.pop("", []), found.get(TRAIN, [])
        if not any(tree.picture_below(os.path.join(name, inner)) for name in trains for inner in tree.look(name)[0]):
            if len(found) > 1 and any(map(tree.picture_below, trains)):
                raise DataError(f"{self.root / trains[0]}: holds pictures, but no folders of classes with pictures")
            return {}
        for names in found.values():
            if len(names) > 1:
                raise DataError(f"{self.root}: {' and '.join(names)} are two folders for the same; rename or move one")
        for name in others:
            if picture := tree.picture_below(name):
                raise DataError(
                    f"{self.root / name}: {os.path.relpath(picture, name)} would be left out, and what else is there: "
                    f"beside {trains[0]} only folders called {', '.join(_PART_OF)} are read; rename it or move it away"
                )
            tree.leave_empty(name)
        tree.leave_outside("")
        return {part: names[0] for part, names in found.items()}

    def read(self, folder: str, part: str) -> Pictures:
        """List the pictures of a part, by class; those to train on define the classes."""
        found = self._classes(folder, part)
        if part == TRAIN:
            if len(found) < (1 if self.lenient else 2):
                count = "1 folder" if len(found) == 1 else f"{len(found)} folders"
                raise DataError(
                    f"{self.root / folder}: holds {count} of pictures; it takes one for each class, two "
                    "at least, or train, val and test with such folders in each"
                )
            self.listing.classes = tuple(found)
        elif not found:
            raise DataError(
                f"{self.root / folder}: holds no pictures in folders named like classes; fill it or move it away"
            )
        strange = sorted(found.keys() - set(self.listing.classes))
        if self.lenient:
            self.listing.classes += tuple(strange)
        elif strange:
            raise DataError(
                f"{self.root / folder / strange[0]}: there are no pictures of this class to train on"
                + f" (and {len(strange) - 1} more such folders)" * (len(strange) > 1)
            )
        pictures = Pictures()
        for name, files in found.items():
            pictures.files += files
            pictures.labels += [self.listing.classes.index(name)] * len(files)
        return pictures

    def _classes(self, folder: str, part: str) -> dict[str, list[str]]:
        """List the pictures of every class folder that has some, by class name, both sorted."""
        classes: dict[str, list[str]] = {}
        self.tree.leave_outside(folder)
        for entry in self.tree.look(folder)[0]:
            name = _spelled(entry)
            path = os.path.join(folder, entry)
            if not is_text(name):
                raise DataError(f"{self.root / path}: the name is not UTF-8; rename the folder")
            if has_codes(name):
                raise DataError(
                    f"{one_line(str(self.root / path))}: the name holds control characters; rename the folder"
                )
            if name in classes:
                raise DataError(f"{self.root / path}: there are two folders of this name, in different spellings")
            known = self._places.setdefault(os.path.realpath(self.root / path), (part, path))
            if known[0] != part:
                raise DataError(f"{self.root / path}: is the same folder as {self.root / known[1]}; remove the link")
            classes[name] = self._pictures(path)
        return {name: files for name, files in sorted(classes.items()) if files}

    def _pictures(self, folder: str) -> list[str]:
        tree, files = self.tree, []
        folders, pictures, others = tree.look(folder)
        for name in folders:
            inner = os.path.join(folder, name)
            if picture := tree.picture_below(inner):
                raise DataError(
                    f"{self.root / inner}: {os.path.relpath(picture, inner)} would be left out, and what else is "
                    "there: pictures lie in CLASS/, or in train/CLASS/, val/CLASS/ and test/CLASS/, not deeper; move "
                    f"them up, or name another folder with {Argument('data')}"
                )
            if pictures:
                tree.leave_empty(inner)
        if not pictures:
            tree.leave_empty(folder)
            return []
        tree.leave(others)
        for entry in pictures:
            path = os.path.join(folder, entry.name)
            try:
                status = entry.stat()
                # Archives and rsync set mtime; what was put in a file's place has another ctime or inode.
                facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            except OSError:  # a link to nowhere: it cannot be read either, which is reported then
                facts = (-1, -1, -1, -1)
            self.digest.update(b"%s\0%d\0%d\0%d\0%d\n" % (os.fsencode(path), *facts))
            files.append(path)
        return files


def _spelled(name: str) -> str:
    """Normalize a name to UTF-8 in NFC, whatever the locale and the spelling of the file system."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "surrogateescape"))
