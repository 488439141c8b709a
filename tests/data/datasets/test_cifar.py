import contextlib
import os
import pickle
import pickletools
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Dataset, DatasetMissing, Normalizer, load_dataset, sources
from cnnlite.data.datasets.cifar import Cifar10, Cifar100
from cnnlite.data.download.unpickle import RefusedError, read_pickle
from cnnlite.errors import DataError
from cnnlite.utils.console import shell_word
from tests.support import cifar_files


def load(root: Path) -> Dataset:
    return Cifar10().load(root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cifar_files.write(tmp_path / "cifar-10-batches-py", cifar_files.python_files())


def test_images_are_channels_last_and_batches_in_order(folder: Path) -> None:
    dataset = load(folder.parent)
    assert dataset.train.images.shape == (30, 32, 32, 3)
    planes = cifar_files.planes(6, 3)
    for image, row, column, channel in ((0, 0, 0, 0), (2, 5, 17, 1), (5, 31, 30, 2)):
        expected = planes[image, channel * 1024 + row * 32 + column]
        assert dataset.train.images[12 + image, row, column, channel] == expected
    assert dataset.train.labels.tolist() == [(n + seed) % 10 for seed in range(1, 6) for n in range(6)]
    assert dataset.test.labels.tolist() == [(n + 6) % 10 for n in range(6)]
    assert dataset.classes == cifar_files.NAMES
    assert dataset.validation is None


def test_the_folder_itself_may_be_the_root(folder: Path) -> None:
    assert load(folder).digest == load(folder.parent).digest


def test_binary_version_gives_the_same_dataset(folder: Path, tmp_path: Path) -> None:
    cifar_files.write(tmp_path / "b" / "cifar-10-batches-bin", cifar_files.binary_files())
    python, binary = load(folder.parent), load(tmp_path / "b")
    np.testing.assert_array_equal(python.train.images, binary.train.images)
    np.testing.assert_array_equal(python.test.labels, binary.test.labels)
    assert python.digest == binary.digest


def test_digest_changes_with_one_pixel(folder: Path) -> None:
    before = load(folder).digest
    content = cifar_files.batch(6, 4)
    content[b"data"][3, 100] ^= 1
    (folder / "data_batch_4").write_bytes(cifar_files.pickled(content))
    assert load(folder).digest != before


def test_cifar100_fine_labels_are_read_in_both_versions(tmp_path: Path) -> None:
    python = cifar_files.cifar100_files()
    cifar_files.write(tmp_path / "p" / "cifar-100-python", python)
    binary = {}
    for name, seed in (("train", 1), ("test", 2)):
        labels = np.stack([np.full(200, 7), np.arange(200) % 100], axis=1).astype(np.uint8)
        binary[f"{name}.bin"] = np.concatenate([labels, cifar_files.planes(200, seed)], axis=1).tobytes()
    binary["fine_label_names.txt"] = "".join(f"fine{n}\n" for n in range(100)).encode()
    cifar_files.write(tmp_path / "b" / "cifar-100-binary", binary)
    first, second = Cifar100().load(tmp_path / "p"), Cifar100().load(tmp_path / "b")
    assert first.train.labels.tolist() == [n % 100 for n in range(200)]
    assert first.digest == second.digest
    assert len(first.classes) == 100


@pytest.mark.usefixtures("as_typed")
def test_missing_dataset_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=f"cnnlite download-cifar --data {re.escape(shell_word(str(tmp_path)))}`"):
        load(tmp_path)
    with pytest.raises(DatasetMissing, match="--data 'my images'`"):
        load(Path("my images"))
    with pytest.raises(DatasetMissing, match="--dataset cifar100"):
        Cifar100().load(tmp_path / "nowhere")


def test_files_are_known_by_exact_names_only(tmp_path: Path) -> None:
    root = tmp_path / "test5" / "data_batch_5"
    folder = cifar_files.write(root / "cifar-10-batches-py", cifar_files.python_files())
    decoys = (
        "test_batch.old",
        "test_batch_5",
        "data_batch_55",
        "data_batch_6",
        "5",
        "test",
        "my_test_batch",
        "x5.test",
    )
    cifar_files.write(folder, dict.fromkeys(decoys, b"not a batch"))
    clean = cifar_files.write(tmp_path / "clean", cifar_files.python_files())
    assert load(root).digest == load(clean).digest


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"cifar-10-batches-py: {name} missing"):
        load(folder.parent)


def test_directory_or_fifo_in_place_of_a_file_is_missing(folder: Path) -> None:
    (folder / "test_batch").unlink()
    os.mkfifo(folder / "test_batch")
    with pytest.raises(DataError, match="test_batch missing"):
        load(folder)


