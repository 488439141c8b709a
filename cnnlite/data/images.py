"""Pictures from files: decoded, upright, in RGB or grey, and of one size. The only module that uses Pillow."""

import contextlib
import io
import itertools
import math
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from cnnlite.data.decoders import held, is_slow, scans
from cnnlite.data.frames import Box, Frame
from cnnlite.errors import DataError, StorageError, require
from cnnlite.runtime import engine, machine
from cnnlite.utils.text import size_text
from cnnlite.utils.types import Array

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes of picture files; the content alone decides the format."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
"""Decoders that are tried: not those that run other programs (EPS), or of formats without photographs."""

_ORIENTATION = 0x0112
_UPRIGHT = (
    None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"
)  # fmt: skip
"""Operations that turn a picture upright, by its orientation in EXIF 2.3; from 5 on sides are swapped."""


MOST_PIXELS = 89_478_485
"""Maximum pixels of a picture, as it is decoded; above it Pillow warns."""
MEMORY = 2**29
"""Maximum bytes of pictures being decoded, on all threads together; one that takes more is refused.

Where a process may not use as much, half of what it may.
"""
_HUNGRY = {"WEBP": 16, "AVIF": 12}
"""Bytes for each pixel of decoders that take more than the picture itself."""
_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Bytes for each pixel in modes of Pillow where that is not 4."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}
_BLOCK = 2**26
"""Bytes that Pillow allocates at once: so many that no thread's heap keeps them when they are freed."""
_BAND_PIXELS = 2**17
_TWELVE_BITS = 0xFFF


class _UnusableError(Exception):
    """A file cannot be used as a picture, for the reason in the text."""


class Part(NamedTuple):
    """Part of a picture: its box, and the width and height of the whole picture that it is in pixels of."""

    box: Box
    whole: tuple[int, int]


def read_pictures(
    paths: Sequence[Path], frame: Frame, parts: Sequence[Part | None] = ()
) -> tuple[Array, dict[int, str]]:
    """Read pictures on all threads, or parts of them; several in a row of one file are decoded together.

    Grey, palette, 16-bit and CMYK pictures become RGB, transparent ones are put on white, EXIF orientation is applied,
    and of several frames or pages the first is taken. Where no number of a 16-bit picture needs more than 12 bits,
    white is 4095. In a frame of one channel all become grey, by the weights of ITU-R BT.601 for colours.

    Returns:
        Images, uint8 (N, height, width, channels), and the faults of those that cannot be used, by index.

    Raises:
        ConfigError: if Pillow is not installed.
        StorageError: if pictures of the frame's size are too large.
    """
    each, there = 7 * frame.height * frame.width, machine.memory() // 2  # as Pillow has its pixels, and as an array
    if each > there:
        size = f"{frame.height}x{frame.width} pixels would take {size_text(each)} of memory each"
        raise StorageError(f"pictures of {size}, more than {size_text(there)}")
    out = np.zeros((len(paths), *frame.shape), np.uint8)
    faults: dict[int, str] = {}
    runs = itertools.groupby(range(len(paths)), paths.__getitem__ if parts else None)
    files = [[*indices] for _, indices in runs]

    def read(file: int) -> None:
        indices = files[file]
        of_file = [parts[index] for index in indices] if parts else [None]
        with contextlib.ExitStack() as room:  # around all that may refer to what was decoded
            try:
                for index, image in zip(indices, _read(paths[indices[0]], frame, of_file, room), strict=True):
                    out[index] = image
            except _UnusableError as error:
                faults.update(dict.fromkeys(indices, str(error)))

    with _own_limits():
        engine.run(read, len(files))
    return out, dict(sorted(faults.items()))


def fit_images(images: Array, frame: Frame) -> Array:
    """Scale and crop images, uint8 (N, H, W, 1 or 3), as pictures of their size are.

    Returns:
        Images, uint8 (N, height, width, channels).

    Raises:
        ConfigError: if Pillow is not installed.
        DataError: if the images, or what they are to become, have other numbers of channels.
    """
    if not {images.shape[3], frame.channels} <= {1, 3}:
        raise DataError(f"images of {images.shape[3]} channels cannot become images of {frame.channels}")
    out = np.empty((len(images), *frame.shape), np.uint8)
    with _own_limits():
        from PIL import Image

        for index, image in enumerate(images):
            picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
            fitted = _fit(picture, frame, (0, 0, *picture.size)).convert("RGB" if frame.channels == 3 else "L")
            out[index] = np.asarray(fitted).reshape(frame.shape)
    return out


