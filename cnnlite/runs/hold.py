"""A folder that one process holds by a lock in it, and whether its path still leads there."""

import os
import stat
from pathlib import Path

from cnnlite.errors import LostRunError, StorageError
from cnnlite.utils.files import lock, unwritable
from cnnlite.utils.hints import Argument


class Hold:
    """The lock on a ``folder``, once it is taken.

    A path is not a file: folders are moved, removed and made anew while a process works in them, and the lock is on the
    file that was there then.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.folder = folder
        self._descriptor: int | None = None
        self._made = False

    def take(self) -> bool:
        """Lock the folder; False if another process holds it. OSError or StorageError if that cannot be."""
        # Of a FIFO, nobody needs to hold the other end; what a link leads to may be the lock of another folder.
        flags = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._descriptor = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            self._made = True
        except FileExistsError:
            self._descriptor = os.open(self.path, flags)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.release()
            raise StorageError(f"{self.path}: is not a regular file; remove it")
        if not lock(self._descriptor):
            self.release()
            return False
        self.confirm()
        return True

    @property
    def taken(self) -> bool:
        """Whether this process has locked the folder."""
        return self._descriptor is not None

    def confirm(self) -> None:
        """Raise LostRunError if the folder's path leads by now to another one than is locked, or nowhere.

        StorageError if the system does not say. Where files have no numbers (``st_ino`` is 0, on some file systems of
        Windows) nothing is noticed; but Windows lets nobody move or remove a folder in which a file is open.
        """
        try:
            there = os.lstat(self.path)
            same = self._descriptor is not None and os.path.samestat(there, os.fstat(self._descriptor))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except OSError as error:
            raise unwritable(self.folder, error) from error
        if not same:
            raise LostRunError(
                f"{self.folder}: was moved, removed or made anew during this run, so nothing more is written there\n"
                f"if it was moved, go on with {Argument('resume')} and its new path"
            )

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing releases the lock, and so does the end of the process
            self._descriptor = None

    def remove(self) -> None:
        """Release the folder, without the lock's file if this process made it; OSError if it stays."""
        if os.name == "nt":
            self.release()  # Windows removes no open file
        if self._made:
            self.path.unlink()
        self.release()
