"""Test-time augmentation: views of the same image, whose logits are averaged."""

from typing import Literal, TypeAlias

import numpy as np

from cnnlite.data.augment.crops import pad
from cnnlite.errors import ConfigError, Problem
from cnnlite.utils.types import Array

Views: TypeAlias = Literal["none", "mirror", "mirror_translate"]


def views_of(images: Array, views: Views) -> list[tuple[float, Array]]:
    """Make views of uint8 images ``(N, H, W, C)``, of the same shape, each with the weight of its logits.

    Weights sum to 1. ``mirror`` has the image and its mirror image, each 1/2. ``mirror_translate`` has both of the
    image (1/2), and of the image moved by one pixel down and right and by one up and left (1/4 each), with the border
    reflected (Jordan 2024, arXiv:2404.00498).

    Raises:
        ConfigError: if the images are too small to be moved.
    """
    if views == "none":
        return [(1.0, images)]
    placed = [(1.0, images)]
    if views == "mirror_translate":
        if min(images.shape[1:3]) < 2:
            height, width = images.shape[1:3]
            raise ConfigError([Problem("train.tta", f"images of {height}x{width} pixels cannot be moved by one")])
        padded = pad(images, 1, "reflect")
        placed = [(0.5, images), (0.25, padded[:, :-2, :-2]), (0.25, padded[:, 2:, 2:])]
    return [(weight / 2, side) for weight, view in placed for side in (view, np.flip(view, axis=2))]
