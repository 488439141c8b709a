"""What rules are made of: what they look at, what they find, and the list that they stand in."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnlite.config.load import flatten
from cnnlite.nn.losses import CrossEntropy
from cnnlite.tools.report.inside import DeadUnits
from cnnlite.tools.report.record import Record
from cnnlite.utils.console import shell_word

FEWEST_ROWS = 4
"""Rows of metrics that make a trend."""
FEWEST_IMAGES = 50
"""Validation images whose accuracy says something: one of them is then worth 2 points."""
GOOD = 0.90
"""Training accuracy from which on nothing is said to be missing."""
CHANCE = 1.5
"""Accuracy below so many times that of guessing is no better than chance."""
CLIMBING = 0.01
"""Rise of accuracy from one quarter of the rows to the next from which on it still rises."""
DEAD = 0.20
"""Fraction of a layer's units that may be dead before it is worth a word."""


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    record: Record
    classes: int | None = None
    """Number of classes; None if neither the dataset's name nor a checkpoint tells."""
    dead: Sequence[DeadUnits] = ()
    validating: int | None = None
    """Number of validation images; None if nobody has counted them."""

    def option(self, place: str) -> Any:
        """The value at a dotted place below ``train`` in the config; None if there is none."""
        node: Any = self.record.config.resolved["train"]
        for word in place.split("."):
            node = node.get(word) if isinstance(node, dict) else None
        return node

    @property
    def dying(self) -> list[DeadUnits]:
        """The layers with too many dead units, the worst first."""
        return sorted((layer for layer in self.dead if layer.fraction > DEAD), key=lambda layer: -layer.fraction)

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        return str(next(iter(self.option("optimizer"))))

    def _rates(self) -> dict[str, float]:
        """The learning rates of the optimizer, or of each member of a composite, by their places."""
        leaves = flatten(self.option("optimizer"), "train.optimizer")
        return {place: lr for place, lr in leaves.items() if place.endswith(".lr") and ".groups" not in place}

    @property
    def lr(self) -> str:
        """The learning rates of the config, as text."""
        return ", ".join(f"{lr:g}" for lr in self._rates().values())

    @property
    def weight_decay(self) -> float | None:
        """The weight decay of the config; None for a composite, whose members have their own."""
        decay = self.option(f"optimizer.{self.optimizer}.weight_decay")
        return None if decay is None else float(decay)

    @property
    def schedule(self) -> str:
        """Name of the schedule."""
        schedule = self.option("schedule")
        return str(next(iter(schedule)) if isinstance(schedule, dict) else schedule)

    @property
    def smoothing(self) -> float:
        """The label smoothing of the config; 0 if its loss has none."""
        loss = self.record.config.train.loss
        return loss.label_smoothing if isinstance(loss, CrossEntropy) else 0.0

    def scaled_lr(self, factor: float) -> list[str]:
        """The overrides that multiply the learning rates."""
        return [f"{place}={lr * factor:.2g}" for place, lr in self._rates().items()]

    def longer(self) -> str:
        """The override that doubles the training."""
        train = self.record.config.train
        if train.iterations is not None:
            return f"train.iterations={2 * train.iterations}"
        return f"train.epochs={2 * (train.epochs or 0):g}"

    def values(self, *columns: str) -> list[list[float]]:
        """The values of some columns of the metrics."""
        return [self.record.values(column) for column in columns]


@dataclass(frozen=True)
class Finding:
    """Something that the curves show."""

    rule: str
    title: str
    text: str
    command: str = ""
    """What to type to try another way; empty if there is nothing to change."""


Judgement = tuple[str, str, Sequence[str]] | None
"""Title, text and overrides to try; or None if the rule does not apply."""


@dataclass(frozen=True)
class Rule:
    """A name, the condition in words, and the function that finds out."""

    name: str
    condition: str
    judge: Callable[[Evidence], Judgement]
    yields_to: Sequence[str] = ()
    """Rules whose advice is the better one where both apply: the same in other words, the opposite, or first of all."""
    resumes: bool = False
    """Whether the advice is to go on with the run, where others give a new one."""


RULES: list[Rule] = []
"""In the order in which their findings are reported."""


def rule(
    condition: str, yields_to: Sequence[str] = (), *, resumes: bool = False
) -> Callable[[Callable[[Evidence], Judgement]], Callable[[Evidence], Judgement]]:
    """Append a function to the rules; ``condition`` says with all thresholds when it finds something."""

    def register(function: Callable[[Evidence], Judgement]) -> Callable[[Evidence], Judgement]:
        RULES.append(Rule(function.__name__, condition, function, yields_to, resumes))
        return function

    return register


def finding(evidence: Evidence, applied: Rule) -> Finding | None:
    """Apply a rule; None if it does not hold."""
    judgement = applied.judge(evidence)
    if judgement is None:
        return None
    title, text, overrides = judgement
    path = evidence.record.path
    command = ""
    if applied.resumes:
        command = f"cnnlite train --resume {shell_word(str(path))}"
    elif overrides:
        options = " ".join(f"-o {shell_word(override)}" for override in overrides)
        command = f"cnnlite train --config {shell_word(str(path / 'config.yaml'))} {options}"
    return Finding(applied.name, title, text, command)


def points(fraction: float) -> str:
    """A difference of two percentages in words: 0.1 is 10 points."""
    number = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{number} point{'' if number == '1' else 's'}"


def above_lowest(rise: float) -> str:
    """How far a loss is above its lowest, as a fraction of it, in words."""
    return "at its lowest" if rise < 0.005 else f"{rise:.0%} above its lowest"


def late_gain(values: Sequence[float]) -> float:
    """Mean of the last quarter of the values less that of as many before: one lucky row cannot make such a rise."""
    count = math.ceil(len(values) / 4)
    last, before = values[-count:], values[-2 * count : -count]
    return sum(last) / len(last) - sum(before) / len(before)
