"""Cache files of uint8 images and their labels, verified and mapped into memory, not read.

A file holds training images, test images (each row an image, height x width x channels bytes), labels (int64, little
endian), facts (UTF-8 JSON), and 48 bytes: the SHA-256 of the facts, their length (uint64), and eight that name the
format. The facts hold the SHA-256 of the content (`base.digest`).
"""

import hashlib
import json
import math
import os
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from cnnlite.data.datasets.base import Images, digest
from cnnlite.errors import DataError, StorageError
from cnnlite.utils.files import open_at_once, replacing
from cnnlite.utils.text import size_text
from cnnlite.utils.types import Array

_MAGIC = b"cnnlite1"
_FOOTER = struct.Struct("<32sQ8s")
_LARGEST_FACTS = 64 * 2**20


Parts: TypeAlias = tuple[Iterator[Images], Iterator[Images]]
"""Chunks of training images and of test images."""
Cached: TypeAlias = tuple[Images, Images, dict[str, Any]]
"""Training images, test images, facts."""


def write_cache(path: Path, parts: Parts, shape: tuple[int, ...], facts: dict[str, Any]) -> None:
    """Write the images of both parts, chunk by chunk, and the facts, which get ``train``, ``test`` and ``digest``.

    ``shape`` is that of an image, ``facts`` have the class names under ``classes``. The file appears once complete.

    Raises:
        StorageError: if it cannot be written.
        DataError: if a part has no images.
    """
    with replacing(path) as file:
        _fill(file, parts, shape, facts)
        if not (facts["train"] and facts["test"]):
            raise DataError("none of the pictures to train or to test with can be read")


def passing_cache(parts: Parts, shape: tuple[int, ...], facts: dict[str, Any]) -> Cached:
    """Write a cache to a file without a name, which is gone with the arrays, and map it.

    Errors are those of `write_cache`, but one of the parts may have no images.
    """
    try:
        with tempfile.TemporaryFile(prefix="cnnlite-") as file:
            _fill(file, parts, shape, facts)
            return *_mapped(file, facts), json.loads(json.dumps(facts))
    except OSError as error:
        folder, why = tempfile.gettempdir(), error.strerror or error
        raise StorageError(f"{folder}: cannot write: {why}; the variable TMPDIR names another folder") from error


def refuse_without_room(folder: Path, count: int, shape: tuple[int, ...], hint: str = "") -> None:
    """Raise StorageError if the disk of a folder cannot hold so many images."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # writing says what is wrong
        return
    if (size := count * math.prod(shape)) > free:
        images = f"{count:,} images of {shape[0]}x{shape[1]} pixels"
        sizes = f"they take {size_text(size)}, {size_text(free)} are free"
        raise StorageError(f"{folder}: cannot write {images}: {sizes}{hint}")


def _fill(file: BinaryIO, parts: Parts, shape: tuple[int, ...], facts: dict[str, Any]) -> None:
    labels: list[Array] = []
    counts = []
    for part in parts:
        before = len(labels)
        for images in part:
            file.write(images.images.data)
            labels.append(images.labels)
        counts.append(sum(map(len, labels[before:])))
    if not any(counts):
        raise DataError("none of the pictures can be read")
    file.write(np.concatenate(labels).astype("<i8").tobytes())
    file.flush()
    facts |= {"train": counts[0], "test": counts[1], "shape": list(shape)}
    facts["digest"] = digest(list(_mapped(file, facts)), tuple(facts["classes"]))
    text = json.dumps(facts).encode()  # escapes in names that are no text, too
    file.seek(0, 2)
    file.write(text + _FOOTER.pack(hashlib.sha256(text).digest(), len(text), _MAGIC))


def read_cache(path: Path) -> Cached:
    """Map the images of a cache file, verified from end to end, and read its facts.

    Raises:
        FileNotFoundError: if there is none.
        DataError: if it is not as it was written.
    """
    try:
        with open_at_once(path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            facts = _facts(file)
            train, test = _mapped(file, facts)
        classes = tuple(facts["classes"])
        if digest([train, test], classes) != facts["digest"]:
            raise ValueError("its SHA-256 does not match")
        if not all(0 <= part.labels.min() <= part.labels.max() < len(classes) for part in (train, test)):
            raise ValueError("has labels of no class")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise DataError(f"{path}: {error}") from None
    return train, test, facts


def _facts(file: BinaryIO) -> dict[str, Any]:
    size = file.seek(0, 2)
    file.seek(max(0, size - _FOOTER.size))
    sha256, length, magic = _FOOTER.unpack(file.read())
    if magic != _MAGIC or not 0 < length <= min(size, _LARGEST_FACTS):
        raise ValueError("is not a file of images, or is cut short")
    file.seek(size - _FOOTER.size - length)
    text = file.read(length)
    if hashlib.sha256(text).digest() != sha256:
        raise ValueError("the SHA-256 of its facts does not match")
    try:
        facts: dict[str, Any] = json.loads(text)
    except RecursionError:
        raise ValueError("its facts are nested too deep") from None
    if not all(type(number) is int and number > 0 for number in (*facts["shape"], facts["train"], facts["test"])):
        raise ValueError("its facts are none of ours")
    pixels, count = math.prod(facts["shape"]), facts["train"] + facts["test"]
    if count * (pixels + 8) + length + _FOOTER.size != size:
        raise ValueError("does not have the size that it should")
    return facts


def _mapped(file: BinaryIO, facts: dict[str, Any]) -> tuple[Images, Images]:
    """Map the images of both parts, as views of the file; the labels are copied."""
    shape, train, count = facts["shape"], facts["train"], facts["train"] + facts["test"]
    flat = np.memmap(file, np.uint8, "r", shape=(count * (math.prod(shape) + 8),))
    start = len(flat) - 8 * count
    # As plain arrays: every slice of np.memmap would be one too, which takes several times as long to make.
    images = np.asarray(flat[:start]).reshape(count, *shape)
    labels = np.frombuffer(flat[start:].tobytes(), "<i8").astype(np.int64)
    return Images(images[:train], labels[:train]), Images(images[train:], labels[train:])
