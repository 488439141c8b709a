"""Checkpoints: arrays and metadata in one .npz file, written atomically and verified before use.

The file is an uncompressed zip of .npy members, which ``np.load(path, allow_pickle=False)`` opens, with a member
``meta``: UTF-8 JSON as uint8. Its zip comment ends in the SHA-256 of everything before those 64 digits, because the
checksums of the zip format miss some changes. `training.recorder` decides when best.npz and last.npz are written.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from cnnlite.errors import CheckpointError, DamagedError, DivergedError
from cnnlite.utils.files import open_at_once, replacing
from cnnlite.utils.npy import read_header
from cnnlite.utils.printable import has_codes
from cnnlite.utils.types import Array, DType, Shape

FORMAT = "cnnlite checkpoint"
VERSION = 1
_SEAL = b"sha256:"
_DIGITS = 64
_CHUNK = 1 << 20


@dataclass
class Checkpoint:
    """The complete state of a run at one step."""

    arrays: dict[str, Array]
    """``param/...``, ``buffer/...``, ``optimizer/<slot>/...``, ``average/param/...``, ``normalize/mean``, ``seen/..."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Metadata that JSON can hold: step, resolved config, class names and the like."""

    def part(self, prefix: str) -> dict[str, Array]:
        """Return the arrays below ``prefix/``, by their names without it."""
        return {name[len(prefix) + 1 :]: array for name, array in self.arrays.items() if name.startswith(prefix + "/")}

    def fact(self, name: str, kind: type) -> Any:
        """Return an entry of the metadata that every checkpoint of a run has.

        Raises:
            CheckpointError: If it is missing or of another type.
        """
        value = self.meta.get(name)
        if not isinstance(value, kind):
            raise CheckpointError(
                f"the checkpoint is not one of a run: {name} is {value!r:.40}; start a new run instead"
            )
        return value


def save_checkpoint(path: Path, checkpoint: Checkpoint, previous: Path | None = None) -> None:
    """Write the file atomically; keep what was at ``path`` as ``previous``, if given.

    Raises:
        DivergedError: If an array holds NaN or infinity; nothing is written.
        StorageError: If the file cannot be written; what was at ``path`` is intact.
    """
    bad = _first_not_finite(checkpoint.arrays)
    if bad:
        raise DivergedError(f"{bad} holds NaN or infinity, so no checkpoint is written")
    meta = {"format": FORMAT, "version": VERSION, **checkpoint.meta}
    text = json.dumps(meta, allow_nan=False, ensure_ascii=False).encode(errors="backslashreplace")
    members = {"meta": np.frombuffer(text, dtype=np.uint8), **checkpoint.arrays}
    with replacing(path, previous) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in members.items():
                large = array.nbytes > zipfile.ZIP64_LIMIT // 2
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=large) as member:
                    npy.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            archive.comment = _SEAL + b"0" * _DIGITS
        size = file.seek(0, os.SEEK_END)
        digest = _sha256(file, size - _DIGITS)
        file.seek(size - _DIGITS)
        file.write(digest)


def load_checkpoint(path: Path, check: Callable[["CheckpointFile"], object] = lambda file: None) -> Checkpoint:
    """Read and verify a checkpoint, without unpickling anything.

    ``check`` may refuse the contents of the file before its arrays are read.

    Raises:
        CheckpointError: If the file is damaged or cannot be read.
    """
    with open_checkpoint(path) as file:
        check(file)
        return file.read()


@contextlib.contextmanager
def open_checkpoint(path: Path) -> Iterator["CheckpointFile"]:
    """Open a checkpoint and verify its digest and headers, without reading its arrays.

    Raises:
        DamagedError: If its bytes are not those of a checkpoint.
        CheckpointError: If it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with _faults_named(path):
            file = stack.enter_context(open_at_once(path))
            size = _verified_size(file)
            opened = CheckpointFile(path, stack.enter_context(zipfile.ZipFile(file)), size)
        yield opened


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn an error in reading a file into a CheckpointError that names the file."""
    try:
        yield
    except OSError as error:
        if os.path.isdir(path):  # which Windows calls "Permission denied"
            hint = "name a file, such as checkpoints/best.npz in a run"
            raise DamagedError(f"{path}: is a directory; {hint}") from None
        hint = "; let your user read it" if isinstance(error, PermissionError) else ""
        # That says nothing about the bytes: the next attempt may read them.
        raise CheckpointError(f"{path}: cannot read: {error.strerror or error}{hint}") from None
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from None
    except (zipfile.BadZipFile, ValueError, KeyError, RuntimeError, EOFError) as error:
        raise DamagedError(f"{path}: is not a cnnlite checkpoint ({error})") from None


