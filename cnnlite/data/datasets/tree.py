"""Walk over folders of pictures in order, with an account of the files that are not used."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from cnnlite.data.datasets.listing import counted
from cnnlite.data.images import SUFFIXES
from cnnlite.errors import DataError
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import one_line

CACHE = ".cnnlite"
"""Name of the folder, among the pictures, of what was made of them."""
_SHOWN = 3

Files: TypeAlias = list[os.DirEntry[str]]


class Tree:
    """Files and folders below ``root``, without hidden ones; paths are relative to it.

    ``closed`` takes the folders that cannot be opened, with the reason; else they raise DataError.
    """

    def __init__(self, root: Path, closed: Callable[[Path, str], None] | None = None):
        self.root = root
        self._closed = closed
        self._others: Counter[str] = Counter()  # by what their names end in
        self._outside: list[str] = []
        self._empty: list[str] = []
        self._broken: list[str] = []
        self._loops: dict[str, None] = {}
        self._hidden: dict[str, None] = {}

    def look(self, folder: str) -> tuple[list[str], Files, Files]:
        """List the folders, pictures and other files in a folder, sorted; DataError if it cannot be opened.

        A link to the folder itself, or to a parent of it, is left out.
        """
        path = self.root / folder
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name))  # whatever the locale
                shown = [entry for entry in found if entry.name[0] != "."]
                folders = {entry.name: None for entry in shown if _is_folder(entry)}
        except OSError as error:
            if self._closed is not None:
                self._closed(path, error.strerror or str(error))
                return [], [], []
            hint = f"{Argument('data')} names the folder that holds the pictures"
            raise DataError(f"{path}: {error.strerror}; {hint}") from None
        hidden = (entry.name for entry in found if entry.name[0] == "." and entry.name != CACHE)
        self._hidden.update(dict.fromkeys(os.path.join(folder, name) for name in hidden))
        here = os.path.join(os.path.realpath(path), "")
        loops = {name for name in folders if here.startswith(os.path.join(os.path.realpath(path / name), ""))}
        self._loops.update(dict.fromkeys(os.path.join(folder, name) for name in sorted(loops)))
        pictures: Files = []
        others: Files = []
        for entry in shown:
            if entry.name not in folders:
                (pictures if entry.name.lower().endswith(SUFFIXES) else others).append(entry)
        return [name for name in folders if name not in loops], pictures, others

    def picture_below(self, folder: str) -> str | None:
        """Path of a picture in a folder, or in one of those below it; None if there is none."""
        return next((os.path.join(here, file.name) for here, files, _ in self.below(folder) for file in files), None)

    def below(self, folder: str) -> Iterator[tuple[str, Files, Files]]:
        """Iterate over all folders from ``folder`` down, with their files; none twice, whatever links there are."""
        waiting, seen = [folder], set()
        while waiting:
            here = waiting.pop()
            if (real := os.path.realpath(self.root / here)) not in seen:
                seen.add(real)
                folders, pictures, others = self.look(here)
                yield here, pictures, others
                waiting += [os.path.join(here, name) for name in reversed(folders)]

    def leave(self, others: Files) -> None:
        """Note files that are not used, and broken links."""
        for entry in others:
            if is_broken(entry):
                self._broken.append(os.path.relpath(entry.path, self.root))
            else:
                self._others[os.path.splitext(entry.name)[1].lower() or "without an ending"] += 1

    def leave_outside(self, folder: str) -> None:
        """Note the files in a folder of folders."""
        _, pictures, others = self.look(folder)
        self._outside += [os.path.join(folder, entry.name) for entry in pictures]
        self.leave(others)

    def leave_empty(self, folder: str) -> None:
        """Note a folder without pictures, and the files in it."""
        self._empty.append(folder)
        for _, _, others in self.below(folder):
            self.leave(others)

    def told(self, *, hidden: bool = False) -> Iterator[str]:
        """Describe what was noted, a line for each kind; ``hidden`` names too, if asked for."""
        if self._others:
            kinds = (f"{count:,} {kind}" for kind, count in self._others.most_common())
            yield f"{counted(self._others.total(), 'file')} not named like pictures: {listed(kinds)}"
        for what, rest, places in (
            ("picture", "in no folder of a class", self._outside),
            ("folder", "without pictures", self._empty),
            ("link", "to nothing", self._broken),
            ("link", "to a folder around it", self._loops),
            ("name", "with a dot in front", self._hidden if hidden else ()),
        ):
            if places:
                yield f"{counted(len(places), what)} {rest}: {listed(places)}"


def is_broken(entry: os.DirEntry[str]) -> bool:
    """True if an entry is a link that leads nowhere."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say
        if entry.is_symlink():
            return False
        raise


def listed(words: Iterable[str]) -> str:
    """Join the first few words."""
    shown = [one_line(word, 100) for word in words]
    return ", ".join(shown[:_SHOWN]) + ", ..." * (len(shown) > _SHOWN)
