"""Predictions of a trained network, for arrays and image files."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cnnlite.config.load import Config
from cnnlite.data import Normalizer, Views
from cnnlite.data.datasets.base import center
from cnnlite.data.datasets.tree import Tree
from cnnlite.data.images import SUFFIXES, read_pictures
from cnnlite.errors import DataError, DivergedError
from cnnlite.nn.losses import softmax
from cnnlite.nn.memory import images_at_once
from cnnlite.nn.network import Network
from cnnlite.runs.restore import frame_of, load_network
from cnnlite.training.evaluation import BATCH_SIZE, mean_logits
from cnnlite.utils.printable import one_line
from cnnlite.utils.types import Array, Shape

_FILES_AT_ONCE = 64
_NAMED = 10


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
        self.below = config.train.tta_below
        """Probability of the best class below which an image is looked at in all its views."""
        self.frame = frame_of(config, network)
        """Resizing of pictures of any size to the size of the dataset's images."""

    @classmethod
    def load(cls, checkpoint: Path) -> "Model":
        """Read a checkpoint; CheckpointError if it does not hold a whole network."""
        return cls(*load_network(checkpoint)[1:])

    @classmethod
    def fixed(cls, checkpoint: Path) -> "Model":
        """Read a checkpoint as `load` does, for predictions only: its parameters cannot be changed; `Network.fix`."""
        model = cls.load(checkpoint)
        model.network.fix()
        return model

    @property
    def image_shape(self) -> Shape:
        """Height, width and channels of the images that `predict` takes, as in the dataset."""
        return (self.frame.height, self.frame.width, self.network.in_shape[2])

    @cached_property
    def _at_once(self) -> int:
        return self.network.at_once(BATCH_SIZE)

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
            for start in range(0, len(images), self._at_once):
                part = images[start : start + self._at_once]
                if self.crop is not None:
                    part = center(part, self.crop)
                out[start : start + self._at_once] = mean_logits(self.network, part, self.normalizer, views, self.below)
        if not np.isfinite(out).all():
            raise DivergedError("what the network gives is not finite: its parameters have grown too large")
        return out


@dataclass(frozen=True)
class Prediction:
    """Probabilities of the classes of a picture, or the reason it could not be read."""

    image: str
    classes: Sequence[str] = ()
    probabilities: Sequence[float] = ()
    """In the order of the classes."""
    fault: str = ""

    def best(self, top: int) -> list[tuple[str, float]]:
        """Return the ``top`` most probable classes and their probabilities, highest first."""
        order = np.argsort(-np.asarray(self.probabilities), kind="stable")[:top]
        return [(self.classes[k], self.probabilities[k]) for k in order]


@dataclass
class Found:
    """Pictures that were asked for, in the order of the arguments and, inside folders, of their names."""

    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Messages about files in folders that are not used."""
    faults: list[str] = field(default_factory=list)
    """The first faults of pictures that cannot be read, and of folders that cannot be opened."""
    fault_count: int = 0

    def note(self, path: str, fault: str) -> None:
        """Count a fault, and keep it if it is among the first."""
        self.fault_count += 1
        if self.fault_count <= _NAMED:
            self.faults.append(one_line(f"{path}: {fault}"))

    def refuse_faults(self) -> None:
        """Raise DataError if there were faults."""
        if more := self.fault_count - len(self.faults):
            self.faults.append(f"and {more:,} more: {self.fault_count:,} in all cannot be read")
        if self.faults:
            raise DataError("\n".join(self.faults))


def find_pictures(paths: Sequence[Path]) -> Found:
    """Find the pictures that ``paths`` name: a folder stands for all in it and below; any other path for itself.

    Raises:
        DataError: If there are none in a folder, nor below it.
    """
    found = Found()
    for path in paths:
        if not os.path.isdir(path):  # which raises nothing: reading says what is wrong
            found.files.append(str(path))
            continue
        before = len(found.files) + found.fault_count
        tree = Tree(path, lambda folder, reason: found.note(str(folder), reason))
        for here, pictures, others in tree.below(""):
            found.files += (str(path / here / picture.name) for picture in pictures)
            tree.leave(others)
        found.left_out += (f"{path}: left out: {text}" for text in tree.told(hidden=True))
        if len(found.files) + found.fault_count == before:
            endings = f"{', '.join(SUFFIXES[:3])}, ..."
            raise DataError(f"{path}{os.sep}: holds no pictures (files that end in {endings}), nor do folders in it")
    return found


def predict_files(
    model: Model, found: Found, progress: Callable[[int, int], object] = lambda done, total: None
) -> Iterator[Prediction]:
    """Predict the classes of picture files of any size, a few of which are in memory at a time.

    Faults are noted in ``found``; ``progress`` takes how many of how many files are done.

    Raises:
        DataError: If the network takes neither colours nor grey.
    """
    if model.image_shape[2] not in (1, 3):
        raise DataError(f"pictures have 3 channels, or 1 if grey, but this network takes {model.image_shape[2]}")
    size = images_at_once(_FILES_AT_ONCE, model.image_shape)
    for start in range(0, len(found.files), size):
        progress(start, len(found.files))
        part = found.files[start : start + size]
        images, faults = read_pictures([Path(file) for file in part], model.frame)
        usable = [index for index in range(len(part)) if index not in faults]
        rows = dict(zip(usable, model.predict(images[usable]).tolist(), strict=True))
        for index, file in enumerate(part):
            if index in faults:
                found.note(file, faults[index])
                yield Prediction(file, fault=faults[index])
            else:
                yield Prediction(file, model.classes, rows[index])
