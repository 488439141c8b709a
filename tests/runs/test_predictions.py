from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Images
from cnnlite.errors import DataError
from cnnlite.runs import predictions
from cnnlite.runs.predictions import images_digest, predictions_text, read_predictions

CLASSES = ["cat", 'a "dog", or', "ünïcode"]


def test_predictions_read_back_as_they_were_written(tmp_path: Path) -> None:
    labels, found = np.array([0, 1, 2, 2]), np.array([0, 2, 1, 2])
    path = tmp_path / "predictions.csv"
    path.write_text(predictions_text(CLASSES, labels, found), encoding="utf-8")
    assert path.read_text(encoding="utf-8").splitlines()[:2] == ["image,label,predicted", '0,"cat","cat"']
    expected = [(CLASSES[one], CLASSES[other]) for one, other in zip(labels, found, strict=True)]
    assert read_predictions(path) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\xff\xfe",
        b"a,b,c\n0,x,x\n",
        b"image,label,predicted\n1,x,x\n",
        b"image,label,predicted\n0,x,x\n2,x,x\n",
        b"image,label,predicted\n0,x\n",
        b"image,label,predicted\n0,x,x,x\n",
        b"image,label,predicted\n\0\n",
        b'image,label,predicted\n0,"' + b"x" * 200_000,
    ],
    ids=lambda content: repr(content)[:40],
)
def test_what_is_no_such_table_holds_no_predictions(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_bytes(content)
    assert read_predictions(tmp_path / "predictions.csv") == []
    assert read_predictions(tmp_path / "missing.csv") == []


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path)


def test_the_digest_is_of_pixels_labels_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (7, 4, 4, 3), np.uint8), np.arange(7) % 3)
    digest = images_digest(images)
    monkeypatch.setattr(predictions, "_AT_ONCE", 2)
    apart = images_digest(Images(np.ascontiguousarray(images.images), images.labels.copy()))
    monkeypatch.undo()
    assert apart != digest  # the pieces are part of it
    other, labels = images.images.copy(), images.labels.copy()
    other[6, 3, 3, 2] ^= 1
    labels[6] = 2
    cut = Images(np.pad(images.images, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1:5, 1:5], images.labels)
    assert images_digest(cut) == digest
    changed = [Images(other, images.labels), Images(images.images, labels), images.take(np.arange(7)[::-1])]
    assert len({digest, *map(images_digest, changed)}) == 4
