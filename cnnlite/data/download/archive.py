"""Unpacks the few files we want from a tar archive, and nothing else whatever the archive says.

The headers are walked here, one after the other: tarfile would follow those that describe other headers (long names,
sparse maps, pax records) into memory, loops and patterns that take for ever. Such headers are passed over; the names we
want are short.
"""

import contextlib
import gzip
import hashlib
import itertools
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cnnlite.data.datasets.cifar import LARGEST_FILE
from cnnlite.data.download.fetch import BytesDone
from cnnlite.errors import DataError
from cnnlite.utils.files import is_temporary, locked_folder, remove_temporary, temporary_name, write_bytes, writing
from cnnlite.utils.printable import one_line

_MOST_MEMBERS = 200
"""Headers that describe other headers included."""
_LARGEST_TOTAL = 512 * 1024 * 1024
LARGEST_ARCHIVE = 400 * 1024 * 1024
_DESCRIPTIONS = (b"x", b"g", b"X", b"L", b"K", b"N", b"V")
"""Types of members that describe other members, in the dialects of tar."""


def md5(path: Path) -> str:
    """The MD5 of a file, as the lists of the datasets give it: against accidents, not against forgers."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def extract(archive: Path, target: Path, members: Mapping[str, str], progress: BytesDone) -> Path | None:
    """Unpack ``members`` (name without folder: MD5) of ``<target's name>/`` in a .tar.gz to the new folder ``target``.

    The folder appears when everything in it is complete and verified. Members of other names are left out; an archive
    with links, devices, or names that lead out of its folder is refused as a whole. A folder that was there before is
    renamed, and its new name returned.

    Raises DataError for whatever is wrong with the archive, StorageError if the files cannot be written.
    """
    temporary = temporary_name(target.parent)
    try:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target.parent, members)
            temporary.mkdir()
            with locked_folder(temporary):
                _unpack(archive, target.name, temporary, members, progress)
                aside = _set_aside(target) if os.path.lexists(target) else None
                temporary.rename(target)
        return aside
    finally:
        _remove(temporary, members)


def _remove_abandoned(folder: Path, members: Iterable[str]) -> None:
    """Remove what killed processes left of unpacking; where folders cannot be locked, nobody can tell, and all stay."""
    for path in folder.iterdir():
        if is_temporary(path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError), locked_folder(path, otherwise=False) as abandoned:
                if abandoned:
                    _remove(path, members)


def _remove(folder: Path, members: Iterable[str]) -> None:
    """Remove a folder with these files in it; whatever else is there is not ours, and keeps it."""
    remove_temporary(folder)
    with contextlib.suppress(OSError):
        for name in members:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _set_aside(target: Path) -> Path:
    places = (target.with_name(f"{target.name}.old-{number}") for number in itertools.count(1))
    return target.rename(next(place for place in places if not os.path.lexists(place)))


def _unpack(archive: Path, folder: str, into: Path, members: Mapping[str, str], progress: BytesDone) -> None:
    others: set[str] = set()
    try:
        with archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            if (whole := os.fstat(raw.fileno()).st_size) > LARGEST_ARCHIVE:
                raise DataError(f"{archive}: {whole:,} bytes are more than any CIFAR archive has")
            for member in _members(archive, file):
                path = PurePosixPath(member.name)
                if path.parent != PurePosixPath(folder) or path.name not in members or member.isdir():
                    others.update(path.parts[:1])
                    continue
                if (into / path.name).exists():
                    raise DataError(f"{archive}: holds {member.name} twice")
                content = _read(file, member.size)
                if hashlib.md5(content, usedforsecurity=False).hexdigest() != members[path.name]:
                    raise DataError(f"{archive}: {member.name} has the wrong checksum: damaged, or another file")
                write_bytes(into / path.name, content)
                progress(raw.tell(), whole)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        with archive.open("rb") as raw:
            page = "; it begins like a web page" if raw.read(64).lstrip().startswith(b"<") else ""
        raise DataError(f"{archive}: damaged, cut short, or no .tar.gz archive ({error}){page}") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be read: {error.strerror}") from None
    if missing := [name for name in members if not (into / name).exists()]:
        found = f"; it holds {', '.join(sorted(others))}" if others and len(missing) == len(members) else ""
        raise DataError(f"{archive}: {folder}/{missing[0]} is missing{one_line(found, 200)}")


def _members(archive: Path, file: gzip.GzipFile) -> Iterator[tarfile.TarInfo]:
    """The headers of files and folders; at each, ``file`` is where the content begins."""
    for _ in range(_MOST_MEMBERS):
        header = _read(file, tarfile.BLOCKSIZE)
        if not header.strip(b"\0"):
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "backslashreplace")
        if not 0 <= member.size <= LARGEST_FILE:
            raise DataError(f"{archive}: refused: larger than any CIFAR archive at {member.name!r}")
        # Folders may have a size, but nothing follows them.
        end = file.tell() + (0 if member.isdir() else member.size + -member.size % tarfile.BLOCKSIZE)
        if end > _LARGEST_TOTAL:
            raise DataError(f"{archive}: unpacks to more than {_LARGEST_TOTAL:,} bytes")
        if member.type not in _DESCRIPTIONS:
            path = PurePosixPath(member.name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{archive}: refused: the name {member.name!r} leads out of its folder")
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE):
                raise DataError(f"{archive}: refused: {member.name!r} is a link or a device")
            yield member
        file.seek(end)
    raise DataError(f"{archive}: refused: larger than any CIFAR archive, with more than {_MOST_MEMBERS:,} members")


def _read(file: gzip.GzipFile, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError("it ends too soon")
    return content
