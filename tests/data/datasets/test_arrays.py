"""Arrays are taken as they are, whatever they are called, or refused with a line that says what is wrong."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Dataset, Images, load_dataset
from cnnlite.data.datasets.arrays import Arrays
from cnnlite.data.fingerprints import hashed
from cnnlite.errors import DataError, OptionError, StorageError
from cnnlite.runtime import machine
from cnnlite.utils.types import Array
from tests.support.doors import shapes, write_arrays


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def labels(count: int, classes: int = 2) -> Array:
    return np.arange(count) % classes


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_given_parts_keep_their_order_and_are_mapped(tmp_path: Path) -> None:
    train, test, classes = shapes()
    path = write_arrays(tmp_path / "a.npz", train.take(slice(100)), test, class_names=np.array(classes))
    x_val, y_val = train.images[100:], train.labels[100:]
    with np.load(path) as arrays:
        path = save(tmp_path / "all.npz", **arrays, x_val=x_val, y_val=y_val)
    dataset = load_dataset(Arrays(), path)
    assert dataset.classes == classes
    assert dataset.name == "all.npz"
    for part, images in (("train", train.take(slice(100))), ("validation", Images(x_val, y_val)), ("test", test)):
        found = getattr(dataset, part)
        np.testing.assert_array_equal(found.images, images.images)
        np.testing.assert_array_equal(found.labels, images.labels)
        assert not found.images.flags.owndata
        assert not found.images.flags.writeable
    assert len(load_dataset(Arrays(), path, validation="none").train) == 126


USUAL = [
    ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "Y_train", "X_test", "Y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images_train", "labels_train", "images_test", "labels_test"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("train_data", "train_target", "testing_data", "testing_target"),
    ("TRAIN_IMGS", "TRAIN_LABEL", "TEST_IMGS", "TEST_LABEL"),
]


@pytest.mark.parametrize("as_files", [True, False])
@pytest.mark.parametrize("names", USUAL, ids="-".join)
def test_usual_names_are_understood(names: tuple[str, ...], as_files: bool, tmp_path: Path) -> None:
    arrays = dict(zip(names, (noise(20, 4, 5), labels(20), noise(6, 4, 5, seed=1), labels(6)), strict=True))
    if as_files:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
    else:
        save(tmp_path / "any.npz", **arrays)
    dataset = Arrays().load(tmp_path)
    assert dataset.train.images.shape == (20, 4, 5, 1)
    np.testing.assert_array_equal(dataset.test.images[..., 0], arrays[names[2]])


@pytest.mark.parametrize("names", [("x", "y"), ("data", "target"), ("images", "labels"), ("arr_0", "arr_1")])
def test_without_parts_pixels_decide_and_equal_images_stay_together(names: tuple[str, str], tmp_path: Path) -> None:
    x, y = noise(200, 3, 3, 2), labels(200)
    x[1::4] = x[0::4]
    path = save(tmp_path / "a.npz", **dict(zip(names, (x, y), strict=True)))
    dataset = load_dataset(Arrays(), path, validation=0.2)
    parts = {part: set(hashed(getattr(dataset, part).images).tolist()) for part in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(set(hashed(x).tolist())) == 150
    assert min(map(len, parts.values())) > 8
    label = dict(zip(hashed(x[2::2]).tolist(), y[2::2].tolist(), strict=True))
    for images in (dataset.train, dataset.test):
        for pixels, number in zip(hashed(images.images).tolist(), images.labels.tolist(), strict=True):
            assert label.get(pixels, number) == number or number == 1
    counted = load_dataset(Arrays(), path, validation=30)
    assert 27 <= len(counted.validation or ()) <= 30
    assert counted.validation is not None
    assert not {*hashed(counted.validation.images).tolist()} & {*hashed(counted.train.images).tolist()}


def test_images_that_come_and_go_move_no_other_one(tmp_path: Path) -> None:
    x, y = noise(300, 4, 4), labels(300, 3)

    def sides(which: Array) -> dict[int, str]:
        dataset = load_dataset(Arrays(), save(tmp_path / "a.npz", x=x[which], y=y[which]), validation=0.2)
        found: dict[int, str] = {}
        for part in ("train", "validation", "test"):
            found |= dict.fromkeys(hashed(getattr(dataset, part).images).tolist(), part)
        return found

    whole = sides(np.arange(300))
    rng = np.random.default_rng(0)
    for which in (np.arange(150), rng.permutation(300), rng.permutation(300)[:200]):
        now = sides(which)
        assert sum(whole[key] != part for key, part in now.items()) <= 6  # first and last of each class


def test_other_seeds_and_fractions_draw_others(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=noise(200, 4, 4), y=labels(200))
    digests = [Arrays(**options).load(path).digest for options in ({}, {"seed": 1}, {"test_fraction": 0.5}, {})]
    assert len({*digests}) == 3
    assert digests[0] == digests[3]


@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "u2", "i8", "bool"])
def test_numbers_of_any_kind_become_bytes_by_their_range(dtype: str, tmp_path: Path) -> None:
    levels = noise(12, 3, 3, 1)
    is_whole = dtype in ("u2", "i8")
    x = (levels > 127) if dtype == "bool" else levels if is_whole else levels / 255
    path = save(
        tmp_path / "a.npz", x_train=x.astype(dtype), y_train=labels(12), x_test=x[:4].astype(dtype), y_test=labels(4)
    )
    found = Arrays(value_range=(0, 255) if is_whole else (0, 1)).load(path)
    expected = np.where(levels > 127, 255, 0) if dtype == "bool" else levels
    np.testing.assert_array_equal(found.test.images, expected[:4])
    wider = Arrays(value_range=(-510, 255) if is_whole else (-2, 1)).load(path)
    np.testing.assert_array_equal(wider.test.images, np.rint((expected[:4].astype(int) + 510) / 3))
    with pytest.raises(DataError, match=r"x_train holds .* from .* to .*value_range"):
        Arrays().load(path)


def test_numbers_beyond_the_range_are_refused_by_row_or_skipped(tmp_path: Path) -> None:
    x = noise(20, 2, 2).astype(np.float32) / 255
    x[3, 0, 1], x[7, 1, 1] = np.nan, 1.5
    path = save(tmp_path / "a.npz", x_train=x, y_train=labels(20), x_test=x[10:], y_test=labels(10))
    with pytest.raises(DataError) as caught:
        Arrays(value_range=(0, 1)).load(path)
    *rows, last = str(caught.value).splitlines()
    first, second = sorted(rows)
    assert first.startswith(f"{path / 'x_train[3]'}: holds nan")
    assert "x_train[7]: holds 0" in second
    assert second.endswith("to 1.5, beyond the range 0 to 1")
    assert last.startswith("2 pictures cannot be read")
    assert len(Arrays(value_range=(0, 1), corrupt="skip").load(path).train) == 18


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        (labels(12, 3) + 1, ("1", "2", "3")),
        (labels(12, 3)[:, None], ("0", "1", "2")),
        (np.eye(4, dtype=np.float32)[labels(12, 3)], ("0", "1", "2", "3")),
        (labels(12, 3).astype(float), ("0", "1", "2")),
        (labels(12, 2).astype(bool), ("0", "1")),
        (np.array(["owl", "ant", "bée"] * 4), ("ant", "bée", "owl")),
        (np.array([b"owl", b"ant", "bée".encode()] * 4), ("ant", "bée", "owl")),
    ],
    ids=["from 1", "column", "one-hot", "float", "bool", "text", "bytes"],
)
def test_labels_of_any_usual_kind(given: Array, classes: tuple[str, ...], tmp_path: Path) -> None:
    x = noise(12, 2, 2)
    dataset = Arrays().load(save(tmp_path / "a.npz", x_train=x, y_train=given, x_test=x, y_test=given))
    assert dataset.classes == classes
    text = {"0": 0, "owl": 2, "ant": 0, "bée": 1}
    first = given.ravel()[0]
    expected = text[first if isinstance(first, str) else first.decode()] if given.dtype.kind in "SU" else 0
    assert dataset.test.labels[0] == expected
    order = [hashed(part.images).tolist() for part in (dataset.train, dataset.test)]
    assert dataset.train.labels[order[0].index(order[1][0])] == expected
    assert sorted(set(dataset.train.labels.tolist())) == list(range(min(3, len(classes))))


def test_flat_rows_beside_images_are_not_used_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = noise(20, 4, 4)
    path = save(tmp_path / "digits.npz", data=x.reshape(20, 16), images=x, target=labels(20), DESCR=np.array("about"))
    Arrays().load(path)
    assert "left out: 2 arrays: DESCR, data" in capsys.readouterr().err
    path = save(tmp_path / "kaggle.npz", x_train=x, y_train=labels(20), x_test=x)
    Arrays().load(path)
    assert "left out: 1 array: x_test (without its labels or images)" in capsys.readouterr().err


def test_channels_first_is_asked_about_and_read(tmp_path: Path) -> None:
    x = noise(10, 3, 8, 9)
    path = save(tmp_path / "a.npz", x_train=x, y_train=labels(10), x_test=x, y_test=labels(10))
    with pytest.raises(DataError, match=r"\(10, 3, 8, 9\), with the channels first, it seems; .*channels_first=true"):
        Arrays().load(path)
    np.testing.assert_array_equal(Arrays(channels_first=True).load(path).test.images, np.moveaxis(x, 1, 3))
    np.testing.assert_array_equal(Arrays(channels_first=False).load(path).test.images, x)


def test_fortran_order_and_compressed_files_are_the_same_images(tmp_path: Path) -> None:
    x, y = noise(30, 4, 5, 3), labels(30)
    plain = Arrays().load(save(tmp_path / "a.npz", x=x, y=y))
    fortran = Arrays().load(save(tmp_path / "b.npz", x=np.asfortranarray(x), y=y))
    np.savez_compressed(tmp_path / "c.npz", x=x, y=y)
    assert plain.digest == fortran.digest == Arrays().load(tmp_path / "c.npz").digest


@pytest.mark.parametrize("as_files", [True, False])
def test_a_file_whose_parts_keep_their_sizes_is_read_again_too(as_files: bool, tmp_path: Path) -> None:
    arrays = GOOD | {"x_val": noise(4, 4, 4), "y_val": labels(4)}
    digests = []
    for seed in (0, 1):
        arrays["x_train"] = noise(8, 4, 4, seed=seed)
        if as_files:
            for name, array in arrays.items():
                np.save(tmp_path / f"{name}.npy", array)
        else:
            save(tmp_path / "a.npz", **arrays)
        digests.append(Arrays().load(tmp_path).digest)
    assert digests[0] != digests[1]


def test_a_changed_file_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.npz", x=noise(30, 4, 4), y=labels(30))
    first = Arrays().load(path).digest
    assert "reading 30 pictures, once" in capsys.readouterr().err
    assert Arrays().load(path).digest == first
    assert capsys.readouterr().err == ""
    save(path, x=noise(30, 4, 4, seed=1), y=labels(30))
    assert Arrays().load(path).digest != first
    assert "reading all pictures again" in capsys.readouterr().err
    other = save(tmp_path / "b.npz", x=noise(30, 4, 4), y=labels(30))
    assert Arrays().load(other).digest == first  # beside the first one's cache
    assert len(list((tmp_path / ".cnnlite").glob("*.images"))) == 2


def object_array() -> Array:
    found = np.empty(4, object)
    found[:] = [noise(2, 2), noise(3, 3), noise(2, 2), noise(2, 2)]
    return found


GOOD: dict[str, Any] = {"x_train": noise(8, 4, 4), "y_train": labels(8), "x_test": noise(4, 4, 4), "y_test": labels(4)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x_train": object_array()}, "x_train.npy: holds Python objects, which are never unpickled"),
        ({"x_train": noise(8, 16)}, r"x_train has shape \(8, 16\); images are .* reshape them"),
        ({"x_train": np.array(["a"] * 8).reshape(8, 1, 1)}, "x_train holds text, not images"),
        ({"x_train": noise(8, 4, 4).astype(complex)}, "x_train.npy: holds complex128, neither numbers nor text"),
        ({"x_train": noise(0, 4, 4)}, "x_train.npy: is empty"),
        ({"x_test": noise(4, 5, 4)}, r"different shapes: x_train \(4, 4, 1\), x_test \(5, 4, 1\)"),
        ({"y_train": labels(7)}, r"y_train has shape \(7,\), for 8 images"),
        ({"y_train": np.array(3)}, r"y_train has shape \(\), for 8 images"),
        ({"y_train": labels(8) + 0.5}, "y_train holds numbers that are not whole"),
        ({"y_train": np.array([np.nan] * 8)}, "y_train holds numbers that are not whole"),
        ({"y_train": np.ones((8, 3))}, r"y_train has shape \(8, 3\), but not a single one"),
        ({"y_train": np.array([["a", "b"]] * 8)}, r"y_train has shape \(8, 2\); labels are"),
        ({"y_train": np.array(["a", ""] * 4)}, "y_train holds names that are empty"),
        ({"y_train": np.array([b"\xff", b"a"] * 4)}, "y_train holds text that is not UTF-8"),
        ({"y_train": np.array(["a", "b\x1b[2J"] * 4)}, "y_train holds names that are empty, or hold control"),
        ({"y_train": np.zeros(8, int)}, "labels of a single class"),
        ({"y_test": labels(4) + 1}, "y_test holds the label 2, of which there are no images to train on"),
        ({"y_test": np.array(["a", "b"] * 2)}, "y_test holds <U1, but labels to train on are int64"),
        ({"class_names": np.array(["a", "a"])}, "class_names names two classes alike"),
        ({"class_names": np.arange(2)}, "class_names is int64 of shape"),
        ({"class_names": np.array(["a", "b"]), "y_train": labels(8) + 1}, "y_train holds the label 2"),
        ({"train_images": noise(8, 4, 4)}, "x_train and train_images may all be the images of train"),
        ({"x_train": None}, "holds no array called like images_train or x_train, but y_train, x_test, y_test"),
        ({"y_train": None}, "holds no array called like labels_train or y_train"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused_in_a_line(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    arrays = {name: array for name, array in {**GOOD, **changed}.items() if array is not None}
    path = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words) as caught:
        Arrays().load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / ".cnnlite").exists()


def damaged(path: Path) -> dict[str, tuple[bytes, str]]:
    large = GOOD | {"x_train": noise(8, 64, 64)}
    whole = save(path, **large).read_bytes()
    place = whole.index(large["x_train"].tobytes()) + 20_000
    np.savez_compressed(path, x=noise(100, 10, 10), y=labels(100))
    packed = path.read_bytes()
    return {
        "empty": (b"", "is no .npz file"),
        "page": (b"<html>not found</html>", "is no .npz file"),
        "cut": (whole[: len(whole) // 2], "a.npz: File is not a zip file"),
        "flipped": (whole[:place] + b"\0\0\0\0\0" + whole[place + 5 :], "x_train.npy: its checksum does not match"),
        "packed": (packed[:200] + bytes(20) + packed[220:], "x.npy: "),
    }


@pytest.mark.parametrize("kind", ["empty", "page", "cut", "flipped", "packed"])
def test_damaged_files_are_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    content, words = damaged(tmp_path / "a.npz")[kind]
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        Arrays().load(tmp_path / "a.npz")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"(8, 4, 4)", b"(9, 4, 4)", r"is cut short or damaged: it has shape \(9, 4, 4\), but 128 bytes"),
        (b"(8, 4, 4)", b"(-8,4,-4)", "is cut short or damaged"),
        (b"(8, 4, 4)", b"(8, 4e9,)", "shape is not valid"),
        (b"(8, 4, 4)", b"(10**9,8)", "malformed node"),
        (b"|u1", b"|O1", "x_train.npy: "),
        (b"|u1", b"<V1", "neither numbers nor text"),
        (b"NUMPY\x01", b"NUMPY\x07", "has .npy version"),
        (b"NUMPY", b"NUMPI", "the magic string is not correct"),
    ],
)
def test_headers_are_not_trusted(old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
    for name, array in GOOD.items():
        np.save(tmp_path / f"{name}.npy", array)
    path = tmp_path / "x_train.npy"
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(DataError, match=words) as caught:
        Arrays().load(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    for length in (0, 5, 20, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="x_train"):
            Arrays().load(tmp_path)


def test_other_places_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        Arrays().load(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no \.npy files, and 0 \.npz files"):
        Arrays().load(tmp_path)
    np.save(tmp_path / "x.npy", GOOD["x_train"])
    with pytest.raises(DataError, match=r"name the folder of the \.npy files instead"):
        Arrays().load(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.write(tmp_path / "x.npy", "x.npy")
    with pytest.raises(DataError, match="holds 'x' twice"):
        Arrays().load(tmp_path / "twice.npz")
    with pytest.raises(OptionError, match="value_range: the first number must be below the second"):
        Arrays(value_range=(1, 1))
    shutil.copy(tmp_path / "twice.npz", tmp_path / "another.npz")
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match=r"and 2 \.npz files"):
        Arrays().load(tmp_path)


def test_a_compressed_array_that_does_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 10, 10), np.uint8), y=labels(1000))
    monkeypatch.setattr(machine, "memory", lambda: 150_000)
    with pytest.raises(StorageError, match=r"x.npy: is compressed, and would take 100.0 kB of memory; as numpy.savez"):
        Arrays().load(tmp_path / "a.npz")


def test_the_same_dataset_whatever_door_of_arrays(tmp_path: Path) -> None:
    train, test, _ = shapes()
    found: list[Dataset] = [Arrays().load(write_arrays(tmp_path / "a.npz", train, test))]
    with np.load(tmp_path / "a.npz") as arrays:
        for name, array in arrays.items():
            (tmp_path / "npy").mkdir(exist_ok=True)
            np.save(tmp_path / "npy" / f"{name}.npy", array)
    found.append(Arrays().load(tmp_path / "npy"))
    assert found[0].digest == found[1].digest
