"""Small folders of pictures, one for each class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Images
from cnnlite.data.datasets.class_folders import list_pictures
from cnnlite.data.datasets.listing import Listing
from cnnlite.data.datasets.pictures import Pictures
from cnnlite.utils.types import Array

Image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")


def write(folder: Path, images: Images, classes: tuple[str, ...]) -> None:
    """One PNG an image, named by its index."""
    for index, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        place = folder / classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:05}.png", compress_level=1)


def indices(files: list[str]) -> Array:
    return np.array([int(Path(file).stem) for file in files])


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def fill(folder: Path, count: int = 4, classes: tuple[str, ...] = ("ant", "bee"), size: int = 8) -> Path:
    """A small dataset: ``count`` pictures for each class."""
    labels = np.repeat(np.arange(len(classes)), count)
    write(folder, Images(noise(len(labels), size, size, 3, seed=len(str(folder))), labels), classes)
    return folder


def list_folder(root: Path, test_fraction: float, seed: int = 0) -> Listing[Pictures]:
    return list_pictures(root, (8, 8, 3), test_fraction, seed)
