"""Rules about single classes: those that are never predicted, and those with few images to train on."""

from collections.abc import Sequence

from cnnlite.tools.report.rules import CHANCE, Evidence, Judgement, rule
from cnnlite.utils.printable import one_line

UNEQUAL = 5
"""Training images of the most frequent class for each of the rarest, from which on classes are called unequal."""
SEEN = 5
"""Validation images of a class from which on it counts as missing if none is predicted as it."""
_NAMED = 4


@rule(
    f"a class of at least {SEEN} validation images that the best checkpoint never predicted, though its accuracy was "
    f"{CHANCE:g} times that of guessing or more",
    yields_to=["diverged", "learns_nothing"],
)
def never_predicted(evidence: Evidence) -> Judgement:
    """Find classes that the network does not use at all."""
    found, counts = evidence.validated, evidence.class_counts
    if found is None or found.accuracy < CHANCE / len(found.images):
        return None
    missing = [k for k, images in enumerate(found.images) if images >= SEEN and not found.predicted[k]]
    if not missing:
        return None
    named = ", ".join(
        f"{one_line(evidence.names[k], 40)} (0 of {found.images[k]:,}"
        f"{f', {counts[k]:,} to train on' if counts else ''})"
        for k in missing[:_NAMED]
    )
    more = f" and {len(missing) - _NAMED} more" * (len(missing) > _NAMED)
    text = f"No validation image at all was predicted as {named}{more}. "
    if counts and _ratio(counts) >= UNEQUAL and _is_plain(evidence):
        text += "They have few training images, so that the loss hardly notices them; batches can make up for that."
        return "Some classes are never predicted", text, _remedy(evidence)
    text += (
        "The network has come to use the others in their place: `cnnlite report` shows which they are taken for. "
        "Labels that are mixed up look like this, and so does a training that is too short."
    )
    return "Some classes are never predicted", text, (evidence.longer(),)


@rule(
    f"the most frequent class has at least {UNEQUAL} times as many training images as the rarest, and neither "
    "data.sampling nor class_weights make up for it",
    yields_to=["diverged", "learns_nothing", "never_predicted"],
)
def unequal_classes(evidence: Evidence) -> Judgement:
    """Find data in which accuracy speaks of the frequent classes alone."""
    found, counts = evidence.validated, evidence.class_counts
    if not counts or _ratio(counts) < UNEQUAL or not _is_plain(evidence):
        return None
    with_images = [k for k, count in enumerate(counts) if count]
    rarest, most = (pick(with_images, key=counts.__getitem__) for pick in (min, max))
    text = (
        f"There are {counts[rarest]:,} images of {one_line(evidence.names[rarest], 40)} to train on, and "
        f"{counts[most]:,} of {one_line(evidence.names[most], 40)}: rare classes hardly count in loss and accuracy. "
    )
    if found is not None:
        text += (
            f"At the best validation it was {found.accuracy:.1%}; the mean of the classes, the balanced accuracy, "
            f"was {found.balanced_accuracy:.1%}. "
        )
    text += "If they matter as much as the others, show them as often, and choose the best checkpoint by macro F1."
    return "Some classes have few images to learn from", text, _remedy(evidence)


def _ratio(counts: Sequence[int]) -> float:
    """Return how many images the most frequent class has for each of the rarest with any."""
    return max(counts) / min(count for count in counts if count) if any(counts) else 1.0


def _is_plain(evidence: Evidence) -> bool:
    """Return True if nothing in the config makes up for unequal classes."""
    config = evidence.record.config
    return config.data.sampling == "shuffled" and getattr(config.train.loss, "class_weights", None) is None


def _remedy(evidence: Evidence) -> list[str]:
    overrides = ["data.sampling=balanced"]
    if evidence.validated is not None and evidence.record.config.train.monitor == "accuracy":
        overrides.append("train.monitor=macro_f1")
    return overrides
