"""Unpacks the few files we want from a tar archive, and nothing else whatever the archive says.

The headers are walked here, one after the other: tarfile would follow those that describe other headers (long names,
sparse maps, pax records) into memory, loops and patterns that take for ever. Such headers are passed over; the names we
want are short.
"""

import contextlib
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cnnlite.data.datasets.cifar import LARGEST_FILE
from cnnlite.data.download.fetch import BytesDone
from cnnlite.errors import DataError, StorageError
from cnnlite.utils.files import is_temporary, locked_folder, temporary_name

_CHUNK = 1024 * 1024
_BLOCK = 512
_MOST_MEMBERS = 200
"""Headers that describe other headers included."""
_MOST_STREAMS = 10_000
"""Of gzip, one after the other; parallel compressors write many."""
_LARGEST_TOTAL = 512 * 1024 * 1024
LARGEST_ARCHIVE = 400 * 1024 * 1024
_DESCRIPTIONS = (b"x", b"g", b"X", b"L", b"K", b"N", b"V")
"""Types of members that describe other members, in the dialects of tar."""


class _Unpacked:
    """The content of a gzip file, from its start to its end; DataError beyond what a dataset may have."""

    def __init__(self, archive: Path, raw: BinaryIO):
        self.archive = archive
        self.left = _LARGEST_TOTAL
        self._pieces = _pieces(archive, raw)
        self._piece = memoryview(b"")

    def read(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes, in pieces; EOFError if there are fewer."""
        self.left -= count
        if self.left < 0:
            raise DataError(f"{self.archive}: unpacks to more than {_LARGEST_TOTAL:,} bytes")
        while count:
            if not self._piece:
                self._piece = memoryview(next(self._pieces, b""))
                if not self._piece:
                    raise EOFError("it ends too soon")
            piece, self._piece = self._piece[:count], self._piece[count:]
            count -= len(piece)
            yield piece


def _pieces(archive: Path, raw: BinaryIO) -> Iterator[bytes]:
    """What a gzip file holds, at most `_CHUNK` bytes at a time; zlib.error if it is damaged."""

    def more() -> bytes:
        try:
            return raw.read(_CHUNK)
        except OSError as error:
            raise DataError(f"{archive}: cannot be read: {error.strerror}") from None

    packed = b""
    for _ in range(_MOST_STREAMS):
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not stream.eof:
            packed = packed or more()
            if not packed:
                return
            if piece := stream.decompress(packed, _CHUNK):
                yield piece
            packed = stream.unconsumed_tail or stream.unused_data
        packed = packed or more()
        if not packed.startswith(b"\x1f\x8b"):
            return


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
        temporary.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(temporary.parent, members)
        temporary.mkdir()
    except OSError as error:
        raise StorageError(f"{temporary}: cannot be made: {error.strerror}") from None
    try:
        with locked_folder(temporary):
            _unpack(archive, target.name, temporary, members, progress)
            try:
                aside = _set_aside(target) if os.path.lexists(target) else None
                temporary.rename(target)
            except OSError as error:
                raise StorageError(f"{target}: cannot be made: {error.strerror}") from None
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
    with contextlib.suppress(OSError):
        for name in members:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _set_aside(target: Path) -> Path:
    number = 1
    while os.path.lexists(aside := target.with_name(f"{target.name}.old-{number}")):
        number += 1
    return target.rename(aside)


def _unpack(archive: Path, folder: str, into: Path, members: Mapping[str, str], progress: BytesDone) -> None:
    done: set[str] = set()
    others: set[str] = set()
    try:
        with archive.open("rb") as raw:
            whole = os.fstat(raw.fileno()).st_size
            if whole > LARGEST_ARCHIVE:
                raise DataError(f"{archive}: {whole:,} bytes are more than any CIFAR archive has")
            stream = _Unpacked(archive, raw)
            for member in _members(archive, stream):
                parts = PurePosixPath(member.name).parts
                size = member.size if member.isreg() else 0  # folders may have one, but nothing follows them
                name = parts[-1] if len(parts) == 2 and parts[0] == folder else ""
                if name not in members or not member.isreg():
                    others.update(part for part in parts[:1] if part.isprintable())
                    _skip(stream, size)
                else:
                    if name in done:
                        raise DataError(f"{archive}: holds {member.name} twice")
                    done.add(name)
                    if _copy(stream.read(size), into / name) != members[name]:
                        raise DataError(f"{archive}: {member.name} has the wrong checksum: damaged, or another file")
                    progress(raw.tell(), whole)
                _skip(stream, -size % _BLOCK)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged, cut short, or no .tar.gz archive ({error}){_hint(archive)}") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be read: {error.strerror}") from None
    if missing := [name for name in members if name not in done]:
        found = f"; it holds {', '.join(sorted(others))}"[:200] if others and not done else ""
        raise DataError(f"{archive}: {folder}/{missing[0]} is missing{found}")


def _members(archive: Path, stream: _Unpacked) -> Iterator[tarfile.TarInfo]:
    """The headers; whoever takes one reads what follows it before taking the next."""
    for _ in range(_MOST_MEMBERS):
        header = b"".join(stream.read(_BLOCK))
        if not header.strip(b"\0"):
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "backslashreplace")
        if not 0 <= member.size <= LARGEST_FILE:
            raise DataError(f"{archive}: refused: larger than any CIFAR archive at {member.name!r}")
        if member.type in _DESCRIPTIONS:
            _skip(stream, member.size + -member.size % _BLOCK)
        else:
            _check(archive, member)
            yield member
    raise DataError(f"{archive}: refused: larger than any CIFAR archive, with more than {_MOST_MEMBERS:,} members")


def _check(archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive}: refused: the name {member.name!r} leads out of its folder")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE):
        raise DataError(f"{archive}: refused: {member.name!r} is a link or a device")


def _skip(stream: _Unpacked, count: int) -> None:
    for _ in stream.read(count):
        pass


def _copy(pieces: Iterator[memoryview], path: Path) -> str:
    """Write the pieces to the new file ``path`` and return their MD5."""
    checksum = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("xb") as file:
            for piece in pieces:
                checksum.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
    return checksum.hexdigest()


def _hint(archive: Path) -> str:
    with archive.open("rb") as file:
        return "; it begins like a web page" if file.read(64).lstrip().startswith(b"<") else ""
