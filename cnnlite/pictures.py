"""Pictures from files: decoded, upright, in RGB and of one size. The only room that uses Pillow."""

import contextlib
import math
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnlite import engine
from cnnlite.errors import missing_extra
from cnnlite.types import Array

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
)  # fmt: skip
"""What the names of pictures end in; the content alone tells which format it is."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
"""The decoders that are tried: not those that run other programs (EPS) or that nobody keeps photographs in."""

_ORIENTATION = 0x0112
_UPRIGHT = (
    None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"
)  # fmt: skip
"""What turns a picture upright, by the number that EXIF 2.3 gives its orientation; from 5 on sides are swapped."""


class _UnusableError(Exception):
    """Why a file cannot be used as a picture."""


@dataclass(frozen=True)
class Frame:
    """How a picture of any size becomes one of ``height`` x ``width`` pixels.

    The shorter side is scaled to ``shorter`` pixels, or as far as the picture still covers the frame, and the centre is
    cut out; with ``stretch`` all of the picture is scaled to the frame, whatever its proportions.
    """

    height: int
    width: int
    shorter: int | None = None
    stretch: bool = False

    def scale(self, width: int, height: int) -> tuple[float, float]:
        """Pixels of the frame for each pixel of a picture, across and down."""
        if self.stretch:
            return self.width / width, self.height / height
        cover = max(self.width / width, self.height / height)
        if self.shorter is not None:
            cover = max(cover, self.shorter / min(width, height))
        return cover, cover

    def fit(self, picture: "Picture") -> "Picture":
        """Scale and cut an RGB picture; one that has the size already keeps its pixels."""
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
    """Read pictures on all threads: uint8 (N, height, width, 3), and what is wrong with those that cannot be used.

    Grey, palette, 16-bit and CMYK pictures become RGB, transparent ones lie on white, EXIF orientation is respected,
    and of several frames or pages the first is taken. ConfigError if Pillow is not installed.
    """
    out = np.zeros((len(paths), frame.height, frame.width, 3), np.uint8)
    faults: dict[int, str] = {}

    def read(index: int) -> None:
        try:
            out[index] = _read(paths[index], frame)
        except _UnusableError as error:
            faults[index] = str(error)

    with _strict():
        engine.run(read, len(paths))
    return out, dict(sorted(faults.items()))


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Load Pillow's decoders, and let it raise what it only warns of: pictures too large to be meant."""
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("reading pictures", "images") from None
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _read(path: Path, frame: Frame) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError("is not a file")
        if status.st_size == 0:
            raise _UnusableError("is empty")
        with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as picture:
            turn = _turn(picture)
            width, height = picture.size
            if turn >= 5:
                width, height = height, width
            # A JPEG can be decoded at a half, a quarter or an eighth of its size; twice what is needed looks the same.
            twice = 2 * max(frame.scale(width, height))
            picture.draft(None, (math.ceil(picture.width * twice), math.ceil(picture.height * twice)))
            upright = _rgb(picture)
            if method := _UPRIGHT[turn]:
                upright = upright.transpose(Image.Transpose[method])
            return np.asarray(frame.fit(upright))
    except _UnusableError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _UnusableError(
            f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may be meant to exhaust memory; make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise _UnusableError("is not a picture in a format that can be read") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever broken files lead them to
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"is damaged ({error})"
        raise _UnusableError(reason) from None


def _turn(picture: "Picture") -> int:
    """The orientation in a picture's EXIF, 1 if it says nothing that makes sense."""
    with contextlib.suppress(Exception):  # whatever broken EXIF leads to: the picture may be fine
        turn = int(picture.getexif().get(_ORIENTATION, 1))
        if 1 <= turn < len(_UPRIGHT):
            return turn
    return 1


def _rgb(picture: "Picture") -> "Picture":
    from PIL import Image

    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise _UnusableError("holds integers of more than 16 bits; save it with 8 or 16")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise _UnusableError("holds floating-point numbers; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")
