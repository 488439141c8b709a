"""The files of MNIST and its family are read whole, raw or compressed, or refused with a line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Images, load_dataset
from cnnlite.data.datasets.idx import Idx
from cnnlite.errors import DataError, StorageError
from cnnlite.runtime import machine
from tests.support.doors import MNIST, idx, write_idx


def images(count: int, seed: int = 0, classes: int = 3, height: int = 4, width: int = 5) -> Images:
    rng = np.random.default_rng(seed)
    return Images(rng.integers(0, 256, (count, height, width, 1), np.uint8), np.arange(count) % classes)


TRAIN, TEST = images(30), images(12, 1)
EMNIST = {key: f"emnist-letters-{name.replace('t10k', 'test')}.gz" for key, name in MNIST.items()}


def assert_read(folder: Path, source: Idx, train: Images = TRAIN, test: Images = TEST) -> None:
    dataset = source.load(folder)
    for part, expected in ((dataset.train, train), (dataset.test, test)):
        np.testing.assert_array_equal(part.images, expected.images)
        np.testing.assert_array_equal(part.labels, expected.labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"kmnist-{name.replace('t10k', 'test')}",
        lambda name: f"A-b.c_{name}.GZ",
    ],
)
def test_usual_names_raw_and_compressed(change: "type[str]", tmp_path: Path) -> None:
    names = {key: change(name) for key, name in MNIST.items()}
    assert_read(write_idx(tmp_path, TRAIN, TEST, names), Idx())
    (tmp_path / "raw").mkdir()
    for file in [file for file in tmp_path.iterdir() if file.is_file()]:
        file.rename(tmp_path / "raw" / file.name)
    assert_read(tmp_path, Idx())


def test_the_last_sixth_is_for_validation_and_classes_are_numbers(tmp_path: Path) -> None:
    dataset = load_dataset(Idx(), write_idx(tmp_path, TRAIN, TEST))
    assert [len(part or ()) for part in (dataset.train, dataset.validation, dataset.test)] == [25, 5, 12]
    assert dataset.validation is not None
    np.testing.assert_array_equal(dataset.validation.images, TRAIN.images[25:])
    assert dataset.classes == ("0", "1", "2")
    assert dataset.name == tmp_path.name


def test_emnist_is_turned_back_counts_from_1_and_has_names(tmp_path: Path) -> None:
    turned = [Images(np.ascontiguousarray(part.images.transpose(0, 2, 1, 3)), part.labels) for part in (TRAIN, TEST)]
    write_idx(tmp_path, turned[0], turned[1], EMNIST, first=1)
    assert_read(tmp_path, Idx())
    assert Idx().load(tmp_path).classes == ("1", "2", "3")
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    dataset = Idx().load(tmp_path)
    assert dataset.classes == ("Aa", "Bb", "Cc")
    assert dataset.name == "emnist-letters"
    assert_read(tmp_path, Idx(transpose=False), *turned)
    write_idx(tmp_path / "mnist", TRAIN, TEST)
    assert_read(tmp_path / "mnist", Idx(transpose=True), *turned)


@pytest.mark.parametrize(
    "mapping", ["1 65\n2 66\n", "1 65\n2 66\n3\n", "1 65\n2 65\n3 66", "a b", "1 2 27\n2 3\n3 4", "1 99999999999"]
)
def test_a_mapping_that_does_not_name_each_label_is_refused(mapping: str, tmp_path: Path) -> None:
    write_idx(tmp_path, TRAIN, TEST, EMNIST, first=1)
    (tmp_path / "emnist-letters-mapping.txt").write_text(mapping)
    with pytest.raises(DataError, match=r"mapping\.txt: does not name each of the labels; mend or remove it"):
        Idx().load(tmp_path)


def test_one_of_several_sets_is_chosen_by_its_prefix(tmp_path: Path) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    write_idx(tmp_path, TRAIN, TEST, EMNIST, first=1)
    with pytest.raises(DataError, match=r"holds several sets, .*emnist-letters; choose one: .*prefix=emnist-letters"):
        Idx().load(tmp_path)
    assert Idx(prefix="emnist-letters").load(tmp_path).classes == ("1", "2", "3")
    assert_read(tmp_path, Idx(prefix=""))
    with pytest.raises(DataError, match=r"no files whose names begin with other; there are: .*emnist-letters"):
        Idx(prefix="other").load(tmp_path)


def test_a_raw_file_goes_before_a_compressed_one(tmp_path: Path) -> None:
    write_idx(tmp_path, TEST, TRAIN, {key: f"{name}.gz" for key, name in MNIST.items()})
    assert_read(write_idx(tmp_path, TRAIN, TEST), Idx())


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", b"", "begins with nothing, not 00 00 08 03"),
        ("train-images-idx3-ubyte", b"<html>", "begins with 3c 68 74 6d, not 00 00 08 03; it is no such IDX file"),
        ("train-images-idx3-ubyte", idx(TRAIN.labels), "begins with 00 00 08 01, not 00 00 08 03"),
        ("train-images-idx3-ubyte", idx(TRAIN.images[..., 0])[:10], "is cut short"),
        ("train-images-idx3-ubyte", idx(TRAIN.images[..., 0])[:-1], r"is cut short: \(30, 4, 5\) takes 600 bytes, 599"),
        ("train-images-idx3-ubyte", idx(TRAIN.images[..., 0]) + b"x", r"goes on: \(30, 4, 5\) takes 600 bytes"),
        ("train-images-idx3-ubyte", idx(TRAIN.images[:0, ..., 0]), "holds nothing"),
        ("train-images-idx3-ubyte", idx(TRAIN.images[:9, ..., 0]), "train-labels-idx1-ubyte.*: 30 labels for 9 images"),
        ("t10k-images-idx3-ubyte", idx(images(12, width=4).images[..., 0]), "of different sizes, 4x5 and 4x4"),
        ("t10k-labels-idx1-ubyte", idx(TEST.labels + 1), "holds labels 3, of which there are no images to train on"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "would take"),
    ],
)
def test_damaged_files_are_refused_in_a_line(
    name: str, content: bytes, words: str, packed: bool, tmp_path: Path
) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises((DataError, StorageError), match=words) as caught:
        Idx().load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_compression_is_refused_in_a_line(tmp_path: Path) -> None:
    write_idx(tmp_path, TRAIN, TEST, {key: f"{name}.gz" for key, name in MNIST.items()})
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (
        whole[:2],
        whole[: len(whole) // 2],
        whole[:-6],
        whole[:-8] + bytes(8),
        whole[:20] + bytes(20) + whole[40:],
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: (is|goes|cannot|holds)") as caught:
            Idx().load(tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_header_that_announces_much_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(TRAIN.images[..., 0])[:4] + bytes([0, 0, 99, 0] * 3))
    monkeypatch.setattr(machine, "memory", lambda: 2**62)
    with pytest.raises(DataError, match="is cut short"):
        Idx().load(tmp_path)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        Idx().load(tmp_path / "none")
    with pytest.raises(DataError, match="holds no files called like train-images-idx3-ubyte"):
        Idx().load(tmp_path)
    write_idx(tmp_path, TRAIN, TEST)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="files of test labels are missing"):
        Idx().load(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").mkdir()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: "):
        Idx().load(tmp_path)
