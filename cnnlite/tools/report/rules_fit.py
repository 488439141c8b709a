"""Rules about fit: overfitting, underfitting, dead units, and metrics that are easily misread."""

import contextlib
import math

from cnnlite.errors import CnnliteError
from cnnlite.runs.restore import check_model
from cnnlite.tools.report.rules import (
    CHANCE,
    CLIMBING,
    DEAD,
    FEWEST_IMAGES,
    FEWEST_ROWS,
    GOOD,
    Evidence,
    Judgement,
    above_lowest,
    late_gain,
    points,
    rule,
)

GAP = 0.10
"""Training accuracy minus validation accuracy, above which a network overfits."""
WORSE = 0.10
"""Rise of the validation loss above its lowest, as a fraction, that is more than noise."""
AHEAD = 0.01
"""Validation accuracy minus training accuracy, above which an explanation is due."""


@rule("train.freeze keeps a part of the network as it was; a remark, without advice")
def frozen(evidence: Evidence) -> Judgement:
    """Remark that not all parameters are trained."""
    match = evidence.option("freeze")
    if match is None:
        return None
    about = "what it matches stays as it was"
    with contextlib.suppress(CnnliteError):
        if (network := check_model(evidence.record.config)) is not None:  # None where only the images tell their shape
            (about,) = network.describe_frozen()
    return "Partly frozen", f"train.freeze is {match!r}; {about}.", ()


@rule(
    f"at least {FEWEST_ROWS} rows with validation, and at the end training accuracy more than {points(GAP)} above "
    "validation accuracy (the balanced one with balanced batches) and above its 95 % interval, or a validation loss of "
    f"at least {FEWEST_IMAGES} images more than {WORSE:.0%} above its lowest, while the training loss is at its lowest"
)
def overfitting(evidence: Evidence) -> Judgement:
    """Find networks that fit the training images only."""
    column, name = evidence.comparable
    train, validation, train_losses, losses = evidence.values("train_accuracy", column, "train_loss", "validation_loss")
    if min(len(train), len(validation), len(losses), len(train_losses)) < FEWEST_ROWS:
        return None
    gap, rise = train[-1] - validation[-1], losses[-1] / max(min(losses), 1e-9) - 1
    apart = gap > GAP and train[-1] > evidence.highest_by_chance(validation[-1])
    worse = rise > WORSE and train_losses[-1] <= min(train_losses) and not evidence.few_images
    if not apart and not worse:
        return None
    text = (
        f"At the end training accuracy is {train[-1]:.1%}, {name} {validation[-1]:.1%}, and the validation "
        f"loss {above_lowest(rise)}: the network learns its training images by heart."
    )
    if not evidence.record.config.data.augment:
        return "Overfitting", text + " Augmentation makes more of them.", ("data.augment=[random_flip, random_crop]",)
    text += " Weight decay and smoothed labels hold that back."
    overrides = ["train.loss.cross_entropy.label_smoothing=0.1"] if evidence.smoothing == 0 else []
    if (decay := evidence.weight_decay) is not None:
        overrides.insert(0, f"train.optimizer.{evidence.optimizer}.weight_decay={max(4 * decay, 5e-4):g}")
    return "Overfitting", text, overrides


@rule(
    f"at least {FEWEST_ROWS} rows, training and validation accuracy below {GOOD:.0%} at the end though better than "
    f"guessing, that of training in its last quarter on average less than {points(CLIMBING)} above the quarter before, "
    f"and at most {points(GAP / 2)} above that of validation",
    yields_to=["diverged", "lr_too_high", "lr_too_low", "restless", "still_improving", "overfitting", "dead_relus"],
)
def underfitting(evidence: Evidence) -> Judgement:
    """Find networks that cannot fit their training images."""
    train, validation = evidence.values("train_accuracy", evidence.comparable[0])
    if len(train) < FEWEST_ROWS or max(train[-1:] + validation[-1:]) >= GOOD or late_gain(train) >= CLIMBING:
        return None
    if (validation and train[-1] - validation[-1] > GAP / 2) or max(train) < CHANCE / (evidence.classes or math.inf):
        return None
    text = f"Training accuracy has come to rest at {train[-1]:.1%}: the network cannot fit even what it is shown."
    if evidence.schedule == "constant":
        text += (
            " The learning rate never fell; a schedule that ends near 0 lets it settle, before the network has to grow."
        )
        return "Underfitting", text, ("train.schedule=cosine",)
    text += " It needs more channels or layers, or less that holds it back (augmentation, dropout, weight decay)."
    return "Underfitting", text, (_wider(evidence),)


