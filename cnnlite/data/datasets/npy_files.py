"""Arrays in .npz and .npy files, mapped into memory where they are stored plainly; nothing is unpickled."""

import contextlib
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np

from cnnlite.errors import DataError, StorageError
from cnnlite.runtime import machine
from cnnlite.utils.files import opened
from cnnlite.utils.npy import Header, read_header
from cnnlite.utils.printable import one_line
from cnnlite.utils.text import size_text
from cnnlite.utils.types import Array

_LENGTHS = 26
"""Place of the lengths of name and extra field in the header of a zip member (APPNOTE 4.3.7); both follow them."""
_CHUNK = 2**24


class Stored(NamedTuple):
    """An array, its file, and the name to call it by in messages."""

    file: Path
    place: str
    array: Array


def read_arrays(root: Path) -> dict[str, Stored]:
    """Map or read the arrays of an .npz file, of all .npy files in a folder, or of the only .npz file there, by name.

    Raises:
        DataError: if they cannot be read, are damaged, or hold anything but numbers or text.
        StorageError: if a compressed one does not fit in memory.
    """
    try:
        names = sorted(name for name in os.listdir(root) if name[0] != ".")
    except NotADirectoryError:
        return _members(root)
    except OSError as error:
        raise DataError(f"{root}: cannot be opened: {error.strerror or error}") from None
    packed = [name for name in names if name.lower().endswith(".npz")]
    if single := [name for name in names if name.lower().endswith(".npy")]:
        return {Path(name).stem: Stored(root / name, name, _of_file(root / name)) for name in single}
    if len(packed) != 1:
        raise DataError(f"{root}: holds no .npy files, and {len(packed)} .npz files; name the one to read")
    return _members(root / packed[0])


def _of_file(path: Path) -> Array:
    with _named(str(path)), opened(path) as file:
        header = _header(file, os.fstat(file.fileno()).st_size)
        return _mapped(file, file.tell(), header)


def _members(path: Path) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    with _named(str(path)), opened(path) as file:
        if file.read(2) != b"PK":
            hint = "; name the folder of the .npy files instead" if path.suffix == ".npy" else ""
            raise ValueError(f"is no .npz file{hint}")
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"holds {name!r:.80} twice")
                with _named(member.filename, ValueError):
                    found[name] = Stored(path, name, _of_member(file, archive, member))
    return found


def _of_member(file: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        header = _header(stream, member.file_size)
        if member.compress_type != zipfile.ZIP_STORED:
            return _unpacked(stream, header)
        inside = stream.tell()
    file.seek(member.header_offset + _LENGTHS)
    start = member.header_offset + _LENGTHS + 4 + sum(struct.unpack("<2H", file.read(4)))
    file.seek(start)
    checksum = 0
    for left in range(member.file_size, 0, -_CHUNK):
        checksum = zlib.crc32(file.read(min(left, _CHUNK)), checksum)
    if checksum != member.CRC:
        raise ValueError("its checksum does not match")
    return _mapped(file, start + inside, header)


def _header(stream: IO[bytes], size: int) -> Header:
    """Read the header of an array of numbers or text that is not empty."""
    shape, _, dtype = header = read_header(stream)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are never unpickled; save it as one array of numbers or text")
    if dtype.kind not in "biufSU":
        raise ValueError(f"holds {dtype}, neither numbers nor text")
    if (needed := math.prod(shape) * dtype.itemsize) == 0:
        raise ValueError(f"is empty: it has shape {shape}")
    if min(shape, default=0) < 0 or needed != (size := size - stream.tell()):
        raise ValueError(f"is cut short or damaged: it has shape {shape}, but {size:,} bytes")
    return header


def _mapped(file: BinaryIO, start: int, header: Header) -> Array:
    # As a plain array: every slice of np.memmap would be one too, which takes several times as long to make.
    return np.asarray(np.memmap(file, header.dtype, "r", start, header.shape, header.order))


def _unpacked(stream: IO[bytes], header: Header) -> Array:
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > machine.memory() // 2:
        raise StorageError(
            f"is compressed, and would take {size_text(size)} of memory; as numpy.savez saves it, it takes none"
        )
    content = bytearray()
    while piece := stream.read(_CHUNK):  # no more than the archive says, and then its checksum
        content += piece
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=header.order)


@contextlib.contextmanager
def _named(place: str, kind: type[Exception] = DataError) -> Iterator[None]:
    """Name the place of errors inside the block, which become one of this kind."""
    place = one_line(place)
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{place}: {error}") from None
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError) as error:
        raise kind(f"{place}: {one_line(str(error))}") from None
