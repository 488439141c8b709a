"""Arrays of a page in one string of base64, and the list of their places in it."""

import base64

import numpy as np

from cnnlite.utils.types import Array


class Numbers:
    """Float32 arrays of a page; facts about the network refer to them by their numbers."""

    def __init__(self) -> None:
        self.shapes: list[list[int]] = []
        """Shape of each array; they follow one another."""
        self._parts: list[bytes] = []

    def add(self, array: Array) -> int:
        """Add an array and return its number."""
        self.shapes.append(list(array.shape))
        self._parts.append(np.ascontiguousarray(array, "<f4").tobytes())
        return len(self.shapes) - 1

    def text(self) -> str:
        """Return all numbers, little endian, in base64."""
        return base64.b64encode(b"".join(self._parts)).decode()


def planar(y: Array, channels: Array) -> Array:
    """Return the maps of ``channels`` one after the other: (H, W, C) -> (channels, H, W), (C,) -> (channels,)."""
    return y[channels] if y.ndim == 1 else np.moveaxis(y[..., channels], -1, 0)
