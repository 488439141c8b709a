"""Padding that mirrors an image at its first and last row and column, which are not repeated.

``x`` is (N, H, W, C), the padded images (N, padded_h, padded_w, C).
"""

import numpy as np

from cnnlite.nn.kernels.geometry import Windows
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


def fits(windows: Windows) -> bool:
    """True if the padding is smaller than the image, which has no more to show."""
    sizes = zip(windows.size, windows.top_left, windows.bottom_right, strict=True)
    return all(max(before, after) < size for size, before, after in sizes)


def _sources(windows: Windows, axis: int) -> Array:
    """Numbers of the pixels that padded images show along an axis: 2 1 0 1 2 ... for padding of 2."""
    size = windows.size[axis]
    places = np.abs(np.arange(windows.padded[axis]) - windows.top_left[axis])
    sources: Array = np.minimum(places, 2 * (size - 1) - places)
    return sources


def pad(x: Array, windows: Windows) -> Array:
    """Pad ``x`` as ``windows`` say."""
    rows, columns = _sources(windows, 0), _sources(windows, 1)
    padded = engine.empty((len(x), *windows.padded, x.shape[3]), x.dtype)

    def block(start: int, stop: int) -> None:
        np.take(x[start:stop][:, rows], columns, axis=2, out=padded[start:stop], mode="clip")

    engine.for_blocks(block, len(x), 2 * padded[0].nbytes)
    return padded


def pad_gradient(dpadded: Array, windows: Windows) -> Array:
    """Gradient with respect to ``x``: each pixel gets those of all places that show it."""
    (top, left), (height, width) = windows.top_left, windows.size
    dx = engine.empty((len(dpadded), height, width, dpadded.shape[3]), dpadded.dtype)

    def block(start: int, stop: int) -> None:
        image = engine.scratch("reflection.image", dpadded[start:stop].shape, dpadded.dtype)
        np.copyto(image, dpadded[start:stop])
        for axis, part in ((0, image.swapaxes(0, 1)), (1, image.swapaxes(0, 2))):
            first = windows.top_left[axis]
            for place, source in enumerate(_sources(windows, axis)):
                if place != first + source:
                    part[first + source] += part[place]
        dx[start:stop] = image[:, top : top + height, left : left + width]

    engine.for_blocks(block, len(dpadded), 2 * dpadded[0].nbytes)
    return dx
