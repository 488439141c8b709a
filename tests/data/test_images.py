"""Every kind of file that people call a picture, against arrays worked out by hand."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import decoders, images
from cnnlite.data.frames import Frame
from cnnlite.data.images import read_pictures
from cnnlite.errors import ConfigError, StorageError
from cnnlite.runtime import engine, machine
from cnnlite.utils.types import Array

Image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def read(path: Path, frame: Frame | None = None) -> Array:
    images, faults = read_pictures([path], frame or Frame(6, 8))
    assert faults == {}
    return images[0]  # type: ignore[no-any-return]


def fault(path: Path) -> str:
    images, faults = read_pictures([path], Frame(6, 8))
    assert not images.any()
    return faults[0]


def saved(tmp_path: Path, picture: Any, name: str = "a.png", **options: Any) -> Path:
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.jpg"])
def test_a_picture_of_the_right_size_keeps_its_pixels_whatever_its_name_says(name: str, tmp_path: Path) -> None:
    pixels = noise(6, 8, 3)
    path = saved(tmp_path, Image.fromarray(pixels), name, format="PNG" if name == "a.jpg" else None)
    np.testing.assert_array_equal(read(path), pixels)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    pixels = noise(6, 8)
    np.testing.assert_array_equal(read(saved(tmp_path, Image.fromarray(pixels))), np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_are_scaled_not_clipped(order: str, tmp_path: Path) -> None:
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    (tmp_path / "a.png").write_bytes(png(8, 6, 16, 0, rows))
    saved(tmp_path, Image.fromarray(levels.astype(order + "u2")), "a.tif")
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read(tmp_path / name)[..., 1], levels >> 8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2"])
def test_twelve_bits_in_sixteen_are_not_nearly_black(name: str, tmp_path: Path) -> None:
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 87  # up to 4089
    np.testing.assert_array_equal(read(saved(tmp_path, Image.fromarray(levels), name))[..., 1], levels >> 4)


def test_numbers_whose_white_nobody_knows_are_refused(tmp_path: Path) -> None:
    assert "floating-point" in fault(saved(tmp_path, Image.fromarray(np.ones((6, 8), np.float32)), "a.tif"))
    assert "16 bits" in fault(saved(tmp_path, Image.fromarray(np.full((6, 8), 1 << 20, np.int32)), "b.tif"))


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    pixels = noise(6, 8, 4)
    pixels[:2, :, 3], pixels[2:, :, 3] = 0, 255
    images = [read(saved(tmp_path, Image.fromarray(pixels)))]
    assert (images[0][:2] == 255).all()
    np.testing.assert_array_equal(images[0][2:], pixels[2:, :, :3])
    grey = np.stack([pixels[..., 0], pixels[..., 3]], axis=-1)
    images.append(read(saved(tmp_path, _grey_alpha(grey))))
    assert (images[1][:2] == 255).all()
    np.testing.assert_array_equal(images[1][2:, :, 2], grey[2:, :, 0])


def _grey_alpha(pixels: Array) -> Any:
    return Image.merge("LA", [Image.fromarray(np.ascontiguousarray(pixels[..., k])) for k in range(2)])


def test_palettes_are_looked_up_and_their_transparent_colour_is_white(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 6), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    picture.paste(2, (0, 0, 8, 3))
    plain = read(saved(tmp_path, picture))
    assert plain[0, 0].tolist() == [200, 100, 50]
    assert plain[5, 7].tolist() == [10, 20, 30]
    clear = read(saved(tmp_path, picture, "b.png", transparency=2))
    assert clear[0, 0].tolist() == [255, 255, 255]
    assert clear[5, 7].tolist() == [10, 20, 30]


def test_cmyk_and_bilevel_become_rgb(tmp_path: Path) -> None:
    assert np.abs(read(saved(tmp_path, Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "a.jpg")) - [255, 0, 0]).max() < 4
    assert (read(saved(tmp_path, Image.new("1", (8, 6), 1), "b.png")) == 255).all()


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], lossless=True)
        assert read(path)[3, 3].tolist() == [255, 0, 0], name


@pytest.mark.parametrize("name", ["a.png", "a.tif", "late.png"])
@pytest.mark.parametrize("turn", range(10))
def test_exif_orientation_is_respected(turn: int, name: str, tmp_path: Path) -> None:
    upright = noise(6, 8, 3)
    # How a camera held in that way stores what is upright.
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }.get(turn, upright)
    exif: Any = Image.Exif()
    exif[0x0112] = turn
    if name == "late.png":
        path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), name)
        path.write_bytes(path.read_bytes()[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + chunk(b"IEND", b""))
    else:
        path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), name, exif=exif)
    np.testing.assert_array_equal(read(path), upright)


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(noise(6, 8, 3)), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert read(path).shape == (6, 8, 3)


def halves(width: int, height: int) -> Any:
    """A picture whose middle is grey, with a black left and a white right edge, or top and bottom."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    edge = abs(width - height) // 2
    if width > height:
        pixels[:, :edge], pixels[:, width - edge :] = 0, 255
    else:
        pixels[:edge], pixels[height - edge :] = 0, 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(96, 32), (32, 96), (960, 320), (30, 10), (5, 3)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_the_shorter_side_is_scaled_and_the_centre_cut(size: tuple[int, int], name: str, tmp_path: Path) -> None:
    image = read(saved(tmp_path, halves(*size), name), Frame(32, 32)).astype(int)
    assert image.shape == (32, 32, 3)
    # Enlarging mixes neighbours across the cut; JPEG mixes blocks.
    assert np.abs(image[4:-4, 4:-4] - 128).max() <= (0 if name == "a.png" and size[0] > 30 else 16)


