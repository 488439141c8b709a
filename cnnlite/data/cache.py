"""A file of uint8 images and their labels that is mapped into memory, not read, and verified before it is used.

It holds the training images, the test images (each row an image, height x width x 3 bytes), the labels (int64, little
endian), facts (UTF-8 JSON), and 48 bytes: the SHA-256 of the facts, their length (uint64), and eight that name the
format. The facts hold the SHA-256 that names the content (`dataset.digest`).
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cnnlite.data.dataset import Images, digest
from cnnlite.errors import DataError
from cnnlite.files import replacing
from cnnlite.types import Array

_MAGIC = b"cnnlite1"
_FOOTER = struct.Struct("<32sQ8s")
_LARGEST_FACTS = 64 * 2**20


def write_cache(
    path: Path, parts: tuple[Iterator[Images], Iterator[Images]], shape: tuple[int, ...], facts: dict[str, Any]
) -> None:
    """Write the images of both parts, as they come, and the facts, which get ``train``, ``test`` and ``digest``.

    ``shape`` is that of an image, ``facts`` have the class names under ``classes``. The file is there when it is
    complete. Raises StorageError if it cannot be written, DataError if a part has no images.
    """
    with replacing(path) as file:
        labels: list[Array] = []
        counts = []
        for part in parts:
            before = len(labels)
            for images in part:
                file.write(images.images.data)
                labels.append(images.labels)
            counts.append(sum(map(len, labels[before:])))
        if not all(counts):
            raise DataError("none of the pictures to train or to test with can be read")
        file.write(np.concatenate(labels).astype("<i8").tobytes())
        file.flush()
        facts |= {"train": counts[0], "test": counts[1], "shape": list(shape)}
        facts["digest"] = digest(list(_mapped(file, facts)), tuple(facts["classes"]))
        text = json.dumps(facts).encode()  # escapes in names that are no text, too
        file.seek(0, 2)
        file.write(text + _FOOTER.pack(hashlib.sha256(text).digest(), len(text), _MAGIC))


def read_cache(path: Path) -> tuple[Images, Images, dict[str, Any]]:
    """Map the training and the test images of a file, which is verified from end to end; and the facts.

    Raises FileNotFoundError, or DataError if the file is not as it was written.
    """
    try:
        with open(path, "rb") as file:
            facts = _facts(file)
            train, test = _mapped(file, facts)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise DataError(f"{path}: {error}") from None
    if digest([train, test], tuple(facts["classes"])) != facts["digest"]:
        raise DataError(f"{path}: its SHA-256 does not match")
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
    pixels, count = int(np.prod(facts["shape"])), facts["train"] + facts["test"]
    if count * (pixels + 8) + length + _FOOTER.size != size:
        raise ValueError("does not have the size that it should")
    return facts


def _mapped(file: BinaryIO, facts: dict[str, Any]) -> tuple[Images, Images]:
    """Views of the file for the two parts; the labels are copied."""
    shape, train, count = facts["shape"], facts["train"], facts["train"] + facts["test"]
    flat = np.memmap(file, np.uint8, "r", shape=(count * (int(np.prod(shape)) + 8),))
    start = len(flat) - 8 * count
    # As plain arrays: every slice of np.memmap would be one too, which takes several times as long to make.
    images = np.asarray(flat[:start]).reshape(count, *shape)
    labels = np.frombuffer(flat[start:].tobytes(), "<i8").astype(np.int64)
    return Images(images[:train], labels[:train]), Images(images[train:], labels[train:])