def test_cifar100_in_place_of_cifar10_is_said(folder: Path, tmp_path: Path) -> None:
    cifar_files.write(tmp_path / "other" / "cifar-100-python", cifar_files.cifar100_files())
    with pytest.raises(DataError, match=r"holds CIFAR-100, not CIFAR-10; set `data\.dataset: cifar100`"):
        load(tmp_path / "other")
    (folder / "data_batch_2").write_bytes(cifar_files.cifar100_files()["train"])
    with pytest.raises(DataError, match=r"data_batch_2: a file of CIFAR-100, not of CIFAR-10"):
        load(folder)


def changed(**changes: Any) -> bytes:
    content = cifar_files.batch(6, 1)
    content.update({key.encode(): value for key, value in changes.items()})
    return cifar_files.pickled({key: value for key, value in content.items() if value is not None})


BAD_FILES = {
    "empty": (b"", "not a file of the CIFAR python version"),
    "web page": (b"<!DOCTYPE html><html>", "web page"),
    "binary version": (cifar_files.binary_files()["data_batch_1.bin"], "looks like the binary version"),
    "cut short": (cifar_files.python_files()["data_batch_1"][:9000], "cut short"),
    "cut in a number": (cifar_files.python_files()["data_batch_1"][:-30], "cut short"),
    "os.system": (b"\x80\x02cos\nsystem\nU\x04echo\x85R.", r"asks for 'os\.system'"),
    "label too high": (changed(labels=[0, 1, 2, 10, 4, 5]), "labels 0 to 10, but classes 0 to 9"),
    "label negative": (changed(labels=[0, 1, -1, 3, 4, 5]), "labels -1 to 5"),
    "label is text": (changed(labels=[0, 1, b"2", 3, 4, 5]), "list of whole numbers"),
    "too few labels": (changed(labels=[0, 1]), "6 images with 2 labels"),
    "no images": (changed(labels=[], data=cifar_files.planes(0, 0)), "0 images"),
    "wrong width": (
        changed(data=np.zeros((6, 3071), np.uint8)),
        r"must be an array \(N, 3072\), not an array \(6, 3071\)",
    ),
    "wrong type": (changed(data=np.zeros((6, 3072), np.float32)), "instead of uint8"),
    "no data": (changed(data=None), "not NoneType"),
    "a list": (cifar_files.pickled([1, 2]), "a list instead of a dict"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_one_line_that_names_it(folder: Path, case: str) -> None:
    content, message = BAD_FILES[case]
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        load(folder)
    assert str(folder / "data_batch_1") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_file_too_large_is_not_read(folder: Path) -> None:
    with (folder / "data_batch_1").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="more than the 209,715,200 it may have; remove it"):
        load(folder)


@pytest.mark.parametrize("cut", [1, 3072])
def test_binary_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    content = cifar_files.binary_files()
    content["data_batch_4.bin"] = content["data_batch_4.bin"][:-cut]
    cifar_files.write(tmp_path, content)
    with pytest.raises(DataError, match=r"data_batch_4.bin: .* are not a multiple of 3073"):
        load(tmp_path)


def test_binary_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    content = cifar_files.binary_files()
    content["test_batch.bin"] = b"\xff" + content["test_batch.bin"][1:]
    with pytest.raises(DataError, match=r"test_batch.bin: labels 0 to 255"):
        load(cifar_files.write(tmp_path, content))


def test_class_names_must_be_ten_different_ones(folder: Path) -> None:
    (folder / "batches.meta").write_bytes(cifar_files.pickled({b"label_names": [b"cat"] * 10}))
    with pytest.raises(DataError, match="1 different class names instead of 10"):
        load(folder)


def nested(levels: int) -> bytes:
    """A tuple of twice a tuple of twice a tuple ...: some bytes that take 2^levels steps to hash, compare or print."""
    return b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(levels))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