def test_stretching_keeps_the_edges(tmp_path: Path) -> None:
    image = read(saved(tmp_path, halves(96, 32)), Frame(32, 32, stretch=True))
    assert (image[:, 0] == 0).all()
    assert (image[:, -1] == 255).all()


def test_a_larger_shorter_side_leaves_a_border_out(tmp_path: Path) -> None:
    pixels = noise(9, 13, 3)
    path = saved(tmp_path, Image.fromarray(pixels))
    np.testing.assert_array_equal(read(path, Frame(4, 4, shorter=9)), pixels[2:6, 4:8])
    framed = np.full((64, 64, 3), 255, np.uint8)
    framed[8:56, 8:56] = 50
    inside = read(saved(tmp_path, Image.fromarray(framed), "b.png"), Frame(20, 20, shorter=32))
    assert (inside == 50).all()
    assert read(path, Frame(20, 20, shorter=1)).shape == (20, 20, 3)  # never less than the frame


def test_a_jpeg_decoded_at_a_fraction_of_its_size_looks_the_same(tmp_path: Path) -> None:
    y, x = np.mgrid[:1200, :1600] / 5
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
    picture = Image.fromarray(waves.astype(np.uint8))
    exif: Any = Image.Exif()
    exif[0x0112] = 6
    strip = picture.crop((0, 0, 1600, 104))
    for stored, frame in ((picture, Frame(320, 240)), (strip, Frame(5, 80))):
        for options in ({}, {"exif": exif}):
            jpeg = read(saved(tmp_path, stored, "a.jpg", quality=95, **options), frame)
            exact = read(saved(tmp_path, stored, "a.png", **options), frame)
            assert np.abs(jpeg.astype(int) - exact).mean() < 3


