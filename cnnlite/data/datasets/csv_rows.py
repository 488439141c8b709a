"""Rows of CSV files of any usual separator, by what their columns hold."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cnnlite.data.datasets.listing import counted
from cnnlite.errors import DataError
from cnnlite.utils.files import opened
from cnnlite.utils.printable import has_codes, is_text, one_line

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "picture"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "part", "set", "subset"),
    "group": ("group", "group_id"),
}
"""Names of columns, in any case, by what they hold."""
REQUIRED = ("path", "label")
_NAMED = 5
"""Number of faulty lines that are told one by one."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass
class Rows:
    """Rows of a file, read one by one; afterwards ``unused`` has the names of columns that are not used.

    What is wrong with single lines is noted, and told together by `refuse_faults`.
    """

    path: Path
    columns: Mapping[str, str]
    """Names of columns that are called otherwise, by what they hold."""
    unused: tuple[str, ...] = ()
    faults: list[str] = field(default_factory=list)
    """The first faults of lines."""
    fault_count: int = 0

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the line of each row without fault, and its values by what they hold.

        Raises:
            DataError: if it cannot be read, or does not have the columns.
        """
        reader = None
        try:
            with opened(self.path) as file:
                text = io.TextIOWrapper(file, "utf-8-sig", newline="")
                separator = _separator(text.readline())
                text.seek(0)
                reader = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True)
                names = [name.strip() for name in next(reader, [])]
                places = self._places(names, separator)
                for row in filter(None, reader):
                    if values := self._values(row, names, places, reader.line_num):
                        yield reader.line_num, values
        except UnicodeDecodeError:
            raise DataError(f"{self.path}: is no CSV in UTF-8; save it as one") from None
        except csv.Error as error:
            if reader is None:
                raise DataError(f"{self.path}: {error}") from None
            self.note(reader.line_num, str(error))

    def note(self, line: int, message: str) -> None:
        """Note what is wrong with a line."""
        self.fault_count += 1
        if len(self.faults) < _NAMED:
            self.faults.append(one_line(f"{self.path}, line {line}: {message}"))

    def refuse_faults(self) -> None:
        """Raise DataError if something was noted, with the first few faults."""
        if self.fault_count:
            more = self.fault_count - len(self.faults)
            rest = [f"{self.path}: and {counted(more, 'more line')} that cannot be used"] if more else []
            raise DataError("\n".join(self.faults + rest))

    def _places(self, names: list[str], separator: str) -> dict[str, int]:
        """Find the column of each role."""
        found: dict[str, int] = {}
        shown = one_line(", ".join(names), 200)
        for role, usual in COLUMNS.items():
            wanted = [self.columns[role]] if role in self.columns else usual
            known = [name.casefold().replace(" ", "_").replace("-", "_") for name in names]
            places = [i for i, name in enumerate(names) if name in wanted or known[i] in wanted]
            if len(places) > 1:
                both = one_line(" and ".join(names[place] for place in places), 200)
                raise DataError(f"{self.path}: {both} may all be the {role}; say which: {{columns: {{{role}: ...}}}}")
            if places:
                found[role] = places[0]
            elif role in self.columns:
                raise DataError(f"{self.path}: has no column {one_line(wanted[0], 40)}, but {shown}")
            elif role in REQUIRED:
                raise DataError(
                    f"{self.path}: the first line, divided by {_SEPARATORS[separator]}, names no column {role}, but "
                    f"{shown}; call it so, or say which it is: {{columns: {{{role}: ...}}}}"
                )
        self.unused = tuple(name for place, name in enumerate(names) if place not in found.values())
        return found

    def _values(self, row: list[str], names: list[str], places: dict[str, int], line: int) -> dict[str, str]:
        """Return the values of a row; none if there is a fault."""
        if len(row) != len(names):
            self.note(line, f"has {len(row)} columns, the first line {len(names)}")
            return {}
        values = {role: row[place].strip() for role, place in places.items()}
        for role, value in values.items():
            if not value or has_codes(value) or not is_text(value):
                self.note(line, f"the {role} {'holds control characters' if value else 'is empty'}")
                return {}
        return values


def _separator(header: str) -> str:
    """Find what divides the first line into the most columns."""

    def count(separator: str) -> int:
        return len(next(csv.reader([header], delimiter=separator), []))

    return max(_SEPARATORS, key=count)
