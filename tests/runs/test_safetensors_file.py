"""Files of safetensors: written and read by the format's own library, refused in words wherever they are damaged."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import DamagedError
from cnnlite.runs.safetensors_file import file_of, read_arrays

safetensors = pytest.importorskip("safetensors")

ARRAYS = {
    "0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "1.running_var": np.array([1.5, -2], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.float32(3) * np.ones((), np.float32),
}


def made(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_arrays_and_metadata_come_back_to_the_bit() -> None:
    arrays, metadata = read_arrays(file_of(ARRAYS, {"who": "grüße"}))
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)
    assert metadata["who"] == "grüße"


def test_arrays_in_any_order_of_axes_are_written_as_they_look() -> None:
    turned = ARRAYS["0.weight"].transpose(3, 0, 2, 1)
    np.testing.assert_array_equal(read_arrays(file_of({"a": turned}, {}))[0]["a"], turned)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("F64", np.array([1.5, -3.25]).tobytes()),
        ("F16", np.array([1.5, -3.25], np.float16).tobytes()),
        ("BF16", (np.array([1.5, -3.25], np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()),
    ],
)
def test_other_real_numbers_become_float32(dtype: str, bits: bytes) -> None:
    arrays, _ = read_arrays(made({"a": entry(dtype, (2,), (0, len(bits)))}, bits))
    assert arrays["a"].dtype == np.float32
    assert arrays["a"].tolist() == [1.5, -3.25]


def test_whole_numbers_are_left_out() -> None:
    assert read_arrays(made({"a": entry("I64", (1,), (0, 8))}, bytes(8)))[0] == {}


HOSTILE = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a text": b"hello, this is no such file at all",
    "a header beyond the file": made({}, length=10**6),
    "a header of many gigabytes": made({}, length=2**62),
    "a negative length": made({}, length=2**64 - 1),
    "no JSON": made(b"{nonsense"),
    "JSON that is no object": made([1, 2]),
    "bytes that are no text": made(b'{"\xff\xfe": 1}'),
    "an entry that is none": made({"a": 3}),
    "a dtype that is none": made({"a": entry("F3")}, bytes(8)),
    "a shape that is text": made({"a": entry(shape="22")}, bytes(8)),
    "a negative shape": made({"a": entry(shape=(-2,))}, bytes(8)),
    "a shape beyond all memory": made({"a": entry(shape=(2**40, 2**40), offsets=(0, 8))}, bytes(8)),
    "another shape than its bytes": made({"a": entry(shape=(3,))}, bytes(8)),
    "an end before the start": made({"a": entry(offsets=(8, 0))}, bytes(8)),
    "an end beyond the file": made({"a": entry(shape=(4,), offsets=(0, 16))}, bytes(8)),
    "arrays that overlap": made({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "bytes that belong to none": made({"a": entry()}, bytes(80)),
    "deep nesting": made(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "metadata that are numbers": made({"__metadata__": {"a": 1}, "a": entry()}, bytes(8)),
    "a name that terminals obey": made({"a\x1b[2J": entry()}, bytes(8)),
    "NaN": made({"a": entry()}, np.array([1, np.nan], np.float32).tobytes()),
    "infinity": made({"a": entry()}, np.array([1, np.inf], np.float32).tobytes()),
    "numbers beyond float32": made({"a": entry("F64", (1,))}, np.array([1e300]).tobytes()),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_damaged_or_hostile_file_is_refused_in_a_line(what: str) -> None:
    with pytest.raises(DamagedError) as caught:
        read_arrays(HOSTILE[what])
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_damage_of_a_file_is_anything_but_arrays_or_a_refusal() -> None:
    whole, rng = bytearray(file_of(ARRAYS, {"a": "b"})), np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(3000):
        broken = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(header)] = rng.integers(256)
        if rng.random() < 0.3:
            del broken[rng.integers(len(broken)) :]
        try:
            arrays, _ = read_arrays(bytes(broken))
        except DamagedError:
            refused += 1
        else:
            assert sum(array.nbytes for array in arrays.values()) <= 4 * len(whole)
    assert 1000 < refused < 3000
