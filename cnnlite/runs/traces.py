"""Traces of a process in a directory, so that it can remove what it made, and nothing else."""

import contextlib
import os
from pathlib import Path

from cnnlite.utils.files import is_missing


class Traces:
    """Files and folders that this process made for a run that has not come to anything yet."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        """Outermost first."""
        self._files: dict[Path, os.stat_result] = {}

    def make_folder(self, folder: Path) -> None:
        """Make a folder; OSError if that cannot be, FileExistsError if it is there."""
        folder.mkdir()
        self._folders.append(folder)

    def remember(self, path: Path) -> None:
        """Remember a file as it is now. A file that is not remembered stays."""
        with contextlib.suppress(OSError):
            self._files[path] = os.lstat(path)

    def remove_files(self, first: Path) -> None:
        """Remove the file ``first``, or raise OSError; then remove the others that are as they were."""
        if not is_missing(first):
            self._remove(first)
        for path in self._files:
            with contextlib.suppress(OSError):
                self._remove(path)

    def _remove(self, path: Path) -> None:
        now, then = os.lstat(path), self._files.get(path)
        grown = path.name == "log.txt"
        if then is None or not os.path.samestat(now, then) or not (grown or now.st_mtime_ns == then.st_mtime_ns):
            raise FileExistsError(path)
        path.unlink()

    def remove_folders(self) -> None:
        """Remove the folders that are empty; others hold something of somebody else by now."""
        for folder in reversed(self._folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
