"""Pictures as PNG files (ISO/IEC 15948), written without a library."""

import struct
import zlib

import numpy as np

from cnnlite.utils.types import Array

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""Numbers of the standard for grey, for red, green and blue, and for these with opacity."""
_UP = 2
"""Filter of the standard that subtracts the row above: where pixels are repeated, noughts are left."""


def png(pixels: Array) -> bytes:
    """Return uint8 pixels ``(H, W, C)``, with 1, 3 or 4 channels, as a PNG file."""
    height, width, channels = pixels.shape
    rows = np.full((height, 1 + width * channels), _UP, np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    rows[1:, 1:] -= rows[:-1, 1:]
    header = struct.pack(">2I5B", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