@contextlib.contextmanager
def _own_limits() -> Iterator[None]:
    """Load Pillow's decoders without its limit of pixels: this module knows at what size a picture is decoded."""
    require("reading pictures", "PIL", "images")
    from PIL import Image

    Image.init()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    Image.core.set_block_size(_BLOCK)  # type: ignore[attr-defined]
    _room.size = min(MEMORY, machine.memory() // 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class _Room:
    """Memory budget of pictures being decoded, shared by all threads."""

    def __init__(self) -> None:
        self.size = MEMORY
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until ``size`` bytes of the budget, at most all of it, are free; reserve them inside the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken + size <= self.size)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


_room = _Room()


def _read(path: Path, frame: Frame, parts: Sequence[Part | None], room: contextlib.ExitStack) -> list[Array]:
    from PIL import UnidentifiedImageError

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError("is not a file")
        if status.st_size == 0:
            raise _UnusableError("is empty")
        try:
            return _decode(path, frame, parts, room)
        except (UnidentifiedImageError, SyntaxError, ValueError, LookupError, struct.error):
            room.close()
            if (bare := _bare_png(path)) is None:
                raise
        return _decode(bare, frame, parts, room)
    except _UnusableError:
        raise
    except UnidentifiedImageError:
        raise _UnusableError("is not a picture in a format that can be read") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever broken files lead them to
        raise _UnusableError(_reason(error)) from None


def _decode(
    source: Path | BinaryIO, frame: Frame, parts: Sequence[Part | None], room: contextlib.ExitStack
) -> list[Array]:
    from PIL import Image

    opened = Image.open(source, formats=[name for name in _FORMATS if name in Image.OPEN])
    with contextlib.closing(opened) as picture:  # which frees its pixels too
        # A PNG whose EXIF is not at its beginning would be decoded to find it.
        turn = 1 if picture.format == "PNG" and "exif" not in picture.info else _turn(picture)
        beside = scans(picture)
        width, height = picture.size
        if turn >= 5:
            width, height = height, width
        boxes = [_box(part, width, height) for part in parts]
        # A JPEG can be decoded at a half, a quarter or an eighth of its size; twice what is needed looks the same.
        twice = 2 * max(max(frame.scale(right - left, lower - upper)) for left, upper, right, lower in boxes)
        picture.draft(None, (math.ceil(picture.width * twice), math.ceil(picture.height * twice)))
        room.enter_context(_room.take(_bytes(picture, beside, copied=turn > 1 or not _is_plain(picture))))
        upright = _rgb(picture)
        if method := _UPRIGHT[_turn(picture)]:  # a TIFF has been turned by Pillow, and says so
            upright = upright.transpose(Image.Transpose[method])
        x, y = upright.width / width, upright.height / height
        fitted = (_fit(upright, frame, (a * x, b * y, c * x, d * y)) for a, b, c, d in boxes)
        mode = "L" if frame.channels == 1 else "RGB"
        return [np.asarray(image.convert(mode)).reshape(frame.shape) for image in fitted]


def _fit(picture: "Picture", frame: Frame, part: Box) -> "Picture":
    """Scale and crop a part of a picture; one that has the size already keeps its pixels."""
    from PIL.Image import Resampling

    start_x, start_y, end_x, end_y = part
    across, down = frame.scale(end_x - start_x, end_y - start_y)
    cut = frame.width / across, frame.height / down
    left, top = start_x + (end_x - start_x - cut[0]) / 2, start_y + (end_y - start_y - cut[1]) / 2
    if across == down == 1:
        left, top = math.floor(left), math.floor(top)
        return picture.crop((left, top, left + frame.width, top + frame.height))
    box = (max(left, 0), max(top, 0), min(left + cut[0], picture.width), min(top + cut[1], picture.height))
    return picture.resize((frame.width, frame.height), Resampling.BICUBIC, box, reducing_gap=3)