UINT8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
HOSTILE = {
    "eval": b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
    "near name": b"\x80\x02cnumpy.core.multiarray\n_reconstruct2\n.",
    "numpy module attribute": b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
    "persistent id": b"\x80\x02}U\x01xPevil\ns.",
    "binary persistent id": b"\x80\x02}U\x01xU\x01xQs.",
    "extension": b"\x80\x02\x82\xf0.",
    "instance": b"\x80\x02(ios\nsystem\n.",
    "huge array": b"\x80\x02}U\x01d"
    + ARRAY
    + b"(K\x01\x8a\x08"
    + b"\x00" * 7
    + b"\x10\x85"
    + UINT8
    + b"\x89U\x01xtbs.",
    "array of no bytes": b"\x80\x02}U\x01d" + ARRAY + b"(K\x01K\x01\x85" + UINT8 + b"\x89Ntbs.",
    "array of many dimensions": b"\x80\x02}U\x01d"
    + ARRAY
    + b"(K\x01("
    + b"K\x01" * 99
    + b"t"
    + UINT8
    + b"\x89U\x01xtbs.",
    "key that takes for ever to hash": nested(60) + b"}h\x3cK\x01s.",
    "global that takes for ever to hash": nested(60) + b"h\x3ch\x3c\x93.",
    "type that takes for ever to print": nested(60) + b"cnumpy\ndtype\nh\x3c\x85R.",
    "shape that takes for ever to print": nested(60) + ARRAY + b"(K\x01h\x3c" + UINT8 + b"\x89U\x01xtb.",
    "object made without its constructor": b"\x80\x02}U\x01xcnumpy\nndarray\n)\x81s.",
    "announces 2^63 bytes": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fx.",
    "announces less than nothing": b"\x80\x02T\xff\xff\xff\xffx.",
    "number of 2^31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "number of 255 bytes": b"\x80\x02}U\x01x\x8a\xff" + b"\xff" * 255 + b"s.",
    "millions of lists": b"\x80\x02" + b"]" * 1_100_000 + b".",
    "builds a dict": b"\x80\x02}}b.",
    "more taken than there is": b"\x80\x02RRR.",
    "object array": b"\x80\x02cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickle_is_refused(case: str) -> None:
    started = time.process_time()
    with pytest.raises(RefusedError) as raised:
        read_pickle(HOSTILE[case])
    assert time.process_time() - started < 5  # of this process: others may keep it waiting
    assert len(str(raised.value)) < 200


def test_a_memo_number_is_not_the_length_of_a_list() -> None:
    # Python's pickle makes a table of 16 GB of these seven bytes.
    assert read_pickle(b"\x80\x02}r\xff\xff\xff\x3f.") == {}


def test_arrays_of_later_protocols_are_read() -> None:
    value = pickletools.optimize(pickle.dumps({b"labels": [1, 2, -3, 70_000], b"x": (None, True, [b"y" * 300])}, 5))
    assert read_pickle(value) == {b"labels": [1, 2, -3, 70_000], b"x": (None, True, [b"y" * 300])}


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_ends_in_a_refusal_or_a_dict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(cifar_files.python_files(2)["data_batch_1"])
    for place in rng.integers(0, 200, 3):
        data[place] = rng.integers(0, 256)
    with contextlib.suppress(RefusedError):
        assert isinstance(read_pickle(bytes(data)), dict)


def test_test_images_are_normalized_with_the_statistics_of_the_training_part(tmp_path: Path) -> None:
    content = cifar_files.python_files()
    for number, level in ((5, 200), (6, 250)):  # validation and test batches far brighter than batches 1 to 4
        name = f"data_batch_{number}" if number < 6 else "test_batch"
        content[name] = cifar_files.pickled(
            cifar_files.batch(6, number) | {b"data": np.full((6, 3072), level, np.uint8)}
        )
    dataset = load_dataset(Cifar10(), cifar_files.write(tmp_path, content))
    normalizer = Normalizer.fit(dataset.train.images)
    four = np.concatenate([cifar_files.planes(6, n) for n in range(1, 5)]).reshape(-1, 3, 1024).astype(np.float64)
    mean, std = four.mean(axis=(0, 2)), four.std(axis=(0, 2))
    np.testing.assert_allclose(normalizer.mean, mean, rtol=1e-6)
    for part, level in ((dataset.validation, 200), (dataset.test, 250)):
        assert part is not None
        np.testing.assert_allclose(normalizer(part.images)[2, 3, 4], (level - mean) / std, rtol=1e-5)


def test_the_real_cifar10_has_its_known_statistics(cifar10: Path) -> None:
    dataset = load_dataset(sources["cifar10"](), cifar10)
    assert (len(dataset.train), len(dataset.test)) == (40000, 10000)
    assert dataset.validation is not None
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.classes[:3] == ("airplane", "automobile", "bird")
    everything = Normalizer.fit(np.concatenate([dataset.train.images, dataset.validation.images]))
    np.testing.assert_allclose(everything.mean / 255, [0.49140, 0.48216, 0.44653], atol=1e-5)
    np.testing.assert_allclose(everything.std / 255, [0.24703, 0.24349, 0.26159], atol=1e-5)
