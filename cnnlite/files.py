"""Writing files so that a reader finds the old content or the new, never a part of it."""

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from cnnlite.errors import DataError, StorageError
from cnnlite.printable import has_codes


def unwritable(path: Path, error: OSError) -> StorageError:
    """Make the StorageError for a failed write to ``path``, which says why."""
    return StorageError(f"{path}: cannot write: {error.strerror or error}")


def unreadable(path: Path, error: OSError) -> StorageError:
    """Make the StorageError for a failed look at ``path``, which says why."""
    return StorageError(f"{path}: cannot read: {error.strerror or error}")


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path``, complete and on disk, if the block ends without an error.

    What was at ``path`` is kept as ``previous`` where one is given. After an error ``path`` is what it was and the
    temporary file is gone; a process killed half-way leaves temporary files for ``remove_temporary``. Raises
    StorageError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one piece; StorageError if that cannot be."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file in one piece; StorageError if that cannot be."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # names of files need not be text


def open_at_once(path: Path) -> BinaryIO:
    """Open a file for reading; one that others write to, a FIFO, would keep a plain `open` waiting for ever."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def read_small(path: Path, most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes; DataError if it is anything else, or closed to this user.

    Other OSErrors, such as that of a missing file, are passed on.
    """
    try:
        file = open_at_once(path)
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a regular file; remove it")
        if status.st_size > most:
            raise DataError(f"{path}: has {status.st_size:,} bytes, more than the {most:,} it may have; remove it")
        return file.read(most)


def remove_temporary(folder: Path, name: str = "") -> None:
    """Delete what killed processes left of unfinished writes in ``folder``, of all files or of one called ``name``."""
    for leftover in folder.glob(f".{name}*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def is_missing(path: Path) -> bool:
    """Tell whether nothing is at ``path``; StorageError if the system does not say, which is another thing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise unreadable(path, error) from error
    return False


def place(text: str) -> str:
    """Expand a ``~`` that a path begins with; ValueError if that, or a control character, makes it no place."""
    if has_codes(text):
        raise ValueError("holds a control character, which no name of a folder may")
    found = os.path.expanduser(text)
    if found.startswith("~"):
        home = re.split(r"[/\\]", text)[0]
        raise ValueError(f"the home folder {home} is not known; a name that begins so is written ./{text}")
    return found


def lock(file: IO[bytes] | int) -> bool:
    """Lock an open file, or on POSIX a folder, until it is closed; False if another process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file if isinstance(file, int) else file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # a file system without locks: better to work than to refuse
    return True


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder inside the block; False if another process holds it. Windows cannot open folders: always True."""
    if os.name != "posix":
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _keep(path: Path, previous: Path) -> None:
    """Make ``previous`` another name of the file at ``path``, which is there all the time."""
    spare = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    try:
        os.link(path, spare)
        os.replace(spare, previous)
    except OSError:  # a file system without hard links, or there is nothing at the path yet
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, previous)
    finally:
        with contextlib.suppress(OSError):
            spare.unlink()  # a replace does nothing where both names are of one file already


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; Windows cannot open folders and needs no such thing."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
