"""Pictures that a CSV file lists, each with its class, and perhaps its part and its group."""

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cnnlite.data.datasets.base import sources
from cnnlite.data.datasets.csv_rows import COLUMNS, Rows
from cnnlite.data.datasets.listing import PART_OF, TRAIN, Listing, counted, spelled, stamp
from cnnlite.data.datasets.pictures import Pictures, PictureSource
from cnnlite.data.splits import divide
from cnnlite.errors import DataError, OptionError
from cnnlite.utils.printable import one_line

_ENDINGS = (".csv", ".tsv")


@sources.register("list")
@dataclass(eq=False)
class PictureList(PictureSource):
    """Pictures that a CSV file lists: ``data.root`` is the file, or a folder with a single one.

    Its first line names the columns: ``path`` (from the folder of the file on), ``label``, and perhaps ``split``
    (train, val or test) and ``group``, in any usual spelling. Columns are separated by commas, semicolons, tabs or
    bars; the text is UTF-8. Pictures of one group, such as those of one patient, are never in different parts. Where
    ``split`` is left out or has no test or validation pictures, the group of each picture says which, or its path if
    there are no groups, and ``seed``: as for `folder`. The pictures become images as those of `folder` do.

    Args:
        columns: names of columns that are called otherwise, such as ``{label: species, group: patient}``.
    """

    columns: dict[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for role in (self.columns or {}).keys() - COLUMNS.keys():
            raise OptionError(f"there is no column for {role!r}; known: {', '.join(COLUMNS)}", "columns")

    def listing(self, root: Path) -> Listing[Pictures]:
        table = _Table(_file_of(root), self.columns or {}, lenient=self.lenient)
        divided = divide(table.parts(), self.test_fraction, self.seed, table.path, lenient=self.lenient)
        return Listing(
            table.path.parent,
            self.frame.shape,
            tuple(table.classes),
            *divided,
            table.digest.hexdigest(),
            table.left_out(),
        )


def _file_of(root: Path) -> Path:
    """Find the file that a folder holds, if it is not one itself."""
    try:
        found = [file for file in sorted(os.listdir(root)) if file.lower().endswith(_ENDINGS) and file[0] != "."]
    except NotADirectoryError:
        return root
    except OSError as error:
        raise DataError(f"{root}: cannot be opened: {error.strerror or error}") from None
    if len(found) != 1:
        raise DataError(f"{root}: holds {len(found)} files that end in {' or '.join(_ENDINGS)}; name the one to read")
    return root / found[0]


class _Row(NamedTuple):
    line: int
    file: str
    label: str
    part: str
    group: str


class _Table:
    """Pictures of a file, its rows checked against each other."""

    def __init__(self, path: Path, columns: dict[str, str], *, lenient: bool):
        self.path = path
        self.digest = hashlib.sha256()
        self._rows = Rows(path, columns)
        self._found: list[_Row] = []
        files: dict[str, _Row] = {}
        groups: dict[str, _Row] = {}
        for line, values in self._rows:
            label, group = (sys.intern(spelled(values.get(role, ""))) for role in ("label", "group"))
            word = values.get("split", TRAIN)
            if word.casefold() not in PART_OF:
                self._rows.note(line, f"the split is {word}; known: {', '.join(PART_OF)}")
                continue
            row = _Row(line, os.path.normpath(values["path"]), label, PART_OF[word.casefold()], group)
            self._found.append(row)
            if (other := files.setdefault(row.file, row))[2:] != row[2:]:
                self._rows.note(line, f"{row.file} has another label, split or group than in line {other.line}")
            elif group and (other := groups.setdefault(group, row)).part != row.part:
                self._rows.note(line, f"{group} is in {row.part} here, and in {other.part} in line {other.line}")
            self.digest.update(repr((*row[1:], stamp(path.parent / row.file))).encode())
        self._rows.refuse_faults()
        self.classes = _sorted({row.label for row in self._found if lenient or row.part == TRAIN})
        if len(self.classes) < (1 if lenient else 2):
            raise DataError(f"{path}: lists pictures of {len(self.classes)} classes to train on; two are the least")

    def parts(self) -> dict[str, Pictures]:
        """Return the pictures of each part, in the order of the lines; all are to train on if the file has no parts."""
        labels = {name: label for label, name in enumerate(self.classes)}
        parts: dict[str, Pictures] = {}
        for row in self._found:
            if row.label not in labels:
                self._rows.note(row.line, f"there are no pictures of the class {row.label} to train on")
                continue
            pictures = parts.setdefault(row.part, Pictures(groups=[] if row.group else None))
            pictures.files.append(row.file)
            pictures.labels.append(labels[row.label])
            if pictures.groups is not None:
                pictures.groups.append(row.group)
        self._rows.refuse_faults()
        return parts

    def left_out(self) -> list[str]:
        """Return a message about columns that are not used."""
        unused = self._rows.unused
        return [one_line(f"{counted(len(unused), 'column')}: {', '.join(unused)}")] if unused else []


def _sorted(names: Iterable[str]) -> list[str]:
    """Sort names of classes, as numbers if they all are."""
    names = sorted(names)
    return sorted(names, key=int) if all(map(str.isdecimal, names)) else names
