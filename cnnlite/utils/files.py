"""Atomic writes, locks and safe reads of files: a reader finds the old content or the new, never a part of it."""

import contextlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO

from cnnlite.errors import ConfigError, DataError, StorageError
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import has_codes

_TEMPORARY = re.compile(r"\.cnnlite-[0-9a-f]{16}\.tmp")


def unwritable(path: Path, error: OSError) -> StorageError:
    """Make the StorageError for a failed write to ``path``, with the reason."""
    return StorageError(f"{path}: cannot write: {error.strerror or error}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into the StorageError for a failed write to ``path``."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError for a failed read of ``path``."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path``, complete and on disk, if the block ends without an error.

    The old file is kept as ``previous`` where one is given; a link at ``path`` is replaced, and its target stays. After
    an error ``path`` is what it was and the temporary file is gone; a killed process leaves temporary files for
    `remove_temporary`.

    Raises:
        StorageError: if the file cannot be written, also for a folder, FIFO or device at ``path``.
    """
    for place in filter(None, (path, previous)):
        refuse_special(place)
    with _spare(path) as temporary:
        with _filling(temporary) as file:
            yield file
        if previous is not None:
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; StorageError if that fails."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically; StorageError if that fails."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # names of files need not be text


def refuse_existing(paths: Iterable[Path], *, force: bool = False, source: Path | None = None) -> None:
    """Raise ConfigError if any of ``paths`` exists; with ``force``, only for what is not a file, or is ``source``."""
    found = [path for path in paths if os.path.lexists(path)]
    if source is not None and (same := [path for path in found if path.exists() and path.samefile(source)]):
        raise ConfigError(f"{same[0]}: is the checkpoint itself; name another file")
    if special := [path for path in found if is_special(path)]:
        raise ConfigError(f"{special[0]}: is not a regular file; name another place")
    if found and not force:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        exists, it = ("exist", "them") if len(found) > 1 else ("exists", "it")
        hint = f"name another place, or replace {it} with {Argument('force', True)}"
        raise ConfigError(f"{', '.join(map(str, found[:3]))}{more}: {exists} already; {hint}")


def write_files(contents: Mapping[Path, bytes], *, force: bool = False) -> None:
    """Write all files or none; only ``force`` replaces existing ones.

    Raises:
        ConfigError: as from `refuse_existing`.
        StorageError: if one cannot be written; the old files are as they were.
    """
    refuse_existing(contents, force=force)
    with contextlib.ExitStack() as stack:
        ready = []
        for path, content in contents.items():
            ready.append((stack.enter_context(_spare(path)), path))
            with _filling(ready[-1][0]) as file:
                file.write(content)
        refuse_existing(contents, force=force)  # all that fsync takes time
        with contextlib.ExitStack() as undo:
            for temporary, path in ready:
                old = stack.enter_context(_spare(path))
                there = os.path.lexists(path)
                if there:
                    with contextlib.suppress(OSError, NotImplementedError):  # no hard links: there is no way back
                        os.link(path, old, follow_symlinks=False)
                os.replace(temporary, path)
                undo.callback(_put_back, old, path, there)
            undo.pop_all()
        for folder in {path.parent for path in contents}:
            _sync_folder(folder)


def is_special(path: Path) -> bool:
    """True if a folder, FIFO or device is at ``path``, or at the end of a link there.

    True also for the system's own names, such as /dev/stdout, which may lead to a file.
    """
    folder = os.path.realpath(path.parent)
    ours = folder != "/dev" and not folder.startswith("/proc/")
    return os.path.lexists(path) and not (ours and (os.path.isfile(path) or not os.path.exists(path)))


def refuse_special(path: Path) -> None:
    """Raise StorageError if `is_special`."""
    if is_special(path):
        raise StorageError(f"{path}: is not a regular file; remove it")


def check_writable(folder: Path) -> None:
    """Write and remove a temporary file in ``folder``; OSError if that fails."""
    temporary = temporary_name(folder)
    try:
        with open(temporary, "xb") as file:
            file.write(b"x")
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def open_to_append(path: Path, *, unshare: bool = False) -> io.BufferedWriter:
    """Open a file for appending, created if missing; StorageError for a link, FIFO or device.

    With ``unshare``, a file with several hard links, as in a copy made of them, becomes a file of its own first.
    Other OSErrors are passed on.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path}: is not a regular file; remove it")
    file = open(path, "ab", opener=_opener)  # noqa: SIM115 - the caller's
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and not (unshare and status.st_nlink > 1):
        return file
    file.close()
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(f"{path}: is not a regular file; remove it")
    with replacing(path) as copy, open_at_once(path) as shared:
        shutil.copyfileobj(shared, copy)
    return open_to_append(path)


