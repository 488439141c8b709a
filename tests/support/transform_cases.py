"""All transforms with options that matter, and images to try them on."""

import contextlib
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Transform
from cnnlite.data.augment import Pick
from cnnlite.data.augment.affine import RandomResizedCrop, RandomRotation, RandomTranslation
from cnnlite.data.augment.colour import ColorJitter
from cnnlite.data.augment.crops import AlternatingFlip, CenterCrop, RandomCrop, RandomFlip
from cnnlite.data.augment.erasing import Cutout, RandomErasing
from cnnlite.data.augment.trivial import TrivialAugmentWide
from cnnlite.utils.types import Array

MOVES: list[Transform] = [
    RandomFlip(),
    RandomFlip(1.0),
    AlternatingFlip(),
    RandomCrop(1),
    RandomCrop(4),
    RandomCrop(40),
    RandomCrop(1, "reflect"),
    RandomCrop(4, "reflect"),
    CenterCrop(5),
    CenterCrop(2),
]
COVERS: list[Transform] = [
    Cutout(1),
    Cutout(4, fill=0),
    Cutout(5),
    Cutout(50, fill=255),
    RandomErasing(1.0),
    RandomErasing(0.5, (0.2, 1.0), (0.5, 4.0), fill=7),
]
WARPS: list[Transform] = [
    RandomRotation(),
    RandomRotation((30.0, 200.0), "nearest", fill=9),
    RandomTranslation(),
    RandomTranslation((0.0, 1.0), fill=200),
    RandomResizedCrop(),
    RandomResizedCrop((0.5, 0.9), (0.2, 3.0), "nearest"),
]
COLOURS: list[Transform] = [
    ColorJitter(brightness=0.4),
    ColorJitter(contrast=(0.2, 3.0)),
    ColorJitter(brightness=2.0, contrast=0.5),
    ColorJitter(saturation=1.5),
    ColorJitter(hue=0.5),
    ColorJitter(0.4, 0.4, 0.4, (-0.1, 0.3)),
]
TRIVIAL: list[Transform] = [TrivialAugmentWide(), TrivialAugmentWide(5, "bilinear", fill=99)]
ALL = [*MOVES, *COVERS, *WARPS, *COLOURS, *TRIVIAL]
SHAPES = [(1, 5, 5, 1), (7, 8, 6, 3), (4, 6, 9, 2), (3, 5, 7, 4), (64, 32, 32, 3)]
"""Shapes of batches that all transforms but some of colour take."""


def named(transform: Transform) -> str:
    """The transform with its options, for the name of a test."""
    options = (str(value) for name, value in vars(transform).items() if not name.startswith("_"))
    return "-".join([type(transform).__name__, *options])


def some_images(shape: tuple[int, ...]) -> Array:
    """Images of noise, uint8."""
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def pick(count: int, shape: tuple[int, ...] = (8, 8, 3), epoch: int = 0, seed: int = 0) -> Pick:
    """A batch of the first images."""
    return Pick(np.arange(count), count, shape, epoch, seed)


def pairs(*shapes: tuple[int, ...]) -> list[Any]:
    """All transforms, each with those shapes of batches that it takes, as parameters of a test."""
    found = []
    for transform in ALL:
        for shape in shapes:
            with contextlib.suppress(ValueError):
                transform.out_shape(shape[1:])
                found.append(pytest.param(transform, shape, id=f"{named(transform)}-{shape}"))
    return found