class Announced(NamedTuple):
    """Shape and dtype of an array, as in its header; the file has exactly that many bytes for it."""

    shape: Shape
    dtype: DType


class CheckpointFile:
    """An open checkpoint with a valid digest, which may still come from an untrusted source."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, size: int):
        self._path = path
        self._archive = archive
        self._members: dict[str, tuple[zipfile.ZipInfo, Announced]] = {}
        members = archive.infolist()
        if sum(member.file_size for member in members) > size:
            raise DamagedError("is not a cnnlite checkpoint (its members overlap or are compressed)")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if has_codes(name):
                raise DamagedError(f"is not a cnnlite checkpoint (a member is called {name!r:.80})")
            if name in self._members or member.compress_type != zipfile.ZIP_STORED:
                raise DamagedError(f"is not a cnnlite checkpoint ({member.filename!r} is compressed or there twice)")
            with archive.open(member) as stream:
                self._members[name] = member, _read_header(stream, member)
        self.meta = _read_meta(self._read("meta") if "meta" in self._members else None)

    @property
    def announced(self) -> dict[str, Announced]:
        """Shapes and dtypes of all arrays, by name."""
        return {name: announced for name, (_, announced) in self._members.items() if name != "meta"}

    def read(self, *prefixes: str) -> Checkpoint:
        """Read all arrays, or those whose names begin with one of ``prefixes``, into new memory."""
        names = [name for name in self.announced if not prefixes or name.startswith(prefixes)]
        with _faults_named(self._path):
            arrays = {name: self._read(name) for name in names}
            bad = _first_not_finite(arrays)
            if bad:
                raise DamagedError(f"{bad} holds NaN or infinity")
        return Checkpoint(arrays, self.meta)

    def _read(self, name: str) -> Array:
        member, (shape, dtype) = self._members[name]
        with self._archive.open(member) as stream:
            _read_header(stream, member)
            array: Array = np.frombuffer(bytearray(stream.read()), dtype=dtype, count=math.prod(shape)).reshape(shape)
        return array


def _verified_size(file: BinaryIO) -> int:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError("is not a regular file")
    if status.st_size == 0:
        raise DamagedError("is empty")
    if file.read(4) != b"PK\x03\x04":
        raise DamagedError("is not a cnnlite checkpoint (not an .npz file)")
    if not _is_sealed(file, status.st_size):
        raise DamagedError(
            "is damaged, cut short, or no cnnlite checkpoint: its SHA-256 does not match; use another one"
        )
    return status.st_size


def _is_sealed(file: BinaryIO, size: int) -> bool:
    if size <= len(_SEAL) + _DIGITS:
        return False
    file.seek(size - len(_SEAL) - _DIGITS)
    if file.read(len(_SEAL)) != _SEAL:  # hashing a huge foreign file would take minutes
        return False
    return _sha256(file, size - _DIGITS) == file.read()


def _sha256(file: BinaryIO, count: int) -> bytes:
    """Return the digest of the first ``count`` bytes, and leave the file positioned after them."""
    file.seek(0)
    digest = hashlib.sha256()
    while count > 0:
        piece = file.read(min(count, _CHUNK))
        if not piece:
            break
        digest.update(piece)
        count -= len(piece)
    return digest.hexdigest().encode()


def _read_header(stream: IO[bytes], member: zipfile.ZipInfo) -> Announced:
    """Read the header of a .npy member, and check that exactly the announced number of bytes follows."""
    shape, order, dtype = read_header(stream)
    if dtype.kind not in "biuf" or order == "F":
        raise DamagedError(f"{member.filename} holds {dtype}, not plain numbers")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != member.file_size - stream.tell():
        raise DamagedError(f"{member.filename} has shape {shape} but not that many bytes")
    return Announced(shape, dtype)


def _read_meta(array: Array | None) -> dict[str, Any]:
    if array is None or array.dtype != np.uint8:
        raise DamagedError("is not a cnnlite checkpoint (no meta)")
    meta = json.loads(array.tobytes().decode())
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DamagedError("is not a cnnlite checkpoint (foreign meta)")
    version = meta.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"has format version {version!r:.40}, this cnnlite reads {VERSION}; install the cnnlite that wrote it"
        )
    return meta


def _first_not_finite(arrays: dict[str, Array]) -> str:
    """Return the name of the first array that holds NaN or infinity, or an empty string."""
    floats: Iterable[tuple[str, Array]] = ((name, a) for name, a in arrays.items() if a.dtype.kind == "f")
    return next((name for name, array in floats if not np.isfinite(array).all()), "")
