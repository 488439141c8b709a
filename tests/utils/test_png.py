import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from cnnlite.utils.png import png
from cnnlite.utils.types import Array


def decoded(content: bytes) -> Array:
    """Read what `png` writes, chunk by chunk and row by row."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, data = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", content, place + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colours, *rest = struct.unpack(">2I5B", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert (rows[:, 0] == 2).all()  # each row is the difference from the one above
    pixels: Array = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).reshape(height, width, -1)
    assert pixels.shape[-1] == {0: 1, 2: 3, 6: 4}[colours]
    return pixels


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 1), (1, 9, 3), (8, 3, 3), (6, 5, 4)])
def test_pixels_come_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(decoded(png(pixels)), pixels)


def test_a_view_that_is_not_contiguous_is_written_as_it_looks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 4), np.uint8)[::2, ::-1, :3]
    np.testing.assert_array_equal(decoded(png(pixels)), pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_another_reader_sees_the_same(mode: str) -> None:
    image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (13, 11, len(mode)), np.uint8)
    picture = image.open(io.BytesIO(png(pixels)))
    assert (picture.format, picture.mode) == ("PNG", mode)
    np.testing.assert_array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


def test_repeated_pixels_take_little_space() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert len(png(pixels.repeat(8, axis=0).repeat(8, axis=1))) < 6 * len(png(pixels))