def _wider(evidence: Evidence) -> str:
    """Return the override that doubles the channels of the last convolution at the top level, or else the length."""
    model = evidence.record.config.resolved["model"]
    override = evidence.longer()
    for index, layer in enumerate(model if isinstance(model, list) else []):
        if isinstance(layer, dict) and "conv2d" in layer:
            override = f"model.{index}.conv2d.out_channels={2 * layer['conv2d']['out_channels']}"
    return override


@rule(f"a ReLU layer in which more than {DEAD:.0%} of the units are 0 for all of about 1,000 images")
def dead_relus(evidence: Evidence) -> Judgement:
    """Find ReLU layers with many dead units."""
    dying = evidence.dying
    if not dying:
        return None
    named = ", ".join(f"{layer.place} ({layer.dead} of {layer.units})" for layer in dying[:4])
    text = (
        f"Units that answer to no image cannot learn any more: {named}{' and others' if len(dying) > 4 else ''}. "
        "Long steps kill units; a leaky ReLU keeps a slope on which they come back."
    )
    places = [layer.place.removesuffix(".relu").replace("[", ".").replace("]", "") for layer in dying[:4]]
    return "Dead ReLUs", text, [f"{place}=leaky_relu" for place in dict.fromkeys(places)]


@rule("label smoothing is on")
def smoothed_loss(evidence: Evidence) -> Judgement:
    """Find losses that cannot reach 0 because of label smoothing."""
    (losses,) = evidence.values("train_loss")
    if not evidence.smoothing or evidence.classes is None or not losses:
        return None
    floor = lowest_loss(evidence.smoothing, evidence.classes)
    text = (
        f"Labels are smoothed by {evidence.smoothing:g}, so even perfect predictions have a loss of {floor:.3f}: of "
        f"the last training loss, {losses[-1]:.3f}, only {max(losses[-1] - floor, 0):.3f} is left to gain. Compare "
        "accuracies, not losses, with runs that have another smoothing."
    )
    return "The loss cannot reach 0", text, ()


def lowest_loss(smoothing: float, classes: int) -> float:
    """Return the entropy of smoothed labels, below which no cross-entropy falls: ``-sum(q * log(q))``."""
    others = smoothing / classes
    true = 1 - smoothing + others
    return -true * math.log(true) - ((classes - 1) * others * math.log(others) if others else 0)


@rule(
    f"validation accuracy more than {points(AHEAD)} above training accuracy at the end",
    yields_to=["overfitting", "few_images"],
)
def validation_ahead(evidence: Evidence) -> Judgement:
    """Find a validation accuracy above training accuracy, which is no fault."""
    column, name = evidence.comparable
    train, validation = evidence.values("train_accuracy", column)
    if not train or not validation or validation[-1] - train[-1] <= AHEAD:
        return None
    text = (
        f"Training accuracy ({train[-1]:.1%}) is below {name} ({validation[-1]:.1%}). That is no fault: "
        "it is a mean over the steps since the last row, with augmentation, mixed images and dropout if there are "
        "any; the other is of the end alone."
    )
    return "Validation is ahead of training", text, ()


@rule(f"fewer than {FEWEST_IMAGES} validation images")
def few_images(evidence: Evidence) -> Judgement:
    """Find validation sets too small to judge by."""
    count = evidence.validating
    if count is None or not evidence.few_images:
        return None
    text = (
        f"Validation accuracy is that of {count} image{'' if count == 1 else 's'}, of which one more is worth "
        f"{points(1 / count)}: chance has a say in which checkpoint is best, and in what its curve looks like."
    )
    fraction = evidence.record.config.resolved["data"]["validation"]
    has_enough = isinstance(fraction, float) and fraction >= 0.2  # of images that are few
    return "Too few validation images to tell", text, () if has_enough else ("data.validation=0.2",)
