"""Predictions of a trained network, for arrays and image files."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.config.load import Config
from cnnlite.data import Normalizer, Views
from cnnlite.data.datasets.base import center
from cnnlite.data.frames import Frame
from cnnlite.data.images import SUFFIXES, read_pictures
from cnnlite.errors import DataError, DivergedError
from cnnlite.nn.losses import softmax
from cnnlite.nn.memory import images_at_once
from cnnlite.nn.network import Network
from cnnlite.runs.restore import load_network
from cnnlite.training.evaluation import BATCH_SIZE, mean_logits
from cnnlite.utils.printable import one_line
from cnnlite.utils.types import Array, Shape

_FILES_AT_ONCE = 64


class Model:
    """A trained network with everything needed to predict: image size, normalization, class names."""

    def __init__(self, config: Config, network: Network, normalizer: Normalizer, classes: tuple[str, ...]):
        self.config = config
        self.network = network
        self.normalizer = normalizer
        self.classes = classes
        """Names of the classes, in the order of the probabilities."""
        self.crop = config.data.center_crop
        self.views: Views = config.train.tta
        """Views of each image, whose logits are averaged."""
        height, width, channels = network.in_shape
        self.frame = config.data.dataset.frame or Frame(height, width, channels=channels)
        """Resizing of pictures of any size to the size of the dataset's images."""

    @classmethod
    def load(cls, checkpoint: Path) -> "Model":
        """Read a checkpoint; CheckpointError if it does not hold a whole network."""
        return cls(*load_network(checkpoint)[1:])

    @property
    def image_shape(self) -> Shape:
        """Height, width and channels of the images that `predict` takes, as in the dataset."""
        return (self.frame.height, self.frame.width, self.network.in_shape[2])

    def predict(self, images: Array) -> Array:
        """Return the class probabilities, float32 (N, classes), of images as in the dataset, uint8 (N, H, W, C).

        Raises:
            ValueError: If the images have another dtype or shape.
            DivergedError: If the network's outputs are not finite.
        """
        return softmax(self.logits(images, self.views))

    def logits(self, images: Array, views: Views) -> Array:
        """Return the logits, float32 (N, classes), of images as `predict` takes them, averaged over ``views``."""
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            height, width, channels = self.image_shape
            wanted = f"images must be uint8 of shape (N, {height}, {width}, {channels})"
            raise ValueError(f"{wanted}, not {images.dtype} of shape {images.shape}")
        out = np.empty((len(images), len(self.classes)), np.float32)
        with np.errstate(all="ignore"):
            size = self.network.at_once(BATCH_SIZE)
            for start in range(0, len(images), size):
                part = images[start : start + size]
                if self.crop is not None:
                    part = center(part, self.crop)
                out[start : start + size] = mean_logits(self.network, part, self.normalizer, views)
        if not np.isfinite(out).all():
            raise DivergedError("what the network gives is not finite: its parameters have grown too large")
        return out


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a picture, or the reason it could not be read."""

    image: str
    best: Sequence[tuple[str, float]] = ()
    """Class names and probabilities, highest first."""
    fault: str = ""

    def facts(self) -> dict[str, Any]:
        """Return the prediction as an object for JSON."""
        if self.fault:
            return {"image": self.image, "error": self.fault}
        return {"image": self.image, "top": [{"class": name, "probability": value} for name, value in self.best]}

    def describe(self) -> str:
        """Format the prediction as text."""
        width = max(len(name) for name, _ in self.best)
        return "\n".join([one_line(self.image), *(f"  {name:{width}}  {value:7.2%}" for name, value in self.best)])


def predict_files(model: Model, paths: Sequence[Path], top: int) -> Iterator[Prediction]:
    """Predict the ``top`` classes of picture files of any size; a folder stands for the pictures in it.

    Raises:
        DataError: If a folder has no pictures, or the network takes neither colours nor grey.
    """
    if model.image_shape[2] not in (1, 3):
        raise DataError(f"pictures have 3 channels, or 1 if grey, but this network takes {model.image_shape[2]}")
    files = [file for path in paths for file in _files(path)]
    size = images_at_once(_FILES_AT_ONCE, model.image_shape)
    for start in range(0, len(files), size):
        part = files[start : start + size]
        images, faults = read_pictures(part, model.frame)
        usable = [index for index in range(len(part)) if index not in faults]
        rows = dict(zip(usable, model.predict(images[usable]), strict=True))
        for index, file in enumerate(part):
            if index in faults:
                yield Prediction(str(file), fault=faults[index])
            else:
                order = np.argsort(-rows[index], kind="stable")[:top]
                yield Prediction(str(file), [(model.classes[k], float(rows[index][k])) for k in order])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    if not found:
        endings = f"{', '.join(SUFFIXES[:3])}, ..."
        raise DataError(f"{path}{os.sep}: holds no pictures (files that end in {endings})")
    return found