def _deflated(text: bytes) -> bytes:
    return b"name\0\0" + zlib.compress(text)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"prompt\0" + b"a" * 5_000_000),
        chunk(b"zTXt", _deflated(b"a" * 5_000_000)),
        chunk(b"zTXt", _deflated(b"a" * 100_000_000)),
        chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"a" * 5_000_000)),
        chunk(b"tEXt", b"prompt\0" + b"a" * 30_000_000) * 3,
        chunk(b"tEXt", b"prompt\0text")[:-1] + b"?",  # another checksum
        chunk(b"iCCP", _deflated(noise(3_000_000).tobytes())),
        chunk(b"iCCP", b""),
        chunk(b"iCCP", b"name\0\5method"),
    ],
    ids=["text", "deflated", "100 MB", "international", "90 MB", "checksum", "profile", "no profile", "method"],
)
@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "behind them"])
def test_what_pngs_hold_beside_their_pixels_keeps_nothing_from_being_read(
    extra: bytes, place: int, tmp_path: Path
) -> None:
    pixels = noise(6, 8, 3)
    path = saved(tmp_path, Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[:place] + extra + content[place:])
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tif"])
def test_profiles_that_are_none_are_ignored(name: str, tmp_path: Path) -> None:
    plain = read(saved(tmp_path, Image.fromarray(noise(6, 8, 3)), "plain" + name[1:]))
    odd = read(saved(tmp_path, Image.fromarray(noise(6, 8, 3)), name, icc_profile=b"junk" * 1000))
    np.testing.assert_array_equal(odd, plain)


def test_of_several_pictures_in_a_jpeg_the_first_is_taken(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    path = saved(tmp_path, first, "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert np.abs(read(path).astype(int) - [255, 0, 0]).max() < 3


def test_what_cannot_be_decoded_is_called_damaged_only_if_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(noise(6, 8, 3)), "a.tif", compression="tiff_lzw")
    content = path.read_bytes()
    tag = struct.pack("<HHIHH", 259, 3, 1, 5, 0)
    assert content.count(tag) == 1
    path.write_bytes(content.replace(tag, struct.pack("<HHIHH", 259, 3, 1, 34712, 0)))  # JPEG 2000 in a TIFF
    assert "damaged" not in fault(path)


CHILD = """
import re, resource, sys
from pathlib import Path
from cnnlite.runtime import engine
from cnnlite.data.frames import Frame
from cnnlite.data.images import read_pictures

engine.set_threads(int(sys.argv[1]))
_, faults = read_pictures([Path(name) for name in sys.argv[2:]], Frame(32, 32))
if sys.platform == "linux":  # where a process begins with the ru_maxrss of the one that started it
    most = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
else:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(most, *faults.values(), sep="\\n")
"""


def memory(threads: int, *paths: Path) -> tuple[int, list[str]]:
    """MiB that a process takes at the most to read pictures, and what is wrong with them."""
    command = [sys.executable, "-c", CHILD, str(threads), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    most, *faults = done.stdout.splitlines()
    return int(most) // 2**20, faults


needs_rusage = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")


@pytest.mark.long
@needs_rusage
@pytest.mark.parametrize(
    ("name", "mode", "side"), [("a.jp2", "RGB", 5800), ("a.png", "RGBA", 8200), ("a.webp", "RGB", 5800)]
)
def test_no_small_file_takes_gigabytes(name: str, mode: str, side: int, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new(mode, (side, side)), name)
    assert path.stat().st_size < 2**20
    most, faults = memory(2, path, path)
    assert most < 800
    assert len(faults) == 2
    assert "MiB of memory to decode" in faults[0]


def tiff(path: Path, width: int, height: int, tags: dict[int, list[int]], pixels: bytes) -> Path:
    """A TIFF of one deflated strip or tile."""
    data = zlib.compress(pixels, 1)
    offset, stored = (324, 325) if 322 in tags else (273, 279)
    tags = {256: [width], 257: [height], 259: [8], 262: [2], 278: [height], offset: [8], stored: [len(data)]} | tags
    place, body, rest = 8 + len(data) + 2 + 12 * len(tags) + 4, struct.pack("<H", len(tags)), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            packed, rest = struct.pack("<I", place + len(rest)), rest + packed
        body += struct.pack("<HHI", tag, 4, len(values)) + packed
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + body + bytes(4) + rest)
    return path


def held_tiff(folder: Path, kind: str) -> Path:
    if kind == "a tile":
        return tiff(folder / "a.tif", 100, 100, {258: [8] * 3, 277: [3], 322: [14_000], 323: [14_000]}, bytes(100))
    depth, side = (16, 9400) if kind == "16 bits" else (8, 9440)
    return tiff(folder / "a.tif", side, side, {258: [depth] * 3, 277: [3]}, bytes(100))


@pytest.mark.parametrize("kind", ["16 bits", "8 bits", "a tile"])
def test_what_libtiff_holds_is_counted_and_refused_before_it_is_taken(kind: str, tmp_path: Path) -> None:
    assert "MiB of memory to decode, more than 512" in fault(held_tiff(tmp_path, kind))


@pytest.mark.long
@needs_rusage
@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.tif", "RGB", {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 2000}}),
        ("a.tif", "L", {"compression": "tiff_lzw", "tiffinfo": {278: 2000}}),
        ("a.tif", "YCbCr", {"compression": "jpeg", "tiffinfo": {278: 2000}}),
        ("16.tif", "RGB", {}),
        ("a.jp2", "RGB", {}),
        ("a.jp2", "RGBA", {}),
        ("a.jp2", "L", {}),
    ],
)
def test_what_a_picture_is_charged_is_what_it_takes(
    name: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if name == "16.tif":
        path = tiff(tmp_path / name, 2000, 2000, {258: [16] * 3, 277: [3]}, bytes(6 * 2000**2))
    else:
        path = saved(tmp_path, Image.new(mode, (2000, 2000)), name, **options)
    base, _ = memory(1, saved(tmp_path, Image.new("L", (8, 6)), "small" + path.suffix))
    most, faults = memory(1, path)
    assert not faults
    with Image.open(path) as picture:
        charged = images._bytes(picture, 0, copied=not images._is_plain(picture)) / 2**20
    assert (most - base) / 1.1 - 8 < charged < 1.7 * (most - base) + 8


def test_a_process_that_may_use_little_memory_decodes_in_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, Image.new("RGB", (1000, 1000)))
    monkeypatch.setattr(machine, "memory", lambda: 7 * 2**20)
    assert "takes 4 MiB of memory to decode, more than 4;" in fault(path)
    monkeypatch.setattr(machine, "memory", lambda: 8 * 2**20)
    assert read(path).shape == (6, 8, 3)