def open_at_once(path: Path) -> BinaryIO:
    """Open a file for reading, without blocking: a FIFO would keep a plain `open` waiting for ever."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading inside the block; DataError for any other kind, and for OSErrors in the block."""
    try:
        with open_at_once(path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"{path}: is not a regular file")
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_small(path: Path, most: int, hint: str = "remove it") -> bytes:
    """Read a regular file of at most ``most`` bytes; DataError, with a ``hint``, if it is anything else.

    The OSErrors for a missing file are passed on, all others are a DataError too.
    """
    try:
        with open_at_once(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path}: is not a regular file; {hint}")
            if status.st_size > most:
                raise DataError(f"{path}: has {status.st_size:,} bytes, more than the {most:,} it may have; {hint}")
            return file.read(most)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def temporary_name(folder: Path) -> Path:
    """Make up a name at which nobody can have put a link; short, as the file's own may be as long as names can be."""
    return folder / f".cnnlite-{secrets.token_hex(8)}.tmp"


def is_temporary(name: str) -> bool:
    """True if a name was made up by `temporary_name`."""
    return bool(_TEMPORARY.fullmatch(name))


def is_missing(path: Path) -> bool:
    """True if nothing is at ``path``; StorageError if the system does not say."""
    with reading(path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
    return False


def place(text: str) -> str:
    """Expand a leading ``~`` of a path; ValueError for an unknown home folder or a control character."""
    if has_codes(text):
        raise ValueError("holds a control character, which no name of a folder may")
    found = os.path.expanduser(text)
    if found.startswith("~"):
        home = re.split(r"[/\\]", text)[0]
        raise ValueError(f"the home folder {home} is not known; a name that begins so is written ./{text}")
    return found


def remove_temporary(folder: Path) -> None:
    """Delete temporary files that killed processes left in ``folder``, and nothing else.

    These are regular files with names of ours that nobody is writing: a writer holds the lock of its file, or on
    Windows keeps it from being deleted. Where files cannot be locked, all stay.
    """
    with contextlib.suppress(OSError):
        for path in filter(lambda path: is_temporary(path.name), folder.iterdir()):
            with contextlib.suppress(OSError):
                if _is_abandoned(path):
                    path.unlink()


def _is_abandoned(path: Path) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    if os.name != "posix":
        return True
    with open(path, "r+b", opener=_opener) as file:
        return lock(file, otherwise=False)


def lock(file: IO[bytes] | int, *, otherwise: bool = True) -> bool:
    """Lock an open file, or on POSIX a folder, until it is closed; False if another process holds it.

    ``otherwise`` is returned where the file system has no locks: usually it is better to work than to refuse.
    """
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
        return otherwise
    return True


@contextlib.contextmanager
def locked_folder(folder: Path, *, otherwise: bool = True) -> Iterator[bool]:
    """Lock a folder inside the block; yields False if another process holds it.

    ``otherwise`` is yielded where folders cannot be locked; Windows cannot even open them.
    """
    if os.name != "posix":
        yield otherwise
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield lock(descriptor, otherwise=otherwise)
    finally:
        os.close(descriptor)


def _opener(path: str, flags: int) -> int:
    """Open a file without following a link, and without waiting at a FIFO."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


@contextlib.contextmanager
def _spare(path: Path) -> Iterator[Path]:
    """Make up a temporary name beside ``path``; a file there is removed at the end, and OSErrors name ``path``."""
    spare = temporary_name(path.parent)
    try:
        with writing(path):
            yield spare
    finally:
        with contextlib.suppress(OSError):
            spare.unlink()


@contextlib.contextmanager
def _filling(temporary: Path) -> Iterator[BinaryIO]:
    """Open a new file, and sync its content to disk at the end of the block."""
    with open(temporary, "x+b") as file:
        if os.name == "posix":  # a lock of Windows would keep others from reading
            lock(file)
        yield file
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path, previous: Path) -> None:
    """Link ``previous`` to the file at ``path``, which stays in place throughout."""
    spare = temporary_name(previous.parent)
    try:
        os.link(path, spare)
        os.replace(spare, previous)
    except OSError:  # a file system without hard links, or there is nothing at the path yet
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, previous)
    finally:
        with contextlib.suppress(OSError):
            spare.unlink()  # a replace does nothing where both names are of one file already


def _put_back(old: Path, path: Path, there: bool) -> None:
    """Undo the writing of ``path``: restore ``old`` if a file was ``there`` before."""
    with contextlib.suppress(OSError):
        if there:
            os.replace(old, path)
        else:
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; Windows cannot open folders and needs no such thing."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
