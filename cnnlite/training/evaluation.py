"""Evaluates networks on images that they do not train on."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnlite.data import Normalizer, Sliced, Split, Views, as_seen, match, views_of
from cnnlite.errors import ConfigError, DataError, DivergedError
from cnnlite.nn.losses import Loss, softmax
from cnnlite.nn.network import Network
from cnnlite.runs import scores
from cnnlite.runs.restore import frame_of, load_network, loss_of
from cnnlite.runs.scores import Mean
from cnnlite.runtime import distributed, engine
from cnnlite.runtime.processes import way
from cnnlite.runtime.team import Team
from cnnlite.runtime.workers import Workers
from cnnlite.training.labelled import find_labelled
from cnnlite.utils.printable import one_line
from cnnlite.utils.text import aligned
from cnnlite.utils.types import Array

IMAGES_OF_A_WORKER = 1000
"""Minimum number of images for which a process is worth starting."""
BATCH_SIZE = 250
"""The same everywhere, but less for large images: the last bits of a matrix product may depend on its size."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(scores.Figures):
    """Metrics over a set of images; accuracies and the like are fractions."""

    images: int
    accuracy_interval: tuple[float, float]
    """Interval of 95 % confidence of the accuracy; see `scores.wilson`."""
    top5_accuracy: float | None
    """Fraction of images whose class is among the five most probable ones; None for at most ten classes."""
    per_class: dict[str, float | None]
    """Accuracy on the images of each class, its recall; None for a class without images."""
    precision: dict[str, float | None]
    """Fraction of the images predicted as each class that belong to it; None for a class that is never predicted."""
    confusion: list[list[int]]
    """Counts, by true class (row) and predicted class."""
    predictions: Array
    """Predicted class of each image, int64 (N,)."""

    def facts(self) -> dict[str, Any]:
        """Return the metrics as an object for JSON, without the predictions of single images."""
        return {name: value for name, value in vars(self).items() if name != "predictions"}

    def by_class(self) -> dict[str, list[int]]:
        """Return how many images there are of each class, how many of them are predicted right, and how many as it."""
        counts = np.array(self.confusion)
        found = {"images": counts.sum(axis=1), "right": counts.diagonal(), "predicted": counts.sum(axis=0)}
        return {name: numbers.tolist() for name, numbers in found.items()}