def _box(part: Part | None, width: int, height: int) -> Box:
    """Box of a part in a picture of this size; all of the picture if there is none."""
    if part is None:
        return (0, 0, width, height)
    if part.whole != (width, height):
        there, meant = f"{width}x{height}", f"{part.whole[0]}x{part.whole[1]}"
        raise _UnusableError(f"has {there} pixels, upright, where its boxes are for {meant}")
    return part.box


def _bare_png(path: Path) -> BinaryIO | None:
    """Copy a PNG without chunks that its pixels do not need, such as texts and profiles; None for other files."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        bare = io.BytesIO(signature := file.read(len(_PNG)))
        if signature != _PNG:
            return None
        bare.seek(0, os.SEEK_END)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4]) + 4  # with the checksum
            if head[4:] in _PNG_CHUNKS:
                bare.write(head + file.read(min(length, size)))
            else:
                file.seek(length, os.SEEK_CUR)
    bare.seek(0)
    return bare


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    broken = isinstance(error, SyntaxError | EOFError) or any(word in str(error) for word in ("truncated", "broken"))
    return f"{'is damaged' if broken else 'cannot be decoded'} ({error})"


def _bytes(picture: "Picture", beside: int, *, copied: bool) -> int:
    """Bytes that decoding an opened picture takes, with its `scans`; _UnusableError if too many, or too slow."""
    from PIL import Image

    pixels = picture.width * picture.height
    if pixels > MOST_PIXELS:
        raise _UnusableError(
            f"has more than {MOST_PIXELS:,} pixels, which may be meant to exhaust memory; make it smaller"
        )
    file = getattr(picture, "fp")  # noqa: B009 (which Pillow's annotations hide)
    place, stored = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(place)
    if is_slow(picture, stored, Image.DECODERS):
        raise _UnusableError("is large for a kind that takes seconds for a million pixels; save it as a PNG")
    # What a decoder holds is free again when the picture is copied.
    beside += max(held(picture, stored), 4 * pixels * copied)
    size = beside + pixels * _HUNGRY.get(str(picture.format), _NARROW.get(picture.mode, 4))
    if size > _room.size:
        raise _UnusableError(
            f"takes {size / 2**20:,.0f} MiB of memory to decode, more than {_room.size / 2**20:,.0f}; make it smaller, "
            "or save it as a JPEG that is not progressive"
        )
    return size


def _turn(picture: "Picture") -> int:
    """Orientation in a picture's EXIF; 1 if there is none that makes sense."""
    with contextlib.suppress(Exception):  # whatever broken EXIF leads to: the picture may be fine
        turn = int(picture.getexif().get(_ORIENTATION, 1))
        if 1 <= turn < len(_UPRIGHT):
            return turn
    return 1


def _is_plain(picture: "Picture") -> bool:
    """True if a picture can be scaled as it is, and converted to RGB afterwards."""
    return picture.mode in ("L", "RGB") and not picture.has_transparency_data


def _rgb(picture: "Picture") -> "Picture":
    """Convert a picture to RGB, or leave it grey; band by band, so that it is in memory twice at most."""
    from PIL import Image

    if picture.mode == "F":
        raise _UnusableError("holds floating-point numbers; save it with 8 or 16 bits")
    picture.load()
    if _is_plain(picture):
        return picture
    shift = _shift(picture) if picture.mode.startswith("I") else 0
    out = Image.new("RGB", picture.size)
    for top, band in _bands(picture):
        if shift:
            band = Image.fromarray((np.asarray(band) >> shift).astype(np.uint8))
        elif picture.has_transparency_data:
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band.convert("RGBA"))
        out.paste(band.convert("RGB"), (0, top))
    return out


def _bands(picture: "Picture") -> Iterator[tuple[int, "Picture"]]:
    rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _shift(picture: "Picture") -> int:
    """Number of low bits to drop from a picture of integers, for 8 to be left."""
    extremes = [(int(part.min()), int(part.max())) for part in (np.asarray(band) for _, band in _bands(picture))]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if low < 0 or high > 0xFFFF:
        raise _UnusableError("holds integers of more than 16 bits; save it with 8 or 16")
    return 8 if high > _TWELVE_BITS else 4
