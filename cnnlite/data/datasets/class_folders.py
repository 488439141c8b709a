"""Listing of the pictures in folders of classes: by names only, no file is opened."""

import hashlib
import itertools
import os
from pathlib import Path

from cnnlite.data.datasets.listing import PART_OF, TEST, TRAIN, VALIDATION, Listing, spelled, stamp
from cnnlite.data.datasets.pictures import Pictures
from cnnlite.data.datasets.tree import Tree, is_broken
from cnnlite.data.splits import divide
from cnnlite.errors import DataError
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import has_codes, is_text, one_line
from cnnlite.utils.types import Shape


def list_pictures(
    root: Path, shape: Shape, test_fraction: float, seed: int = 0, *, lenient: bool = False
) -> Listing[Pictures]:
    """List the pictures below ``root``: ``[train|val|test/]class/.../picture``; DataError if it holds something else.

    They are divided by the folders of parts, or else by the path of each: see `divide`. ``lenient`` takes what
    could not be trained on: a single class, one picture of each, classes that are in one part only.
    """
    reader = _Reader(root, lenient)
    folders = reader.parts() or {TRAIN: ""}
    parts = {part: reader.read(folders[part], part) for part in (TRAIN, TEST, VALIDATION) if part in folders}
    divided = divide(parts, test_fraction, seed, root, lenient=lenient)
    left_out, digest = list(reader.tree.told()), reader.digest.hexdigest()
    return Listing(root, shape, reader.classes, *divided, digest, left_out)


class _Reader:
    """Finds the arrangement of the folders, and lists them in the order of their names."""

    def __init__(self, root: Path, lenient: bool):
        self.root = root
        self.lenient = lenient
        self.tree = Tree(root)
        self.classes: tuple[str, ...] = ()
        self.digest = hashlib.sha256()
        self._places: dict[str, tuple[str, str, bool]] = {}
        """Part and path of each folder of pictures, by where it really is; True if it is not that of a class."""

    def parts(self) -> dict[str, str]:
        """Find the folder of each part, if there is one to train on; else ``root`` holds folders of classes."""
        tree = self.tree
        found: dict[str, list[str]] = {}
        folders, _, files = tree.look("")
        for file in files:
            if file.name.casefold() in PART_OF and is_broken(file):
                raise DataError(f"{self.root / file.name}: is a link to nothing; mend or remove it")
        for name in folders:
            found.setdefault(PART_OF.get(name.casefold(), ""), []).append(name)
        others, trains = found.pop("", []), found.get(TRAIN, [])
        if not any(tree.picture_below(os.path.join(name, inner)) for name in trains for inner in tree.look(name)[0]):
            if len(found) > 1 and any(map(tree.picture_below, trains)):
                raise DataError(f"{self.root / trains[0]}: holds pictures, but no folders of classes with pictures")
            for name in itertools.chain(*found.values()):
                if not tree.look(name)[1] and (picture := tree.picture_below(name)):
                    raise DataError(
                        f"{self.root / name}: holds {os.path.relpath(picture, name)}, but there is no folder train; "
                        f"add one, or name a folder that holds one for each class with {Argument('data')}"
                    )
            return {}
        for names in found.values():
            if len(names) > 1:
                raise DataError(f"{self.root}: {' and '.join(names)} are two folders for the same; rename or move one")
        for name in others:
            if picture := tree.picture_below(name):
                raise DataError(
                    f"{self.root / name}: {os.path.relpath(picture, name)} would be left out, and what else is there: "
                    f"beside {trains[0]} only folders called {', '.join(PART_OF)} are read; rename it or move it away"
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
                below = [
                    self.root / folder / name for name in found if not self.tree.look(os.path.join(folder, name))[1]
                ]
                raise DataError(
                    f"{self.root / folder}: holds {count} of pictures; it takes one for each class, two "
                    "at least, or train, val and test with such folders in each"
                    + "".join(f"; are those in {path} meant? {Argument('data', str(path))}" for path in below)
                )
            self.classes = tuple(found)
        elif not found:
            raise DataError(
                f"{self.root / folder}: holds no pictures in folders named like classes; fill it or move it away"
            )
        strange = sorted(found.keys() - set(self.classes))
        if self.lenient:
            self.classes += tuple(strange)
        elif strange:
            raise DataError(
                f"{self.root / folder / strange[0]}: there are no pictures of this class to train on"
                + f" (and {len(strange) - 1} more such folders)" * (len(strange) > 1)
            )
        pictures = Pictures()
        for name, files in found.items():
            pictures.files += files
            pictures.labels += [self.classes.index(name)] * len(files)
        return pictures

    def _classes(self, folder: str, part: str) -> dict[str, list[str]]:
        """List the pictures of every class folder that has some, by class name, both sorted."""
        classes: dict[str, list[str]] = {}
        self.tree.leave_outside(folder)
        for entry in self.tree.look(folder)[0]:
            name = spelled(entry)
            path = os.path.join(folder, entry)
            if not is_text(name):
                raise DataError(f"{self.root / path}: the name is not UTF-8; rename the folder")
            if has_codes(name):
                raise DataError(
                    f"{one_line(str(self.root / path))}: the name holds control characters; rename the folder"
                )
            if name in classes:
                raise DataError(f"{self.root / path}: there are two folders of this name, in different spellings")
            classes[name] = self._pictures(path, part)
        return {name: files for name, files in sorted(classes.items()) if files}

    def _pictures(self, folder: str, part: str, *, inner: bool = False) -> list[str]:
        """List the pictures in a folder and below."""
        tree, files = self.tree, []
        folders, pictures, others = tree.look(folder)
        if not tree.picture_below(folder):
            tree.leave_empty(folder)
            return []
        where, other, deep = self._places.setdefault(os.path.realpath(self.root / folder), (part, folder, inner))
        if where != part or (other != folder and (inner or deep)):
            raise DataError(f"{self.root / folder}: is the same folder as {self.root / other}; remove the link")
        if len(found := {PART_OF[name.casefold()]: name for name in folders if name.casefold() in PART_OF}) > 1:
            raise DataError(
                f"{self.root / folder}: holds {' and '.join(found.values())}, which belong above the folders of "
                f"classes: train/CLASS/, val/CLASS/ and test/CLASS/; or name another folder with {Argument('data')}"
            )
        tree.leave(others)
        for entry in pictures:
            path = os.path.join(folder, entry.name)
            self.digest.update(b"%s\0%s\n" % (os.fsencode(path), stamp(entry.path)))
            files.append(path)
        for name in folders:
            files += self._pictures(os.path.join(folder, name), part, inner=True)
        return files