def evaluate(
    network: Network,
    images: Sliced,
    normalizer: Normalizer,
    loss: Loss,
    classes: Sequence[str],
    *,
    views: Views = "none",
    below: float = 1.0,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate the network on all images.

    The logits of an image are those of `mean_logits`. ``check`` is called after each batch and may raise to end
    early. Ranks or workers share the batches, and add up the results in the order of the images, so that their number
    does not change a bit.

    Raises:
        DivergedError: If the loss is not finite.
    """
    part = partial(evaluate_part, network, images, normalizer, loss, classes, views=views, below=below)
    ranks, threads = distributed.current(), engine.threads()
    size = min(engine.workers() or engine.most_workers(), len(images) // IMAGES_OF_A_WORKER)
    if ranks.size > 1 or size < 2 or way() != "fork":  # a process that is spawned takes as long to begin
        return combined(ranks.allgather(part(check=check)), classes)

    def share(_: int) -> list[Part]:
        team = engine.team()
        return team.exchange(part(check=check if team.index == 0 else lambda: None, workers=team))

    try:
        team = Workers(size, [share], lambda index: None)
        try:
            return combined(team.call(0, 0), classes)
        finally:
            team.close()
    except OSError:  # there can be no more processes
        return combined([part(check=check)], classes)
    finally:
        engine.set_threads(threads)


class Part(NamedTuple):
    """Evaluation of some of the images, consecutive ones."""

    losses: list[tuple[float, int]]
    """Sum of losses and number of images of each batch."""
    counts: Array
    """As in `Evaluation.confusion`."""
    predictions: Array
    """As in `Evaluation.predictions`."""
    top_hits: int
    """See `scores.top_hits`."""


def evaluate_part(
    network: Network,
    images: Sliced,
    normalizer: Normalizer,
    loss: Loss,
    classes: Sequence[str],
    *,
    views: Views = "none",
    below: float = 1.0,
    check: Callable[[], None] = lambda: None,
    workers: Team | None = None,
) -> Part:
    """Evaluate the network on the batches that this process computes, of those of all ranks and their ``workers``."""
    size, ranks, team = network.at_once(BATCH_SIZE), distributed.current(), workers or Team()
    total, processes = -(-len(images) // size), ranks.size * team.size
    first, last = engine.even(total, processes)[ranks.rank * team.size + team.index]
    losses: list[tuple[float, int]] = []
    predictions, top = [np.zeros(0, np.int64)], 0
    own = scores.ConfusionMatrix(len(classes))
    with np.errstate(all="ignore"):
        for start in range(first * size, last * size, size):
            part = images.take(slice(start, start + size))
            labels, logits = part.labels, mean_logits(network, part.images, normalizer, views, below)
            losses.append((loss.loss_and_gradient(logits, labels)[0] * len(labels), len(labels)))
            predictions.append(logits.argmax(axis=1))
            own.add(labels, predictions[-1])
            top += scores.top_hits(logits, labels)
            check()
    for _ in range(-(-total // processes) - (last - first)):
        check()  # as often as on the other ranks
    return Part(losses, own.counts, np.concatenate(predictions), top)


def combined(parts: Sequence[Part], classes: Sequence[str]) -> Evaluation:
    """Combine the parts of all processes, in the order of the images; see `evaluate`."""
    counts, mean, top5 = np.zeros((len(classes), len(classes)), np.int64), Mean(), Mean()
    for part in parts:
        counts += part.counts
        top5.add(part.top_hits, len(part.predictions))
        for batch_loss, count in part.losses:
            mean.add(batch_loss, count)
    accuracy = scores.accuracy(counts)
    if mean.value is None or accuracy is None:
        raise ConfigError("there are no images to evaluate")
    if not math.isfinite(mean.value):
        raise DivergedError("the loss in evaluation is not finite: the parameters have grown too large")
    by_class = scores.class_figures(counts, classes)
    return Evaluation(
        images=mean.count,
        accuracy=accuracy,
        accuracy_interval=scores.wilson(int(counts.trace()), mean.count),
        balanced_accuracy=scores.balanced_accuracy(counts) or 0.0,
        macro_f1=scores.macro_f1(counts) or 0.0,
        top5_accuracy=top5.value if len(classes) > 2 * scores.TOP else None,
        loss=mean.value,
        per_class={known.name: known.recall for known in by_class},
        precision={known.name: known.precision for known in by_class},
        confusion=counts.tolist(),
        predictions=np.concatenate([part.predictions for part in parts]),
    )


def mean_logits(network: Network, images: Array, normalizer: Normalizer, views: Views, below: float = 1.0) -> Array:
    """Return the logits for a batch of uint8 images ``(N, H, W, C)``, averaged over their views.

    With ``below`` under 1, an image whose most probable class has that probability or more by itself is looked at in no
    other view: of those that a network is sure of, they change hardly any (Hiverge 2025,
    https://github.com/hiverge/cifar10-speedrun).
    """

    def mean(sides: Sequence[tuple[float, Array]]) -> Array:
        return np.asarray(sum(weight * network.forward(normalizer(x), training=False) for weight, x in sides))

    if views == "none" or below >= 1:
        return mean(views_of(images, views))
    logits = network.forward(normalizer(images), training=False)
    unsure = np.flatnonzero(softmax(logits).max(axis=1) < below)
    if len(unsure):
        (weight, _), *others = views_of(images[unsure], views)
        logits[unsure] = weight * logits[unsure] + mean(others)
    return logits


def evaluate_checkpoint(
    path: Path,
    split: Split | None = None,
    root: str | None = None,
    views: Views | None = None,
    kind: str | None = None,
) -> tuple[Evaluation, dict[str, Any], list[str]]:
    """Evaluate a checkpoint on one split of its dataset, or of another.

    ``root`` overrides the folder of the dataset, ``views`` those of the checkpoint's config, for all images then; what
    ``root`` holds may be any labelled images, of the dataset called ``kind`` or what it looks like, and is matched by
    the names of classes. Without ``split``, the test images are taken, or all where nothing divides other images.

    Returns:
        The evaluation, the same as an object for JSON, and warnings.
    """
    checkpoint, config, network, normalizer, classes = load_network(path)
    frame = frame_of(config, network)
    before = checkpoint.part("seen")
    dataset, is_other = find_labelled(checkpoint, config, classes, frame, root, kind)
    warnings: list[str] = []
    images: Sliced | None
    if is_other:
        matched = match(dataset, split, classes, frame, network.in_shape, before)
        images, split, of_others, warnings = matched.images, matched.split, matched.facts(), list(matched.warnings())
    else:
        images, split, of_others = getattr(dataset, split or "test", None), split or "test", {}
        if split == "all":
            raise ConfigError(f"{dataset.name}: the network was trained on some of these images; name one split")
        if dataset.classes != classes or dataset.train.images.shape[1:] != network.in_shape:
            raise DataError(f"{path}: was trained on other classes or image sizes than {dataset.name} has here")
        if checkpoint.fact("dataset", dict).get("digest") != dataset.digest:
            images, changes = as_seen(dataset, before, split)
            warnings.append(f"the images of {dataset.name} here are not those that {path} was trained on: {changes}")
        images = split_of(dataset.name, split, images)
    loss = loss_of(checkpoint, config, len(classes))
    below = 1.0 if views else config.train.tta_below
    found = evaluate(network, images, normalizer, loss, classes, views=views or config.train.tta, below=below)
    facts = {"checkpoint": str(path), "dataset": dataset.name, "split": split, **of_others, **found.facts()}
    return found, facts, warnings


def split_of(dataset: str, split: str, images: Sliced | None) -> Sliced:
    """Return the images of the split called ``split``; ConfigError if there are none."""
    if images is None or not len(images):
        raise ConfigError(f"{dataset} has no {split} images under the config of this checkpoint (data.validation)")
    return images


def describe(found: Evaluation, images: str) -> str:
    """Format an evaluation as text; ``images`` names the images."""
    counted = "1 image" if found.images == 1 else f"{found.images:,} images"
    low, high = found.accuracy_interval
    accuracy = f"accuracy {found.accuracy:.2%} (95 %: {low:.2%} to {high:.2%})"
    others = [f"balanced accuracy {found.balanced_accuracy:.2%}, macro F1 {found.macro_f1:.2%}"]
    if found.top5_accuracy is not None:
        others.append(f"among the first five {found.top5_accuracy:.2%}")
    rows = [["class", "images", "accuracy", "precision", "F1"]]
    for known in scores.class_figures(np.array(found.confusion), list(found.per_class)):
        parts = (known.recall, known.precision, known.f1)
        rows.append([one_line(known.name, 40), f"{known.images:,}", *("-" if p is None else f"{p:.2%}" for p in parts)])
    table = textwrap.indent(aligned(rows, left=(0,)), "  ")
    return f"{images}: {counted}, {accuracy}, loss {found.loss:.4f}\n{', '.join(others)}\n{table}"
