"""Changes of brightness, contrast, saturation, hue and sharpness, on planes of colour, float32 in 0..255.

Each function changes planes ``(C, N, H, W)`` in place, by the ``(N,)`` amounts of its images. All but `hue` put
factor * image + (1 - factor) * other in place of the image, where the other is black, grey or blurred: a factor of 0
leaves nothing of what it is named for, and 1 changes nothing.
"""

from collections.abc import Callable

import numpy as np

from cnnlite.data.augment.base import Pick, Spread, Transform, spread, transforms
from cnnlite.errors import OptionError
from cnnlite.utils.types import Array, Shape


def brightness(planes: Array, factor: Array) -> None:
    """Blend with black."""
    planes *= _column(factor)
    np.clip(planes, 0, 255, out=planes)


def contrast(planes: Array, factor: Array) -> None:
    """Blend with the mean of the image's grey."""
    grey = _grey(planes)
    _blend(planes, grey.reshape(len(grey), -1).mean(axis=1)[:, None, None], factor)


def saturation(planes: Array, factor: Array) -> None:
    """Blend with the image's grey."""
    _blend(planes, _grey(planes), factor)


def sharpness(planes: Array, factor: Array) -> None:
    """Blend with the image smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the border stays as it is."""
    smooth = planes.copy()
    across = planes[..., :-2] + planes[..., 1:-1] + planes[..., 2:]
    centre = smooth[..., 1:-1, 1:-1]
    centre *= 4
    centre += across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    centre /= 13
    _blend(planes, smooth, factor)


def hue(planes: Array, turn: Array) -> None:
    """Turn the hue of red, green and blue by shares of the whole circle.

    Value and chroma stay as they are (Smith 1978, "Color gamut transform pairs"). With the hue h in sixths of the
    circle, k = (n + h) mod 6, and n = 5, 3 and 1, a colour is value - chroma * min(1, max(0, min(k, 4 - k))).
    """
    red, green, blue = planes
    value = planes.max(axis=0)
    chroma = value - planes.min(axis=0)
    safe = np.maximum(chroma, np.float32(1e-6))
    sixths = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, (blue - red) / safe + np.float32(2), (red - green) / safe + np.float32(4)),
    )
    sixths += _column(6 * turn)
    for plane, n in zip(planes, (5, 3, 1), strict=True):
        k = sixths + np.float32(n)
        k -= 6 * np.floor(k / np.float32(6))
        np.subtract(value, chroma * np.clip(np.minimum(k, 4 - k), 0, 1), out=plane)


def _grey(planes: Array) -> Array:
    """Luma of red, green and blue (ITU-R BT.601), or else the mean of the channels, ``(N, H, W)``."""
    if len(planes) == 3:
        red, green, blue = planes
        grey: Array = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    else:
        grey = planes.sum(axis=0) / np.float32(len(planes))
    return grey


def _blend(planes: Array, other: Array, factor: Array) -> None:
    share = _column(factor)
    other = other * (1 - share)
    planes *= share
    planes += other
    np.clip(planes, 0, 255, out=planes)


def _column(amounts: Array) -> Array:
    """Amounts of N images to multiply with their planes, float32 ``(N, 1, 1)``."""
    return amounts.astype(np.float32)[:, None, None]


def to_planes(images: Array) -> Array:
    """Planes of uint8 images ``(N, H, W, C)``, float32 ``(C, N, H, W)``."""
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2), np.float32)


def to_images(planes: Array) -> Array:
    """Images of planes, each value rounded to the nearest byte: uint8 ``(N, H, W, C)``."""
    planes += np.float32(0.5)
    return np.ascontiguousarray(planes.transpose(1, 2, 3, 0).astype(np.uint8))


_CHANGES: dict[str, Callable[[Array, Array], None]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}


@transforms.register("color_jitter")
class ColorJitter(Transform):
    """Changes brightness, contrast, saturation and hue of each image, in random order.

    As torchvision's ColorJitter, where values become whole numbers after each of the changes, and are cut off; here
    they are rounded, once, at the end. Factors of 0 make the image black, grey all over, or grey; 1 changes nothing.

    Args:
        brightness: largest distance of the factor from 1, or [least, largest].
        contrast: the same.
        saturation: the same; it needs images of three channels, red, green and blue.
        hue: largest turn either way, up to 0.5, half of the circle of colours, or [least, largest]; as ``saturation``.
    """

    def __init__(self, brightness: Spread = 0.0, contrast: Spread = 0.0, saturation: Spread = 0.0, hue: Spread = 0.0):
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        bounds = {name: spread(value, name, 1.0, 0.0) for name, value in factors.items()}
        bounds["hue"] = spread(hue, "hue", 0.0, -0.5, 0.5)
        self._bounds = {name: pair for name, pair in bounds.items() if pair != (float(name != "hue"),) * 2}
        if not self._bounds:
            raise ValueError(
                "changes nothing: give it brightness, contrast, saturation or hue, such as brightness: 0.4"
            )

    def out_shape(self, shape: Shape) -> Shape:
        for name in ("saturation", "hue"):
            if name in self._bounds and shape[-1] != 3:
                channels = f"{shape[-1]} channel{'s' * (shape[-1] != 1)}"
                raise OptionError(f"needs images of red, green and blue, not of {channels}; leave it out", name)
        return shape

    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        amounts = [rng.uniform(low, high, len(pick)) for low, high in self._bounds.values()]
        order = rng.permuted(np.tile(np.arange(len(amounts)), (len(pick), 1)), axis=1)
        return np.concatenate([np.transpose(amounts), order], axis=1)  # (N, 2k): amounts, and which comes when

    def apply(self, images: Array, options: Array) -> Array:
        planes = to_planes(images)
        amounts, order = np.split(options, 2, axis=1)
        for place in order.T:
            for number, name in enumerate(self._bounds):
                which = np.flatnonzero(place == number)
                if len(which):
                    chosen = planes[:, which]
                    _CHANGES[name](chosen, amounts[which, number])
                    planes[:, which] = chosen
        return to_images(planes)
