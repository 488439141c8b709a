"""Preview of a training step: its images as the network gets them, with their labels."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.config.load import Config
from cnnlite.data import Dataset
from cnnlite.errors import ConfigError
from cnnlite.tools.lettering import caption
from cnnlite.tools.report.tiles import enlarge, mosaic, rgb
from cnnlite.training.loop import batches_of
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import one_line
from cnnlite.utils.types import Array

_TILE = 96
"""Smallest side of a picture on the sheet, in pixels: as wide as the names of most classes."""
_SHEET = 1200
"""Width of the sheet in pixels, unless a single picture is wider."""


@dataclass(frozen=True)
class Preview:
    """The first images of a training step."""

    step: int
    """Number of the step, counted from 0."""
    epoch: int
    """Number of the epoch, counted from 1."""
    batch_size: int
    images: Array
    """uint8 ``(N, H, W, C)``: augmented and mixed, but with the normalization undone."""
    sources: Array
    """Indices of the training images that each is made of, int64 ``(N, 1)``, or ``(N, 2)`` where images are mixed."""
    labels: list[dict[str, float]]
    """Classes of each image with their shares, the largest first."""
    names: list[list[str]] = field(default_factory=list)
    """Names of the ``sources`` of each image, such as paths of pictures; none if the dataset's images have none."""

    def describe(self) -> str:
        """Return a line for each image: the training images that it is made of, and its label."""
        shown = f"{len(self.images)} of its {self.batch_size}" if len(self.images) < self.batch_size else "its"
        lines = [f"step {self.step:,}, in epoch {self.epoch:,}: {shown} images"]
        known = self.names or [[f"{index:,}" for index in sources] for sources in self.sources.tolist()]
        for number, (names, label) in enumerate(zip(known, self.labels, strict=True), 1):
            made_of = f"training image{'s' * (len(names) > 1)} {' and '.join(names)}"
            lines.append(f"{number:4}  {made_of}: {', '.join(_shares(label))}")
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """Return all but the pixels, as an object for JSON."""
        names = self.names or [[] for _ in self.labels]
        images = zip(self.sources.tolist(), names, self.labels, strict=True)
        return {
            "step": self.step,
            "epoch": self.epoch,
            "batch_size": self.batch_size,
            "images": [{"sources": sources, "names": names, "labels": labels} for sources, names, labels in images],
        }

    def sheet(self) -> Array:
        """Draw the images in rows, each above its label: pixels (H, W, 4)."""
        lines = max(map(len, self.labels))
        tiles = []
        for image, label in zip(self.images, self.labels, strict=True):
            tile = enlarge(rgb(image), _TILE)
            words = [*_shares(label), "", ""][:lines]
            tiles.append(np.concatenate([tile, *(caption(word, tile.shape[1]) for word in words)]))
        across = max(1, _SHEET // tiles[0].shape[1])
        return mosaic(tiles, min(across, math.ceil(math.sqrt(len(tiles)))))


def preview(config: Config, dataset: Dataset, step: int, count: int) -> Preview:
    """Make the first ``count`` images of training step ``step``, counted from 0.

    Raises:
        ConfigError: If the training has no such step, or batches and augmentation do not fit the images.
    """
    with config.located():
        batches = batches_of(config, dataset)
    total = config.train.total_steps(batches.steps_per_epoch)
    if step >= total:
        raise ConfigError(f"{Argument('step', str(step))}: the training has the steps 0 to {total - 1:,}")
    part = slice(count)
    x, targets = batches.batch(step, part)
    if targets.ndim == 1:  # labels
        targets = np.eye(len(dataset.classes), dtype=np.float32)[targets]
    sources = batches.sources(step)[part]
    names = config.data.dataset.names(Path(config.data.root), sources.ravel().tolist())
    return Preview(
        step,
        step // batches.steps_per_epoch + 1,
        batches.size(step),
        batches.normalizer.undo(x),
        sources,
        [_label(shares, dataset.classes) for shares in targets],
        np.array(names, str).reshape(-1, sources.shape[1]).tolist(),
    )


def _label(shares: Array, classes: tuple[str, ...]) -> dict[str, float]:
    order = np.argsort(-shares, kind="stable")
    return {classes[k]: float(shares[k]) for k in order if shares[k] > 0}


def _shares(label: dict[str, float]) -> list[str]:
    """Return the names of classes, with their shares where there are several."""
    if len(label) == 1:
        return [one_line(name, 40) for name in label]
    return [f"{share:.0%} {one_line(name, 40)}" for name, share in label.items()]
