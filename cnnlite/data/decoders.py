"""Memory and time that decoders of pictures take, beside the picture itself."""

import math
import os
import struct
from collections.abc import Container
from typing import Any

_SLOW_PIXELS = 2**22
"""Of a picture that is decoded in Python, where a million may take 3 seconds."""
_SLOW_BYTES = 2**26
"""Of the file of such a picture, which may be mostly spaces and comments."""
_ROWS, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
_STRIP_BYTES, _TILE_BYTES = 279, 325
_BITS, _SAMPLES, _PHOTOMETRIC, _YCBCR = 258, 277, 262, 6
"""Tags of TIFF 6.0, and the colours that libtiff may turn into RGBA."""
_START_OF_SCAN = 0xDA
_SAMPLE = 6
"""Bytes for each sample of JPEG 2000: 4 of OpenJPEG, 2 in the buffer that it gives Pillow."""


def held(picture: Any, size: int) -> int:
    """Bytes that the decoder of an opened picture takes beside its pixels; ``size`` is that of the file."""
    if picture.format == "JPEG2000":
        return int(_SAMPLE * len(picture.getbands()) * picture.width * picture.height)
    if picture.format == "TIFF" and any(tile[0] == "libtiff" for tile in picture.tile):
        return _piece(picture, getattr(picture, "tag_v2", {}), size)
    return 0


def _piece(picture: Any, tags: Any, size: int) -> int:
    """A strip or tile of a TIFF, which is decoded at once: as it is in the file, and as pixels."""
    if _TILE_WIDTH in tags:
        pixels = int(tags[_TILE_WIDTH]) * int(tags.get(_TILE_LENGTH, 1))
    else:
        pixels = picture.width * min(picture.height, int(tags.get(_ROWS, picture.height)))
    bits = max(_numbers(tags.get(_BITS, 1))) * int(tags.get(_SAMPLES, 1))
    rgba = 4 * pixels if tags.get(_PHOTOMETRIC) == _YCBCR else 0
    stored = max(_numbers(tags.get(_TILE_BYTES, tags.get(_STRIP_BYTES, 0))), default=0)
    return math.ceil(pixels * bits / 8) + rgba + min(stored, size)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def is_slow(picture: Any, size: int, decoders: Container[str]) -> bool:
    """True if decoding a picture from ``size`` bytes would take many seconds; ``decoders`` are those in Python."""
    in_python = any(tile[0] in decoders for tile in picture.tile)
    return in_python and (picture.width * picture.height > _SLOW_PIXELS or size > _SLOW_BYTES)


def scans(picture: Any) -> int:
    """Bytes that a JPEG takes beside its pixels: with several scans, all coefficients, at any size of decoding."""
    layers = getattr(picture, "layer", ())  # of a JPEG: name, factors of sampling across and down, table
    if not layers:
        return 0
    file = picture.fp
    file.seek(2)
    while len(head := file.read(5)) == 5 and head[0] == 0xFF and head[1] != _START_OF_SCAN:
        file.seek(int.from_bytes(head[2:4]) - 3, os.SEEK_CUR)
    whole = head == struct.pack(">HHB", 0xFF00 + _START_OF_SCAN, 6 + 2 * len(layers), len(layers))
    if whole and "progressive" not in picture.info:
        return 0
    samples = sum(across * down for _, across, down, _ in layers)
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    return int(2 * picture.width * picture.height * samples / max(most, 1))