def test_frames_that_memory_does_not_hold_are_refused_at_once(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (8, 6)))
    with pytest.raises(StorageError, match=r"pictures of 1000000x1000000 pixels would take 7,000\.0 GB of memory each"):
        read_pictures([path], Frame(10**6, 10**6))


def slow_pictures(folder: Path, width: int, height: int) -> Iterator[Path]:
    size = b"%d %d\n" % (width, height)
    headers = {"a.ppm": b"P6\n" + size + b"200\n", "b.ppm": b"P3\n" + size + b"255\n", "c.pgm": b"P5\n" + size + b"9\n"}
    for name, header in headers.items():
        (folder / name).write_bytes(header + b"0 " * (3 * width * height if width < 100 else 9))
        yield folder / name
    rle = (b"\1\5" * width + b"\0\0") * height + b"\0\1" if width < 100 else b""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rle), 0, 0, 1, 0) + bytes(4)
    (folder / "d.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rle), 0, 0, 58) + header + rle)
    yield folder / "d.bmp"


def test_pictures_that_are_decoded_in_python_are_refused_where_that_takes_long(tmp_path: Path) -> None:
    for path in slow_pictures(tmp_path, 8, 6):
        assert read(path).shape == (6, 8, 3), path
    for path in slow_pictures(tmp_path, 2049, 2049):
        assert "takes seconds for a million pixels; save it as a PNG" in fault(path), path
    with open(tmp_path / "long.ppm", "wb") as file:
        file.write(b"P3\n8 6\n255\n")
        file.truncate(2**26 + 1)
    assert "save it as a PNG" in fault(tmp_path / "long.ppm")


@pytest.mark.long
@needs_rusage
@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_pictures_that_are_decoded_at_once_share_the_memory(mode: str, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new(mode, (5000, 5000)), compress_level=1)
    most, faults = memory(8, *[path] * 8)
    assert not faults
    assert most < 800


@needs_rusage
@pytest.mark.parametrize(("width", "height"), [(12_000, 9_000), (16_320, 12_240)], ids=["108 MP", "200 MP"])
def test_a_jpeg_of_many_pixels_that_is_decoded_small_is_not_refused(width: int, height: int, tmp_path: Path) -> None:
    exif: Any = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.new("L", (width, height)), "a.jpg", exif=exif)
    most, faults = memory(2, path, path)
    assert not faults
    assert most < 300


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"progressive": True, "subsampling": 0}], ids=str)
def test_what_all_scans_of_a_jpeg_take_is_counted(options: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(noise(80, 160, 3)), "a.jpg", **options)
    with Image.open(path) as picture:
        expected = 160 * 80 * (0 if not options else 6 if "subsampling" in options else 3)
        assert decoders.scans(picture) == expected
        assert images._rgb(picture).size == (160, 80)


