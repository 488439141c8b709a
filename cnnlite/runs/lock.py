"""Lock on a run directory, held by one process, and a check that the directory's path still leads to it."""

import contextlib
import os
from pathlib import Path

from cnnlite.errors import ConfigError, LostRunError
from cnnlite.utils.files import is_missing, lock, open_to_append, writing
from cnnlite.utils.hints import Argument


class Hold:
    """The lock on a ``folder``, once it is taken.

    Folders are moved, removed and made anew while a process works in them, but the lock stays with the file that was
    there when it was taken.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.folder = folder
        self._descriptor: int | None = None
        self._made = False

    def take(self) -> None:
        """Lock the folder.

        Raises:
            ConfigError: If another process holds it.
            OSError: If the lock's file cannot be opened.
            StorageError: If it is not a regular file.
        """
        self._made = is_missing(self.path)
        with open_to_append(self.path) as file:
            self._descriptor = os.dup(file.fileno())
        if not lock(self._descriptor):
            is_shared = os.fstat(self._descriptor).st_nlink > 1
            self.release()
            shared = ", or in the one of which it is a copy by hard links" if is_shared else ""
            raise ConfigError(
                f"{self.folder}: another process is training in this run directory{shared}; name another one"
            )
        self.confirm()

    @property
    def taken(self) -> bool:
        """True if this process has locked the folder."""
        return self._descriptor is not None

    def confirm(self) -> None:
        """Raise LostRunError if the folder's path no longer leads to the folder that is locked.

        Where files have no numbers (``st_ino`` is 0, on some file systems of Windows) nothing is noticed; but Windows
        lets nobody move or remove a folder in which a file is open.

        Raises:
            LostRunError: If the folder was moved, removed or made anew.
            StorageError: If the system does not say.
        """
        confirm_same(self.path, None if self._descriptor is None else os.fstat(self._descriptor), self.folder)

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing releases the lock, and so does the end of the process
            self._descriptor = None

    def remove(self) -> None:
        """Release the lock, and remove its file if this process made it; OSError if it cannot be removed."""
        if os.name == "nt":
            self.release()  # Windows cannot remove an open file
        if self._made:
            self.path.unlink()
        self.release()


def confirm_same(path: Path, then: os.stat_result | None, folder: Path | None = None) -> None:
    """Raise LostRunError, which names ``folder``, if another file or folder is at ``path`` now, or none."""
    same = False
    with writing(folder or path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        same = then is not None and os.path.samestat(os.lstat(path), then)
    if not same:
        raise LostRunError(
            f"{folder or path}: was moved, removed or made anew during this run, so nothing more is written there\n"
            f"if it was moved, go on with {Argument('resume')} and its new path"
        )
