"""Evaluates networks on images that they do not train on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cnnlite.data import Chosen, Images, Normalizer, Views, as_seen, views_of
from cnnlite.errors import ConfigError, DataError, DivergedError
from cnnlite.nn.losses import Loss
from cnnlite.nn.network import Network
from cnnlite.runs.metrics import ConfusionMatrix, Mean
from cnnlite.runs.restore import load_data, load_network
from cnnlite.runtime import distributed, engine
from cnnlite.runtime.team import Team
from cnnlite.utils.types import Array

BATCH_SIZE = 250
"""The same everywhere, but less for large images: the last bits of a matrix product may depend on its size."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics over a set of images; accuracies are fractions."""

    images: int
    accuracy: float
    loss: float
    per_class: dict[str, float | None]
    """Accuracy on the images of each class; None for a class without images."""
    confusion: list[list[int]]
    """Counts, by true class (row) and predicted class."""


def evaluate(
    network: Network,
    images: Images | Chosen,
    normalizer: Normalizer,
    loss: Loss,
    classes: Sequence[str],
    *,
    views: Views = "none",
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate the network on all images.

    The logits of an image are the mean over its ``views``. ``check`` is called after each batch and may raise to end
    early. Ranks share the batches, and add up the results in the order of the images, so that the number of ranks does
    not change a bit.

    Raises:
        DivergedError: If the loss is not finite.
    """
    part = evaluate_part(network, images, normalizer, loss, classes, views=views, check=check)
    return combined(distributed.current().allgather(part), classes)


Part: TypeAlias = tuple[list[tuple[float, int]], Array]
"""Sum of losses and number of images of some batches, and counts as in `Evaluation.confusion`."""


def evaluate_part(
    network: Network,
    images: Images | Chosen,
    normalizer: Normalizer,
    loss: Loss,
    classes: Sequence[str],
    *,
    views: Views = "none",
    check: Callable[[], None] = lambda: None,
    workers: Team | None = None,
) -> Part:
    """Evaluate the network on the batches that this process computes, of those of all ranks and their ``workers``."""
    size, ranks, team = network.at_once(BATCH_SIZE), distributed.current(), workers or Team()
    total, processes = -(-len(images) // size), ranks.size * team.size
    first, last = engine.even(total, processes)[ranks.rank * team.size + team.index]
    losses: list[tuple[float, int]] = []
    own = ConfusionMatrix(len(classes))
    with np.errstate(all="ignore"):
        for start in range(first * size, last * size, size):
            part = images.take(slice(start, start + size))
            labels, logits = part.labels, mean_logits(network, part.images, normalizer, views)
            losses.append((loss.loss_and_gradient(logits, labels)[0] * len(labels), len(labels)))
            own.add(labels, logits.argmax(axis=1))
            check()
    for _ in range(-(-total // processes) - (last - first)):
        check()  # as often as on the other ranks
    return losses, own.counts


def combined(parts: Sequence[Part], classes: Sequence[str]) -> Evaluation:
    """Combine the parts of all processes, in the order of the images; see `evaluate`."""
    confusion, mean = ConfusionMatrix(len(classes)), Mean()
    for found, counts in parts:
        confusion.counts += counts
        for batch_loss, count in found:
            mean.add(batch_loss, count)
    if mean.value is None or confusion.accuracy is None:
        raise ConfigError("there are no images to evaluate")
    if not math.isfinite(mean.value):
        raise DivergedError("the loss in evaluation is not finite: the parameters have grown too large")
    per_class = dict(zip(classes, confusion.per_class(), strict=True))
    return Evaluation(mean.count, confusion.accuracy, mean.value, per_class, confusion.counts.tolist())


def mean_logits(network: Network, images: Array, normalizer: Normalizer, views: Views) -> Array:
    """Return the logits for a batch of uint8 images ``(N, H, W, C)``, averaged over their views."""
    sides = views_of(images, views)
    return np.asarray(sum(weight * network.forward(normalizer(x), training=False) for weight, x in sides))


def evaluate_checkpoint(
    path: Path, split: str, root: str | None = None, views: Views | None = None
) -> tuple[Evaluation, dict[str, Any], list[str]]:
    """Evaluate a checkpoint on one split of its dataset.

    ``root`` overrides the folder of the dataset, ``views`` those of the checkpoint's config.

    Returns:
        The evaluation, the same as an object for JSON, and warnings.
    """
    checkpoint, config, network, normalizer, classes = load_network(path)
    dataset = load_data(config, root, classes)
    if dataset.classes != classes or dataset.train.images.shape[1:] != network.in_shape:
        raise DataError(f"{path}: was trained on other classes or image sizes than {dataset.name} has here")
    warnings: list[str] = []
    images: Images | Chosen | None = getattr(dataset, split)
    if checkpoint.fact("dataset", dict).get("digest") != dataset.digest:
        images, changes = as_seen(dataset, checkpoint.part("seen"), split)
        warnings.append(f"the images of {dataset.name} here are not those that {path} was trained on: {changes}")
    images = split_of(dataset.name, split, images)
    found = evaluate(network, images, normalizer, config.train.loss, classes, views=views or config.train.tta)
    return found, {"checkpoint": str(path), "dataset": dataset.name, "split": split, **asdict(found)}, warnings


def split_of(dataset: str, split: str, images: Images | Chosen | None) -> Images | Chosen:
    """Return the images of the split called ``split``; ConfigError if there are none."""
    if images is None or not len(images):
        raise ConfigError(f"{dataset} has no {split} images under the config of this checkpoint (data.validation)")
    return images


def describe(found: Evaluation, images: str) -> str:
    """Format an evaluation as text; ``images`` names the images."""
    counted = "1 image" if found.images == 1 else f"{found.images:,} images"
    lines = [f"{images}: {counted}, accuracy {found.accuracy:.2%}, loss {found.loss:.4f}"]
    width = max(map(len, found.per_class))
    for name, accuracy in found.per_class.items():
        lines.append(f"  {name:{width}}  " + ("no images" if accuracy is None else f"{accuracy:7.2%}"))
    return "\n".join(lines)
