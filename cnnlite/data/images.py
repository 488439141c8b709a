"""Pictures from files: decoded, upright, in RGB and of one size. The only module that uses Pillow."""

import contextlib
import io
import math
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cnnlite.data.decoders import held, is_slow
from cnnlite.errors import DataError, StorageError, missing_extra
from cnnlite.runtime import engine, machine
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
_START_OF_SCAN = 0xDA
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}
_BLOCK = 2**26
"""Bytes that Pillow allocates at once: so many that no thread's heap keeps them when they are freed."""
_BAND_PIXELS = 2**17
_TWELVE_BITS = 0xFFF


class _UnusableError(Exception):
    """A file cannot be used as a picture, for the reason in the text."""


@dataclass(frozen=True)
class Frame:
    """Scaling and cropping of pictures of any size to ``height`` x ``width`` pixels.

    The shorter side is scaled to ``shorter`` pixels, or as far as the picture still covers the frame, and the centre is
    cut out; with ``stretch`` all of the picture is scaled to the frame, whatever its proportions.
    """

    height: int
    width: int
    shorter: int | None = None
    stretch: bool = False

    def scale(self, width: int, height: int) -> tuple[float, float]:
        """Scale factors from a picture to the frame, across and down."""
        if self.stretch:
            return self.width / width, self.height / height
        cover = max(self.width / width, self.height / height)
        if self.shorter is not None:
            cover = max(cover, self.shorter / min(width, height))
        return cover, cover

    def fit(self, picture: "Picture") -> "Picture":
        """Scale and crop an RGB picture; one that has the size already keeps its pixels."""
        from PIL.Image import Resampling

        across, down = self.scale(*picture.size)
        cut = self.width / across, self.height / down
        left, top = ((size - part) / 2 for size, part in zip(picture.size, cut, strict=True))
        if across == down == 1:
            left, top = math.floor(left), math.floor(top)
            return picture.crop((left, top, left + self.width, top + self.height))
        box = (max(left, 0), max(top, 0), min(left + cut[0], picture.width), min(top + cut[1], picture.height))
        return picture.resize((self.width, self.height), Resampling.BICUBIC, box, reducing_gap=3)


def read_pictures(paths: Sequence[Path], frame: Frame) -> tuple[Array, dict[int, str]]:
    """Read pictures on all threads.

    Grey, palette, 16-bit and CMYK pictures become RGB, transparent ones are put on white, EXIF orientation is applied,
    and of several frames or pages the first is taken. Where no number of a 16-bit picture needs more than 12 bits,
    white is 4095.

    Returns:
        Images, uint8 (N, height, width, 3), and the faults of those that cannot be used, by index.

    Raises:
        ConfigError: if Pillow is not installed.
        StorageError: if pictures of the frame's size are too large.
    """
    each, there = 7 * frame.height * frame.width, machine.memory() // 2  # as Pillow has its pixels, and as an array
    if each > there:
        size = f"{frame.height}x{frame.width} pixels would take {each / 1e9:,.1f} GB of memory each"
        raise StorageError(f"pictures of {size}, more than {there / 1e9:,.1f}")
    out = np.zeros((len(paths), frame.height, frame.width, 3), np.uint8)
    faults: dict[int, str] = {}

    def read(index: int) -> None:
        with contextlib.ExitStack() as room:  # around all that may refer to what was decoded
            try:
                out[index] = _read(paths[index], frame, room)
            except _UnusableError as error:
                faults[index] = str(error)

    with _own_limits():
        engine.run(read, len(paths))
    return out, dict(sorted(faults.items()))


def fit_images(images: Array, frame: Frame, channels: int) -> Array:
    """Scale and crop images, uint8 (N, H, W, 1 or 3), as pictures of their size are, to so many channels.

    Returns:
        Images, uint8 (N, height, width, channels).

    Raises:
        ConfigError: if Pillow is not installed.
        DataError: if the images, or what they are to become, have other numbers of channels.
    """
    if not {images.shape[3], channels} <= {1, 3}:
        raise DataError(f"images of {images.shape[3]} channels cannot become images of {channels}")
    out = np.empty((len(images), frame.height, frame.width, channels), np.uint8)
    with _own_limits():
        from PIL import Image

        for index, image in enumerate(images):
            picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
            fitted = frame.fit(picture).convert("RGB" if channels == 3 else "L")
            out[index] = np.asarray(fitted).reshape(out.shape[1:])
    return out


@contextlib.contextmanager
def _own_limits() -> Iterator[None]:
    """Load Pillow's decoders without its limit of pixels: this module knows at what size a picture is decoded."""
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("reading pictures", "images") from None
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


def _read(path: Path, frame: Frame, room: contextlib.ExitStack) -> Array:
    from PIL import UnidentifiedImageError

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError("is not a file")
        if status.st_size == 0:
            raise _UnusableError("is empty")
        try:
            return _decode(path, frame, room)
        except (UnidentifiedImageError, SyntaxError, ValueError, LookupError, struct.error):
            room.close()
            if (bare := _bare_png(path)) is None:
                raise
        return _decode(bare, frame, room)
    except _UnusableError:
        raise
    except UnidentifiedImageError:
        raise _UnusableError("is not a picture in a format that can be read") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever broken files lead them to
        raise _UnusableError(_reason(error)) from None


def _decode(source: Path | BinaryIO, frame: Frame, room: contextlib.ExitStack) -> Array:
    from PIL import Image

    opened = Image.open(source, formats=[name for name in _FORMATS if name in Image.OPEN])
    with contextlib.closing(opened) as picture:  # which frees its pixels too
        # A PNG whose EXIF is not at its beginning would be decoded to find it.
        turn = 1 if picture.format == "PNG" and "exif" not in picture.info else _turn(picture)
        scans = _scans(picture)
        width, height = picture.size
        if turn >= 5:
            width, height = height, width
        # A JPEG can be decoded at a half, a quarter or an eighth of its size; twice what is needed looks the same.
        twice = 2 * max(frame.scale(width, height))
        picture.draft(None, (math.ceil(picture.width * twice), math.ceil(picture.height * twice)))
        room.enter_context(_room.take(_bytes(picture, scans, copied=turn > 1 or not _is_plain(picture))))
        upright = _rgb(picture)
        if method := _UPRIGHT[_turn(picture)]:  # a TIFF has been turned by Pillow, and says so
            upright = upright.transpose(Image.Transpose[method])
        return np.asarray(frame.fit(upright).convert("RGB"))


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


def _scans(picture: "Picture") -> int:
    """Bytes that a JPEG takes beside its pixels: with several scans, all coefficients, at any size of decoding."""
    layers = getattr(picture, "layer", ())  # of a JPEG: name, factors of sampling across and down, table
    if not layers:
        return 0
    file = getattr(picture, "fp")  # noqa: B009 (which Pillow's annotations hide)
    file.seek(2)
    while len(head := file.read(5)) == 5 and head[0] == 0xFF and head[1] != _START_OF_SCAN:
        file.seek(int.from_bytes(head[2:4]) - 3, os.SEEK_CUR)
    whole = head == struct.pack(">HHB", 0xFF00 + _START_OF_SCAN, 6 + 2 * len(layers), len(layers))
    if whole and "progressive" not in picture.info:
        return 0
    samples = sum(across * down for _, across, down, _ in layers)
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    return int(2 * picture.width * picture.height * samples / max(most, 1))


def _bytes(picture: "Picture", scans: int, *, copied: bool) -> int:
    """Bytes that decoding an opened picture takes, with its ``scans``; _UnusableError if too many, or too slow."""
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
    beside = scans + max(held(picture, stored), 4 * pixels * copied)
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
