"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their python and binary versions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from cnnlite.data.datasets.base import Dataset, DatasetMissing, Images, Source, digest, sources
from cnnlite.data.download.unpickle import RefusedError, read_pickle
from cnnlite.errors import DataError
from cnnlite.utils.files import read_small
from cnnlite.utils.printable import has_codes
from cnnlite.utils.types import Array

SIDE = 32
PIXELS = SIDE * SIDE
LARGEST_FILE = 200 * 1024 * 1024
"""Maximum bytes of a file; the largest real one, CIFAR-100's training images, has 155 million."""

Batch: TypeAlias = tuple[Array, Array]
"""Planes of colour, uint8 ``(N, 3 * 1024)``, and labels, int64 ``(N,)``."""


@dataclass(frozen=True)
class Version:
    """Files of one version of one dataset, recognised by these exact names only."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    """File with the class names."""
    binary: bool

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of the version."""
        return (*self.train, self.test, self.names)


@dataclass(frozen=True)
class Cifar:
    """One of the two datasets."""

    name: str
    title: str
    classes: int
    labels: bytes
    """Key of the labels in the python version."""
    names: bytes
    """Key of the class names in the python version."""
    label_bytes: int
    """Bytes before each image of the binary version; the last is the label."""
    versions: tuple[Version, ...]


CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10",
    classes=10,
    labels=b"labels",
    names=b"label_names",
    label_bytes=1,
    versions=(
        Version(
            "cifar-10-batches-py", tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", False
        ),
        Version(
            "cifar-10-batches-bin",
            tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
            "test_batch.bin",
            "batches.meta.txt",
            True,
        ),
    ),
)
CIFAR100 = Cifar(
    name="cifar100",
    title="CIFAR-100",
    classes=100,
    labels=b"fine_labels",
    names=b"fine_label_names",
    label_bytes=2,
    versions=(
        Version("cifar-100-python", ("train",), "test", "meta", False),
        Version("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", True),
    ),
)


