"""What is handed to a process that is spawned: the same memory, the same bits, nothing that it could not read."""

import mmap
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnnlite.runtime import handover
from cnnlite.runtime.arrays import Slabs
from cnnlite.runtime.handover import HandoverError, Memory, MemoryFile, Unnamed, pack, unpack, whole_pages
from cnnlite.utils.types import Array

needs_descriptors = pytest.mark.skipif(os.name == "nt", reason="memory has names there")


def shared(count: int, dtype: Any = np.float32) -> Array:
    memory = MemoryFile().map(0, whole_pages(count * np.dtype(dtype).itemsize))
    array: Array = np.frombuffer(memory, dtype, count)
    return array


def there(value: object, code: str) -> str:
    """What another process prints, to which a value is handed over as ``x``."""
    packed = pack(value)
    program = f"import sys; sys.path[:] = {sys.path!r}\nfrom cnnlite.runtime import handover\n"
    program += f"x = handover.unpack({packed.arguments})\n{code}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, pass_fds=[*packed.descriptors], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def back(value: object) -> Any:
    """The value as another process would read it."""
    packed = pack(value)
    handover._mapped.cache_clear()  # descriptors are those of other files by now
    return eval(f"unpack({packed.arguments})", {"unpack": unpack})


@pytest.fixture(params=["memory", "file"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in memory, or temporary ones, as on macOS."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)


@needs_descriptors
@pytest.mark.usefixtures("kind")
def test_both_processes_write_to_the_same_memory_through_any_view() -> None:
    x = shared(10_000)
    x[:] = np.arange(10_000)
    views = {"whole": x, "rows": x[10:70].reshape(6, 10), "every": x[::7], "turned": x[20:40][::-1]}
    code = "print(x['rows'][1, 1], x['every'][2], x['turned'][0])\nx['rows'][0, 0] = -1\nx['whole'][9999] = -2"
    assert there(views, code) == "21.0 14.0 39.0\n"
    assert (x[10], x[9999]) == (-1, -2)


@needs_descriptors
@pytest.mark.usefixtures("kind")
def test_a_file_grows_in_any_process_and_what_is_mapped_stays() -> None:
    file, page = MemoryFile(), mmap.PAGESIZE
    first = np.frombuffer(file.map(0, page), np.uint8)
    assert there(file, f"x.map({page}, 3 * {page})[5] = 7") == ""
    assert file.map(page, 3 * page)[5] == 7
    file.close()
    file.close()
    first[0] = 1


@needs_descriptors
def test_temporary_files_leave_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = shared(5)
    assert list(tmp_path.iterdir()) == []
    array[:] = 1


@needs_descriptors
def test_files_are_closed_with_the_last_array() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        array = shared(5)
        view = array[2:]
        del array
        view[0] = 1
        del view
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_memory_with_names_has_one_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which this only imitates."""
    mapped: list[tuple[int, int, str]] = []

    class Named(Memory):
        def __new__(cls, descriptor: int, size: int, access: int, tagname: str) -> "Named":
            mapped.append((descriptor, size, tagname))
            return super().__new__(cls, -1, size)

    monkeypatch.setattr(handover, "Memory", Named)
    monkeypatch.setattr(handover, "os", SimpleNamespace(name="nt", getpid=lambda: 7))
    one, other = MemoryFile(), MemoryFile()
    for file in (one, other, MemoryFile.opened(one.handle)):
        file.map(0, 4096)
    one.map(4096, 4096)
    tags = [tag for _, _, tag in mapped]
    assert tags == [f"{one.handle}-0", f"{other.handle}-0", f"{one.handle}-0", f"{one.handle}-4096"]
    assert len({*tags}) == 3
    packed = pack(np.frombuffer(one.map(0, 4096), np.uint8))
    assert packed.descriptors == set()
    assert packed.arguments.startswith("'cnnlite-7-")


@pytest.mark.parametrize("count", [10, 100_000])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.dtype([("a", np.int8), ("b", np.int64)])])
def test_private_arrays_are_copied_with_layout_and_rights(count: int, dtype: Any) -> None:
    x = np.zeros((count, 3), dtype)
    x[1:3] = x[:2] if x.dtype.names else 5
    fixed = x.copy()
    fixed.flags.writeable = False
    for array in (x, fixed, np.asfortranarray(x), x[::2], x[:, 1]):
        found = back(array)
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, array.flags.writeable)
        assert found.flags.fnc == array.flags.fnc
        assert not np.shares_memory(found, array)
        other = back(array)
        if found.flags.writeable:
            found[...] = found[0]
        np.testing.assert_array_equal(other, array)  # each process has its own


def test_recycled_memory_is_private() -> None:
    array = Slabs().empty((2**18,), np.float32)
    array[:] = 3
    found = back(array)
    found[:] = 4
    assert (array == 3).all()


def test_an_array_that_is_found_twice_is_one() -> None:
    x = np.zeros(100_000)
    one, (other, empty) = back([x, (x, np.zeros((0, 4)))])
    assert one is other
    assert empty.shape == (0, 4)


@pytest.mark.parametrize("offset", [0, 128, 5000])
def test_mapped_files_are_mapped_again(offset: int, tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(256, size=200_000, dtype=np.uint8)
    content.tofile(tmp_path / "data")
    mapped = np.memmap(tmp_path / "data", "<i2", "r", offset, (9, 1000), "F")
    part = np.memmap(tmp_path / "data", np.uint8, "r", offset)[1000:]
    for array in (np.asarray(mapped), mapped, np.asarray(mapped)[2:5, ::2], np.asarray(part)):
        found = back(array)
        np.testing.assert_array_equal(found, array)
        assert found.strides == array.strides
        assert isinstance(handover._owner(found), np.memmap)
        assert not found.flags.writeable


def test_what_cannot_be_read_by_another_process_is_refused() -> None:
    anonymous = np.frombuffer(Unnamed(-1, mmap.PAGESIZE), np.uint8)
    with pytest.raises(HandoverError, match="only forked processes share"):
        pack([anonymous[3:]])
    for value in (lambda: 0, threading.Lock()):
        with pytest.raises(HandoverError, match=r"\w"):
            pack(value)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(HandoverError, match="recursion"):
        pack(deep)


class Own:
    """Stands for a class in the program that trains."""

    def method(self) -> int:
        return 1


def function() -> None:
    """Stands for a function there."""


@pytest.mark.parametrize(
    "value",
    [Own, function, partial(function), Own(), Own().method],
    ids=("class", "function", "partial", "instance", "method"),
)
def test_what_the_program_itself_defines_is_refused_with_a_way_out(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(back(value)) is type(value)
    for own in (Own, function):
        monkeypatch.setattr(own, "__module__", "__main__")
    with pytest.raises(HandoverError, match=r"^(Own|function) is defined in the program itself; in a module that"):
        pack(value)
