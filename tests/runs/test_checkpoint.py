import contextlib
import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite.errors import CheckpointError, DivergedError, StorageError
from cnnlite.runs.checkpoint import FORMAT, Checkpoint, load_checkpoint, save_checkpoint
from cnnlite.utils.types import Array


def example() -> Checkpoint:
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {
        "param/0.weight": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
        "buffer/1.count": np.array(7, dtype=np.int64),
        "optimizer/m/0.weight": rng.normal(size=(5,)),
        "optimizer/m/empty": np.zeros((0, 4), dtype=np.float32),
    }
    return Checkpoint(arrays, {"step": 12, "name": "größe", "best": None, "loss": 0.1 + 0.2})


def sealed(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
        archive.comment = b"sha256:" + b"0" * 64
    return reseal(buffer.getvalue())


def reseal(data: bytes) -> bytes:
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def meta(**changes: Any) -> bytes:
    text = json.dumps({"format": FORMAT, "version": 1, **changes})
    return npy(np.frombuffer(text.encode(), dtype=np.uint8))


def header(shape: str, descr: str = "'<f4'", fortran: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    saved = example()
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.arrays.keys() == saved.arrays.keys()
    for name, array in saved.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert loaded.arrays[name].shape == array.shape
        assert loaded.arrays[name].tobytes() == array.tobytes()
        assert loaded.arrays[name].flags.writeable
    assert saved.meta.items() <= loaded.meta.items()
    assert loaded.part("optimizer/m").keys() == {"0.weight", "empty"}


def test_what_is_loaded_has_no_part_in_the_file_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, example())
    loaded, content = load_checkpoint(path), path.read_bytes()
    path.write_bytes(bytes(len(content)))
    for name, array in example().arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
        loaded.arrays[name][...] = 1
    assert path.read_bytes() == bytes(len(content))


def test_numpy_alone_opens_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.npz", example())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive["param/0.weight"].shape == (3, 3, 2, 4)
        assert json.loads(archive["meta"].tobytes())["step"] == 12


def test_transposed_arrays_are_saved_in_reading_order(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_checkpoint(tmp_path / "a.npz", Checkpoint({"x": array}))
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "a.npz").arrays["x"], array)


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.npz", example())
    save_checkpoint(tmp_path / "b.npz", example())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, Checkpoint({"param/w": np.ones(2, dtype=np.float32)}, {"step": 1}))
    good = path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_a_file_cut_short_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, Checkpoint({"param/w": np.ones(2, dtype=np.float32)}, {"step": 1}))
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


bomb = npy(np.zeros(1 << 20, dtype=np.float32))
huge = header("(1000000, 1000000, 1000)") + b"0" * 16
FOREIGN = {
    "nothing": (b"", "empty"),
    "web page": (b"<!DOCTYPE html><html>" + b" " * 200, "not a cnnlite checkpoint"),
    "bare npy": (npy(np.zeros(100)), "not a cnnlite checkpoint"),
    "no meta": (sealed({"x.npy": npy(np.zeros(3))}), "no meta"),
    "foreign meta": (sealed({"meta.npy": meta(format="other")}), "foreign meta"),
    "newer": (sealed({"meta.npy": meta(version=2)}), "format version 2"),
    "meta that is no mapping": (sealed({"meta.npy": npy(np.frombuffer(b"[1]", dtype=np.uint8))}), "foreign meta"),
    "meta nested too deeply": (sealed({"meta.npy": npy(np.frombuffer(b"[" * 200_000, np.uint8))}), "not a cnnlite"),
    "objects": (sealed({"meta.npy": meta(), "x.npy": npy(np.array([{}]), allow_pickle=True)}), "not plain numbers"),
    "text": (sealed({"meta.npy": meta(), "x.npy": npy(np.array(["a"]))}), "not plain numbers"),
    "huge shape": (sealed({"meta.npy": meta(), "x.npy": huge}), "not that many bytes"),
    "negative shape": (sealed({"meta.npy": meta(), "x.npy": header("(-1, -4)") + b"0" * 16}), "not that many bytes"),
    "too many bytes": (sealed({"meta.npy": meta(), "x.npy": npy(np.zeros(3)) + b"0"}), "not that many bytes"),
    "broken header": (sealed({"meta.npy": meta(), "x.npy": header("(1, |") + b"0" * 8}), "has a damaged header"),
    "not npy": (sealed({"meta.npy": meta(), "x.npy": b"hello"}), "not a cnnlite"),
    "deflate bomb": (sealed({"meta.npy": meta(), "x.npy": bomb}, zipfile.ZIP_DEFLATED), "compressed"),
    "compressed": (sealed({"meta.npy": meta(x=1)}, zipfile.ZIP_BZIP2), "compressed"),
    "NaN": (sealed({"meta.npy": meta(), "x.npy": npy(np.array([0, np.nan]))}), "x holds NaN"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    content, reason = FOREIGN[kind]
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_files_changed_by_an_unfriendly_hand_load_or_raise_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(sealed({"meta.npy": meta(step=1), "param/w.npy": npy(np.ones(3, dtype=np.float32))}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 65))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    path.write_bytes(reseal(bytes(content)))
    with contextlib.suppress(CheckpointError):
        load_checkpoint(path)


def test_a_directory_a_missing_file_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a directory"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "missing.npz")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_checkpoint(tmp_path / "pipe")


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_save_leaves_the_old_checkpoint_and_nothing_else(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, example())
    before = path.read_bytes()
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(StorageError, match=r"a\.npz: cannot write"):
        save_checkpoint(path, Checkpoint({"x": np.zeros(3)}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.npz"
    save_checkpoint(path, example())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError):
            save_checkpoint(path, Checkpoint({"x": np.zeros(1_000_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_never_saved(value: float, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="param/w"):
        save_checkpoint(tmp_path / "a.npz", Checkpoint({"param/w": np.array([1, value], dtype=np.float32)}))
    assert os.listdir(tmp_path) == []