class _CifarSource(Source):
    """Common base of the two; the last fifth of the training images is for validation."""

    in_shape = (SIDE, SIDE, 3)
    cifar: ClassVar[Cifar]

    def load(self, root: Path) -> Dataset:
        cifar = self.cifar
        folder, version = _locate(cifar, root)
        read = _read_binary if version.binary else _read_python
        classes = _read_names(cifar, version, folder / version.names)
        train = _images([read(cifar, folder / name) for name in version.train])
        test = _images([read(cifar, folder / version.test)])
        return Dataset(cifar.name, train, None, test, classes, digest([train, test], classes), len(train) // 5)


@sources.register("cifar10")
class Cifar10(_CifarSource):
    """60,000 photographs of 32x32 pixels in ten classes; the fifth training batch is for validation."""

    cifar = CIFAR10
    class_count = CIFAR10.classes


@sources.register("cifar100")
class Cifar100(_CifarSource):
    """60,000 photographs of 32x32 pixels in a hundred classes (the fine labels)."""

    cifar = CIFAR100
    class_count = CIFAR100.classes


def _locate(cifar: Cifar, root: Path) -> tuple[Path, Version]:
    """Find the folder with a complete version: ``root/<its name>``, or ``root`` itself."""
    for folder in (root, *(root / version.folder for version in cifar.versions)):
        if os.path.isdir(folder) and not os.access(folder, os.X_OK):  # else all in it would look missing
            raise DataError(f"{folder}: cannot be opened: Permission denied")
    incomplete = None
    for version in cifar.versions:
        for folder in (root / version.folder, root):
            missing = [name for name in version.files if not os.path.isfile(folder / name)]
            if not missing:
                return folder, version
            if missing != list(version.files) and incomplete is None:
                incomplete = f"{folder}: {', '.join(missing)} missing; `cnnlite download-cifar` brings all files"
    if incomplete:
        raise DataError(incomplete)
    for other in (CIFAR10, CIFAR100):
        if other is not cifar and any(os.path.isdir(root / version.folder) for version in other.versions):
            raise DataError(
                f"{root}: holds {other.title}, not {cifar.title}; set `data.dataset: {other.name}` to use it"
            )
    raise DatasetMissing(cifar.name, root)


def _unpickled(path: Path) -> dict[bytes, Any]:
    data = read_small(path, LARGEST_FILE)
    if not data.startswith(b"\x80"):
        if data and any(len(data) % (c.label_bytes + 3 * PIXELS) == 0 for c in (CIFAR10, CIFAR100)):
            raise DataError(f"{path}: looks like the binary version, whose file names end in .bin")
        raise DataError(f"{path}: not a file of the CIFAR python version (empty, damaged or a web page)")
    try:
        return read_pickle(data)
    except RefusedError as error:
        raise DataError(f"{path}: refused: {error}") from None


def _read_python(cifar: Cifar, path: Path) -> Batch:
    content = _unpickled(path)
    for other in (CIFAR10, CIFAR100):
        if other is not cifar and other.labels in content and cifar.labels not in content:
            raise DataError(f"{path}: a file of {other.title}, not of {cifar.title}; see `data.dataset`")
    planes, labels = content.get(b"data"), content.get(cifar.labels)
    if not isinstance(planes, np.ndarray) or planes.ndim != 2 or planes.shape[1] != 3 * PIXELS:
        found = f"an array {planes.shape}" if isinstance(planes, np.ndarray) else type(planes).__name__
        raise DataError(f"{path}: 'data' must be an array (N, {3 * PIXELS}), not {found}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: {cifar.labels.decode()!r} must be a list of whole numbers")
    return _checked(cifar, path, planes, labels)


def _read_binary(cifar: Cifar, path: Path) -> Batch:
    data = read_small(path, LARGEST_FILE)
    record = cifar.label_bytes + 3 * PIXELS
    if len(data) % record:
        raise DataError(f"{path}: {len(data):,} bytes are not a multiple of {record}: cut short, or not {cifar.title}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return _checked(cifar, path, records[:, cifar.label_bytes :], records[:, cifar.label_bytes - 1].tolist())


def _checked(cifar: Cifar, path: Path, planes: Array, labels: list[int]) -> Batch:
    if len(planes) != len(labels) or not labels:
        raise DataError(f"{path}: {len(planes)} images with {len(labels)} labels")
    if min(labels) < 0 or max(labels) >= cifar.classes:
        raise DataError(f"{path}: labels {min(labels)} to {max(labels)}, but classes 0 to {cifar.classes - 1}")
    return planes, np.array(labels, np.int64)


def _images(batches: Sequence[Batch]) -> Images:
    """Concatenate batches, their colour planes interleaved to channels last."""
    images = np.empty((sum(len(labels) for _, labels in batches), PIXELS, 3), np.uint8)
    start = 0
    for planes, labels in batches:
        stop = start + len(labels)
        for channel in range(3):
            images[start:stop, :, channel] = planes[:, channel * PIXELS : (channel + 1) * PIXELS]
        start = stop
    return Images(images.reshape(-1, SIDE, SIDE, 3), np.concatenate([labels for _, labels in batches]))


def _read_names(cifar: Cifar, version: Version, path: Path) -> tuple[str, ...]:
    if version.binary:
        names: Any = read_small(path, LARGEST_FILE).split()
    else:
        names = _unpickled(path).get(cifar.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise DataError(f"{path}: no list of class names in it")
    classes = tuple(name.decode("utf-8", "replace") for name in names)
    if any(map(has_codes, classes)):
        raise DataError(f"{path}: class names with control characters; the file is not the original")
    if len(classes) != cifar.classes or len(set(classes)) != cifar.classes:
        raise DataError(f"{path}: {len(set(classes))} different class names instead of {cifar.classes}")
    return classes
