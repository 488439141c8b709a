"""Pictures made of pixels: tiles side by side, as PNG files."""

from collections.abc import Sequence

import numpy as np

from cnnlite.nn.filters import Filters
from cnnlite.tools.report.inside import Occlusion, Stage
from cnnlite.utils.types import Array

MOST_FILTERS = 64
_TILE = 64
"""Smallest side of enlarged tiles, in pixels."""
_GAP = 6


def rgb(image: Array) -> Array:
    """Return the colours of an image, uint8 (H, W, C): red, green, blue, or its first channel as grey."""
    return np.ascontiguousarray(image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1))


def enlarge(image: Array, side: int = _TILE) -> Array:
    """Repeat pixels (H, W, 3) until the longer side has at least ``side`` of them."""
    factor = max(1, -(-side // max(image.shape[:2])))
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def mosaic(tiles: Sequence[Array], columns: int) -> Array:
    """Lay out tiles, uint8 (h, w, 3), in rows of ``columns``, each centered in its cell.

    Returns:
        uint8 (H, W, 4), transparent between the tiles.
    """
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    canvas = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 4), np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top = row * (height + _GAP) + (height - tile.shape[0]) // 2
        left = column * (width + _GAP) + (width - tile.shape[1]) // 2
        place = canvas[top : top + tile.shape[0], left : left + tile.shape[1]]
        place[..., :3], place[..., 3] = tile, 255
    return canvas


def stretched(values: Array) -> Array:
    """Return values scaled to 0..1 from lowest to highest; all 0 if they are equal."""
    low, high = float(values.min()), float(values.max())
    scaled: Array = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    return scaled


def heat(values: Array) -> Array:
    """Return colours, uint8 (H, W, 3), for values in 0..1 of shape (H, W)."""
    from matplotlib import colormaps

    return np.round(255 * np.asarray(colormaps["magma"](values))[..., :3]).astype(np.uint8)


def filters_picture(filters: Filters) -> Array:
    """Draw the first filters, each with its own contrast and 0 as middle grey; one channel is grey."""
    tiles = []
    for weights in filters.weights[:MOST_FILTERS]:
        scale = float(np.abs(weights).max()) or 1.0
        pixels = np.round(127.5 + 127.5 * weights / scale).astype(np.uint8)
        tiles.append(enlarge(rgb(pixels), 3 * _TILE // 4 if not filters.whole else _TILE))
    return mosaic(tiles, 8 if not filters.whole else 5)


def stage_picture(stage: Stage, images: Sequence[Array]) -> Array:
    """Draw a row for each image: the image, then its maps, each channel with one scale for all images."""
    scaled = np.stack([stretched(stage.maps[:, channel]) for channel in range(stage.maps.shape[1])], axis=1)
    tiles = []
    for image, maps in zip(images, scaled, strict=True):
        tiles.append(enlarge(rgb(image)))
        tiles += [enlarge(heat(values)) for values in maps]
    return mosaic(tiles, 1 + len(scaled[0]))


def occlusion_picture(image: Array, found: Occlusion) -> Array:
    """Draw the image, uint8 (H, W, C), and beside it the image lit where the prediction needs it."""
    needed = stretched(np.maximum(found.drop, 0))[..., None]
    lit = np.round(rgb(image) * (0.15 + 0.85 * needed)).astype(np.uint8)
    return mosaic([enlarge(rgb(image), 2 * _TILE), enlarge(lit, 2 * _TILE)], 2)
