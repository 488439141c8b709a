"""Valid files of one's own, changed at random: they are read, or refused with one of our errors, in no time."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from cnnlite.data.datasets.arrays import Arrays
from cnnlite.data.datasets.cached import CachedSource
from cnnlite.data.datasets.coco import Coco
from cnnlite.data.datasets.csv_list import PictureList
from cnnlite.data.datasets.idx import Idx
from cnnlite.errors import DataError, StorageError
from tests.data.datasets.test_changed_files import EDITS, FEW, changed
from tests.support.doors import coco, shapes, write_idx


def arrays(root: Path, *, packed: bool) -> Path:
    train, test, classes = shapes(20, 20)
    save = np.savez_compressed if packed else np.savez
    save(
        root / "a.npz",
        x_train=train.images[:, ::8, ::8],
        y_train=train.labels,
        x_test=test.images[:, ::8, ::8],
        y_test=test.labels,
        class_names=np.array(classes),
    )
    return root / "a.npz"


def one_npy(root: Path) -> Path:
    train, _, _ = shapes(20, 20)
    np.save(root / "x.npy", train.images[:, ::8, ::8])
    np.save(root / "y.npy", train.labels)
    return root / "x.npy"


def a_list(root: Path) -> Path:
    rows = [
        f'"p{index}.png";{index % 3};{("train", "val", "test")[index // 3 % 3]};g{index // 3}' for index in range(18)
    ]
    (root / "a.csv").write_text("\n".join(["\ufeffpath;label;split;group", *rows]), encoding="utf-8")
    return root / "a.csv"


def an_idx(root: Path, *, packed: bool) -> Path:
    train, test, _ = shapes(20, 20)
    write_idx(root, train, test)
    name = "train-labels-idx1-ubyte" if packed else "train-images-idx3-ubyte"
    return root / name


def annotations(root: Path) -> Path:
    objects = [(index % 3, index % 2, [float(index), 2.5, 20.0, 30.0]) for index in range(12)]
    data = coco([(f"{k}.png", 64, 48) for k in range(3)], objects, ["ant", "bée"])
    (root / "annotations.json").write_text(json.dumps(data), encoding="utf-8")
    for index in range(3):
        (root / f"{index}.png").touch()
    return root / "annotations.json"


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "npz": (lambda root: arrays(root, packed=False), lambda root: whole(Arrays(), root)),
    "packed npz": (lambda root: arrays(root, packed=True), lambda root: whole(Arrays(), root)),
    "npy": (one_npy, lambda root: whole(Arrays(), root)),
    "csv": (a_list, lambda root: PictureList(8).listing(root)),
    "idx images": (lambda root: an_idx(root, packed=False), lambda root: Idx().load(root)),
    "idx labels": (lambda root: an_idx(root, packed=True), lambda root: Idx().load(root)),
    "coco": (annotations, lambda root: Coco(8).listing(root)),
}


def whole(source: CachedSource, root: Path) -> None:
    """List all examples and read them."""
    listing = source.listing(root)
    for part in (listing.train, listing.test):
        images, _ = source.read(listing, part)
        assert images.shape == (len(part), *listing.shape)
        assert {*part.labels} <= {*range(len(listing.classes))}


@pytest.mark.parametrize("case", CASES)
def test_a_changed_file_is_read_or_refused(case: str, tmp_path: Path) -> None:
    make, load = CASES[case]
    path = make(tmp_path)
    content = path.read_bytes()
    load(tmp_path)
    refused: list[str] = []

    @FEW
    @given(EDITS)
    def attempt(edits: list[tuple[str, float, int]]) -> None:
        path.write_bytes(changed(content, edits))
        began = time.process_time()
        try:
            load(tmp_path)
        except (DataError, StorageError) as error:
            refused.append(str(error))
        assert time.process_time() - began < 2

    attempt()
    assert refused
    most = 6 if case == "csv" else 1  # a list has a line for each of its first faults
    assert [message for message in refused if len(message.splitlines()) > most] == []
    assert max(len(line) for message in refused for line in message.splitlines()) <= 600
