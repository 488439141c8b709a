"""Unpacks the few files we want from a tar archive, and nothing else whatever the archive says."""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cnnlite.data.fetch import Progress
from cnnlite.errors import DataError, StorageError

_CHUNK = 1024 * 1024
_MOST_MEMBERS = 100
_LARGEST_MEMBER = 200 * 1024 * 1024
_LARGEST_TOTAL = 512 * 1024 * 1024


class _Gzip(gzip.GzipFile):
    """Stops at the total that a dataset may have unpacked, headers included."""

    seen = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.seen += len(data)
        if self.seen > _LARGEST_TOTAL:
            raise DataError(f"{self.name}: unpacks to more than {_LARGEST_TOTAL:,} bytes")
        return data


def md5(path: Path) -> str:
    """The MD5 of a file, as the lists of the datasets give it: against accidents, not against forgers."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def extract(archive: Path, target: Path, members: Mapping[str, str], progress: Progress) -> Path | None:
    """Unpack ``members`` (name without folder: MD5) of ``<target's name>/`` in a .tar.gz to the new folder ``target``.

    The folder appears when everything in it is complete and verified. Members of other names are left out; an archive
    with links, devices, or names that lead out of its folder is refused as a whole. A folder that was there before is
    renamed, and its new name returned.

    Raises DataError for whatever is wrong with the archive, StorageError if the files cannot be written.
    """
    temporary = target.with_name(target.name + ".tmp")
    try:
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
            temporary.mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"{temporary}: cannot be made: {error.strerror}") from None
        _unpack(archive, target.name, temporary, members, progress)
        try:
            aside = _set_aside(target) if target.exists() else None
            temporary.rename(target)
        except OSError as error:
            raise StorageError(f"{target}: cannot be made: {error.strerror}") from None
        return aside
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _set_aside(target: Path) -> Path:
    number = 1
    while (aside := target.with_name(f"{target.name}.old-{number}")).exists():
        number += 1
    return target.rename(aside)


def _unpack(archive: Path, folder: str, into: Path, members: Mapping[str, str], progress: Progress) -> None:
    done: set[str] = set()
    others: set[str] = set()
    try:
        with archive.open("rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            with _Gzip(fileobj=raw, filename=str(archive)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                for count, member in enumerate(tar):
                    _check(archive, member, count)
                    parts = PurePosixPath(member.name).parts
                    name = parts[-1] if len(parts) == 2 and parts[0] == folder else ""
                    if name not in members or not member.isreg():
                        others.update(parts[:1])
                        continue
                    if name in done:
                        raise DataError(f"{archive}: holds {member.name} twice")
                    done.add(name)
                    if _copy(tar, member, into / name) != members[name]:
                        raise DataError(f"{archive}: {member.name} has the wrong checksum: damaged, or another file")
                    progress(raw.tell(), size)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{archive}: damaged, cut short, or no .tar.gz archive ({error}){_hint(archive)}") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be read: {error.strerror}") from None
    if missing := [name for name in members if name not in done]:
        found = f"; it holds {', '.join(sorted(others))}" if others and not done else ""
        raise DataError(f"{archive}: {folder}/{missing[0]} is missing{found}")


def _check(archive: Path, member: tarfile.TarInfo, count: int) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive}: refused: the name {member.name!r} leads out of its folder")
    if not member.isreg() and not member.isdir():
        raise DataError(f"{archive}: refused: {member.name!r} is a link or a device")
    if member.size > _LARGEST_MEMBER or count >= _MOST_MEMBERS:
        raise DataError(f"{archive}: refused: larger than any CIFAR archive at {member.name!r}")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    """Copy one member to ``path`` and return its MD5."""
    source = tar.extractfile(member)
    checksum = hashlib.md5(usedforsecurity=False)
    try:
        file = path.open("xb")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
    with file:
        while source is not None and (chunk := source.read(_CHUNK)):
            checksum.update(chunk)
            try:
                file.write(chunk)
            except OSError as error:
                raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
    return checksum.hexdigest()


def _hint(archive: Path) -> str:
    with archive.open("rb") as file:
        return "; it begins like a web page" if file.read(64).lstrip().startswith(b"<") else ""