def test_memory_is_given_back_whatever_happens(tmp_path: Path) -> None:
    paths = [path for path, _ in broken_files(tmp_path)] + [saved(tmp_path, Image.fromarray(noise(6, 8, 4)))]
    engine.set_threads(4)
    read_pictures(paths * 3, Frame(6, 8))
    assert images._room._taken == 0


def test_pillow_keeps_its_own_limits_for_others(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    read(saved(tmp_path, Image.fromarray(noise(6, 8, 3))))
    assert Image.MAX_IMAGE_PIXELS == before is not None


def broken_files(folder: Path) -> Iterator[tuple[Path, str]]:
    stored = io.BytesIO()
    Image.fromarray(noise(60, 80, 3)).save(stored, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(noise(60, 80, 3)).save(jpeg, "JPEG")
    whole = stored.getvalue()
    contents = {
        "empty.png": (b"", "is empty"),
        "text.jpg": (b"<html>not found</html>", "not a picture"),
        "cut.png": (whole[:-5000], "damaged"),
        "header.png": (whole[:30], "not a picture"),
        "cut.jpg": (jpeg.getvalue()[:3000], "damaged"),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not a picture"),
        "bomb.png": (png(65_000, 65_000, 1, 0, b"\0" * 100), "pixels"),
        "large.png": (png(10_000, 10_000, 1, 0, b"\0" * 100), "pixels"),
    }
    for name, (content, words) in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name, words
    yield folder / "missing.png", "No such file"
    (folder / "folder.png").mkdir()
    yield folder / "folder.png", "not a file"
    (folder / "loop.png").symlink_to(folder / "loop.png")
    yield folder / "loop.png", "symbolic links"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
        yield folder / "pipe.png", "not a file"


def test_files_that_are_no_pictures_are_told_apart_and_do_not_stop_the_others(tmp_path: Path) -> None:
    good = saved(tmp_path, Image.fromarray(noise(6, 8, 3)))
    broken = list(broken_files(tmp_path))
    engine.set_threads(3)
    images, faults = read_pictures([good, *(path for path, _ in broken), good], Frame(6, 8))
    assert list(faults) == list(range(1, len(broken) + 1))
    for fault, (path, words) in zip(faults.values(), broken, strict=True):
        assert words in fault, f"{path.name}: {fault}"
    assert not images[1:-1].any()
    np.testing.assert_array_equal(images[0], images[-1])


def test_without_pillow_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r'pip install "cnnlite\[images\]"'):
        read_pictures([tmp_path / "a.png"], Frame(6, 8))
