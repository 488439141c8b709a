"""Building blocks of rules: evidence, findings, and the list of rules."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnlite.config.load import flatten
from cnnlite.nn.losses import CrossEntropy
from cnnlite.runs.scores import wilson
from cnnlite.tools.report.inside import DeadUnits
from cnnlite.tools.report.record import ByClass, Record
from cnnlite.utils.hints import Train

FEWEST_ROWS = 4
"""Number of rows of metrics that make a trend."""
FEWEST_IMAGES = 50
"""Number of validation images from which accuracy is meaningful: one image is then worth 2 points."""
GOOD = 0.90
"""Training accuracy from which on nothing counts as missing."""
CHANCE = 1.5
"""Multiple of the accuracy of guessing, below which accuracy is no better than chance."""
CLIMBING = 0.01
"""Rise of accuracy from one quarter of the rows to the next, from which on it counts as rising."""
DEAD = 0.20
"""Fraction of a layer's units that may be dead without a finding."""


@dataclass(frozen=True)
class Evidence:
    """Evidence that the rules judge."""

    record: Record
    classes: int | None = None
    """Number of classes; None if neither the dataset's name nor a checkpoint tells."""
    dead: Sequence[DeadUnits] = ()
    validating: int | None = None
    """Number of validation images; None if unknown."""
    names: Sequence[str] = ()
    """Names of the classes; none if no checkpoint tells."""
    class_counts: Sequence[int] | None = None
    """Number of training images of each class; None if no checkpoint tells."""
    validated: ByClass | None = None
    """Numbers of each class in the validation of the best checkpoint; None if there is none, or it does not tell."""

    def option(self, place: str) -> Any:
        """Return the value at a dotted place below ``train`` in the config, or None."""
        node: Any = self.record.config.resolved["train"]
        for word in place.split("."):
            node = node.get(word) if isinstance(node, dict) else None
        return node

    @property
    def comparable(self) -> tuple[str, str]:
        """Column of the validation figure that training accuracy can be compared with, and its name.

        Balanced batches show all classes equally often, so that training accuracy is a balanced one.
        """
        if self.record.config.data.sampling == "balanced":
            return "validation_balanced_accuracy", "balanced validation accuracy"
        return "validation_accuracy", "validation accuracy"

    @property
    def few_images(self) -> bool:
        """True if there are too few validation images to tell much by."""
        return self.validating is not None and self.validating < FEWEST_IMAGES

    def highest_by_chance(self, accuracy: float) -> float:
        """Return the upper end of the 95 % interval of a validation accuracy; itself if nobody knows of how many."""
        count = self.validating
        return wilson(round(accuracy * count), count)[1] if count else accuracy

    @property
    def dying(self) -> list[DeadUnits]:
        """Layers with too many dead units, worst first."""
        return sorted((layer for layer in self.dead if layer.fraction > DEAD), key=lambda layer: -layer.fraction)

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        return str(next(iter(self.option("optimizer"))))

    def _rates(self) -> dict[str, float]:
        """Return the learning rates of the optimizer, or of all members of a composite, by place."""
        leaves = flatten(self.option("optimizer"), "train.optimizer")
        return {place: lr for place, lr in leaves.items() if place.endswith(".lr") and ".groups" not in place}

    @property
    def lr(self) -> str:
        """Learning rates of the config, as text."""
        return ", ".join(f"{lr:g}" for lr in self._rates().values())

    @property
    def weight_decay(self) -> float | None:
        """Weight decay of the config; None for a composite, whose members have their own."""
        decay = self.option(f"optimizer.{self.optimizer}.weight_decay")
        return None if decay is None else float(decay)

    @property
    def schedule(self) -> str:
        """Name of the schedule."""
        schedule = self.option("schedule")
        return str(next(iter(schedule)) if isinstance(schedule, dict) else schedule)

    @property
    def smoothing(self) -> float | None:
        """Label smoothing of the config; None if its loss has no such option."""
        loss = self.record.config.train.loss
        return loss.label_smoothing if isinstance(loss, CrossEntropy) else None

    def scaled_lr(self, factor: float) -> list[str]:
        """Return the overrides that multiply the learning rates by ``factor``."""
        return [f"{place}={lr * factor:.2g}" for place, lr in self._rates().items()]

    def longer(self) -> str:
        """Return the override that doubles the length of the training."""
        train = self.record.config.train
        if train.iterations is not None:
            return f"train.iterations={2 * train.iterations}"
        return f"train.epochs={2 * (train.epochs or 0):g}"

    def values(self, *columns: str) -> list[list[float]]:
        """Return the values of some columns of the metrics."""
        return [self.record.values(column) for column in columns]


@dataclass(frozen=True)
class Finding:
    """A finding about the curves of a run."""

    rule: str
    title: str
    text: str
    command: str = ""
    """Command to try as a remedy; empty if there is nothing to change."""


Judgement = tuple[str, str, Sequence[str]] | None
"""Title, text and overrides to try; None if the rule does not apply."""


@dataclass(frozen=True)
class Rule:
    """A rule: its name, its condition in words, and the function that judges."""

    name: str
    condition: str
    judge: Callable[[Evidence], Judgement]
    yields_to: Sequence[str] = ()
    """Rules whose advice is better if both apply: the same in other words, the opposite, or to be followed first."""
    resumes: bool = False
    """True if the advice is to resume the run, not to start a new one."""


RULES: list[Rule] = []
"""Rules in the order in which their findings are reported."""


def rule(
    condition: str, yields_to: Sequence[str] = (), *, resumes: bool = False
) -> Callable[[Callable[[Evidence], Judgement]], Callable[[Evidence], Judgement]]:
    """Register a function as a rule; ``condition`` says, with all thresholds, when it applies."""

    def register(function: Callable[[Evidence], Judgement]) -> Callable[[Evidence], Judgement]:
        RULES.append(Rule(function.__name__, condition, function, yields_to, resumes))
        return function

    return register


def finding(evidence: Evidence, applied: Rule) -> Finding | None:
    """Apply a rule, and return its finding; None if it does not apply."""
    judgement = applied.judge(evidence)
    if judgement is None:
        return None
    title, text, overrides = judgement
    path = evidence.record.path
    command: Train | str = ""
    if applied.resumes:
        command = Train({"resume": str(path)})
    elif overrides:
        command = Train({"config": str(path / "config.yaml"), "overrides": overrides})
    return Finding(applied.name, title, text, str(command))


def points(fraction: float) -> str:
    """Format a difference of two fractions: 0.1 is 10 points."""
    number = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{number} point{'' if number == '1' else 's'}"


def above_lowest(rise: float) -> str:
    """Say in words by which fraction a loss is above its lowest."""
    return "at its lowest" if rise < 0.005 else f"{rise:.0%} above its lowest"


def late_gain(values: Sequence[float]) -> float:
    """Return the mean of the last quarter of the values minus that of the quarter before; robust to a lucky row."""
    count = math.ceil(len(values) / 4)
    last, before = values[-count:], values[-2 * count : -count]
    return sum(last) / len(last) - sum(before) / len(before)
