"""Small CIFAR datasets in the published formats: the pickles as Python 2 wrote them."""

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.data.download.cifar import Archive
from cnnlite.utils.types import Array

NAMES = tuple(f"class{n}" for n in range(10))
Member = tarfile.TarInfo


def pickled(value: Any) -> bytes:
    """``value`` as Python 2 pickled it with protocol 2: text as bytes, arrays through numpy.core."""
    return b"\x80\x02" + _body(value) + b"."


def _body(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_body(k) + _body(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_body, value)) + b"e"
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray)
    shape = b"(" + b"".join(map(_body, value.shape)) + b"t"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype: bytes = b"cnumpy\ndtype\nU\x02" + value.dtype.str[1:].encode() + b"K\x00K\x01\x87R"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _body(value.tobytes()) + b"tb"


def planes(count: int, seed: int) -> Array:
    """Random colour planes, uint8 (count, 3072)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def batch(count: int, seed: int) -> dict[bytes, Any]:
    """What a CIFAR-10 batch holds; the label of image n is (n + seed) % 10."""
    labels = [(n + seed) % 10 for n in range(count)]
    return {b"data": planes(count, seed), b"labels": labels, b"filenames": [b"a.png"] * count}


def python_files(count: int = 6) -> dict[str, bytes]:
    """The files of a small CIFAR-10, python version."""
    files = {f"data_batch_{n}": pickled(batch(count, n)) for n in range(1, 6)}
    files["test_batch"] = pickled(batch(count, 6))
    files["batches.meta"] = pickled({b"label_names": [name.encode() for name in NAMES]})
    return files


def binary_files(count: int = 6) -> dict[str, bytes]:
    """The same images in the binary version."""
    files = {}
    for number in range(1, 7):
        content = batch(count, number)
        labels = np.array(content[b"labels"], np.uint8)[:, None]
        name = f"data_batch_{number}.bin" if number < 6 else "test_batch.bin"
        files[name] = np.concatenate([labels, content[b"data"]], axis=1).tobytes()
    files["batches.meta.txt"] = "\n".join(NAMES).encode() + b"\n\n"
    return files


def cifar100_files(count: int = 200) -> dict[str, bytes]:
    """The files of a small CIFAR-100, python version."""
    files = {}
    for name, seed in (("train", 1), ("test", 2)):
        fine = [n % 100 for n in range(count)]
        content = {b"data": planes(count, seed), b"coarse_labels": [0] * count, b"fine_labels": fine}
        files[name] = pickled(content)
    files["meta"] = pickled({b"fine_label_names": [b"fine%d" % n for n in range(100)], b"coarse_label_names": [b"x"]})
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def described(files: Mapping[str, bytes], packed: bytes = b"") -> Archive:
    """What download.py would have to know of an archive with these files."""
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    return Archive("https://example.org/a.tar.gz", hashlib.md5(packed).hexdigest(), "cifar-10-batches-py", sums)


def pack(members: list[tuple[Member, bytes]]) -> bytes:
    """A .tar.gz of the members, in their order; the same bytes at any time."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[Member, bytes]:
    """One member of an archive, of any kind."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def members(files: Mapping[str, bytes]) -> list[tuple[Member, bytes]]:
    """The members of an archive as it is published."""
    folder = "cifar-10-batches-py"
    first = [member(folder, kind=tarfile.DIRTYPE), member(f"{folder}/readme.html", b"<html>")]
    return first + [member(f"{folder}/{name}", content) for name, content in files.items()]
