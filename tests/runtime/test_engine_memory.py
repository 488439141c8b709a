import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cnnlite.runtime import engine, machine
from cnnlite.utils.types import Array


def test_scratch_has_the_shape_asked_for_and_is_reused() -> None:
    first = engine.scratch("test", (3, 4), np.float32)
    assert first.shape == (3, 4)
    assert first.dtype == np.float32
    assert np.shares_memory(first, engine.scratch("test", (2, 5), np.float32))
    assert not np.shares_memory(first, engine.scratch("other", (3, 4), np.float32))
    assert not np.shares_memory(first, engine.scratch("test", (3, 4), np.float64))
    assert engine.scratch("test", (100, 100), np.float32).shape == (100, 100)


def test_scratch_is_each_thread_s_own() -> None:
    engine.set_threads(3)
    meeting = threading.Barrier(3)
    pads: list[Array] = []

    def task(index: int) -> None:
        pad = engine.scratch("test", (1000,), np.int64)
        pad[...] = index
        meeting.wait(timeout=20)
        assert (pad == index).all()
        pads.append(pad)
        meeting.wait(timeout=20)

    engine.run(task, 3)
    assert not any(np.shares_memory(pads[i], pads[j]) for i in range(3) for j in range(i))


SHAPE = (64, 1024)  # 256 KiB


@pytest.fixture
def no_slabs() -> Iterator[None]:
    engine.release()
    yield
    engine.release()


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.usefixtures("no_slabs")
def test_memory_nobody_refers_to_is_given_out_again() -> None:
    array = engine.empty(SHAPE)
    first = address(array)
    del array
    again = engine.empty(SHAPE)
    assert address(again) == first
    assert again.shape == SHAPE
    assert again.dtype == np.float32


@pytest.mark.usefixtures("no_slabs")
@pytest.mark.skipif(not machine.proportional_memory_bytes(), reason="the system does not tell")
def test_memory_that_is_released_goes_back_to_the_system() -> None:
    before = machine.proportional_memory_bytes()
    held = [engine.empty((size, 1024)) for size in (8192, 600, 300, 300, 300)]  # 32 MiB, 2.3, and less than a page each
    held.append(engine.scratch("test", (1024, 1024)))
    for array in held:
        array[...] = 1
    assert machine.proportional_memory_bytes() - before > 41 * 2**20
    held.clear()
    del array
    engine.release()
    assert machine.proportional_memory_bytes() - before < 8 * 2**20


@pytest.mark.usefixtures("no_slabs")
def test_memory_in_use_is_never_given_out() -> None:
    held = [engine.empty(SHAPE) for _ in range(5)]
    for number, array in enumerate(held):
        array[...] = number
    assert all((array == number).all() for number, array in enumerate(held))
    assert len({address(array) for array in held}) == 5


@pytest.mark.usefixtures("no_slabs")
@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[3:5, ::7],
        lambda array: array.reshape(-1),
        lambda array: array.T,
        lambda array: array.view(np.int32),
        lambda array: array[0, 0:1].reshape(1, 1),
        lambda array: np.lib.stride_tricks.as_strided(array, (2, 2), (8, 8)),
        lambda array: memoryview(array),
        lambda array: np.asarray(memoryview(array))[1:],
    ],
)
def test_any_view_keeps_its_memory(view: Callable[[Array], Any]) -> None:
    array = engine.empty(SHAPE)
    array[...] = 7
    first, kept = address(array), view(array)
    del array
    other = engine.empty(SHAPE)
    assert address(other) != first
    other[...] = 8
    np.testing.assert_array_equal(np.asarray(kept).view(np.float32), 7)
    del kept
    assert address(engine.empty(SHAPE)) == first


@pytest.mark.usefixtures("no_slabs")
def test_a_smaller_array_takes_a_slab_of_up_to_twice_its_size_and_no_more() -> None:
    array = engine.empty(SHAPE)
    first = address(array)
    del array
    assert address(engine.empty((40, 1024))) == first
    assert address(engine.empty((20, 1024))) != first


@pytest.mark.usefixtures("no_slabs")
def test_release_gives_free_memory_back_and_leaves_the_rest() -> None:
    held, free = engine.empty(SHAPE), engine.empty(SHAPE)
    held[...] = 3
    free_slab = weakref.ref(free.base)
    del free
    engine.release()
    assert free_slab() is None
    assert (held == 3).all()
    first = address(held)
    del held
    assert address(engine.empty(SHAPE)) == first


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 5), (100, 1000), (2, 3, 50_000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_])
def test_empty_gives_any_shape_and_dtype(shape: tuple[int, ...], dtype: type) -> None:
    array = engine.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
