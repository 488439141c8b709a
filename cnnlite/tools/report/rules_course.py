"""Rules about the course of a training: whether it ended early, and whether its steps are too long or too short."""

import itertools

from cnnlite.tools.report.rules import (
    CHANCE,
    CLIMBING,
    FEWEST_ROWS,
    GOOD,
    Evidence,
    Judgement,
    above_lowest,
    late_gain,
    points,
    rule,
)

JUMP = 0.10
"""Rise of the training loss from one row to the next, as a fraction, that is more than noise."""
STRAIGHT = 0.6
"""Fall of the loss in the last interval divided by that in the first, from which on the curve is called straight."""
RESTLESS = 0.02
"""Change of accuracy from row to row that shows steps too long to settle."""


@rule("metrics.csv has no row, though the training did not diverge")
def no_rows(evidence: Evidence) -> Judgement:
    """Find runs without a row of metrics."""
    if evidence.record.rows or evidence.record.status == "diverged":
        return None
    return "Nothing to judge yet", "The run has not come to its first row of metrics, so there are no curves.", ()


@rule("result.json says that the loss or a gradient was not finite")
def diverged(evidence: Evidence) -> Judgement:
    """Find runs that ended with NaN or infinity."""
    record = evidence.record
    if record.status != "diverged":
        return None
    text = (
        f"After step {record.result.get('steps')} the loss or a gradient was no longer a finite number: the steps were "
        f"too long. The learning rate was {evidence.lr}; try a tenth of it, and a limit for the gradient's length."
    )
    clip = () if evidence.option("clip_norm") is not None else ("train.clip_norm=1.0",)
    return "The training diverged", text, [*evidence.scaled_lr(0.1), *clip]


@rule(
    "the last row is before the last step of the config, and result.json says neither complete nor diverged",
    resumes=True,
)
def interrupted(evidence: Evidence) -> Judgement:
    """Find runs whose schedule was cut short."""
    record = evidence.record
    if record.status in ("complete", "diverged") or not record.rows or record.total_steps is None:
        return None
    step, lr = record.rows[-1]["step"] or 0, record.rows[-1].get("lr")
    if step >= record.total_steps:
        return None
    text = f"The last row is of step {step:,.0f} of {record.total_steps:,}"
    text += "." if lr is None else f", with a learning rate of {lr:.3g}."
    if evidence.schedule != "constant":
        text += f" The schedule {evidence.schedule} is not finished; accuracy often rises most in its last part."
    return "The run did not come to its end", text, ()


@rule(
    f"at least 3 rows, and an accuracy that never reached {CHANCE:g} times that of guessing, in training or validation",
    yields_to=["diverged"],
)
def learns_nothing(evidence: Evidence) -> Judgement:
    """Find runs no better than chance."""
    accuracies, validation, losses = evidence.values("train_accuracy", "validation_accuracy", "train_loss")
    # Mixed images keep training accuracy low; two losses make no trend.
    if evidence.classes is None or len(accuracies) < 3 or max(accuracies + validation) >= CHANCE / evidence.classes:
        return None
    creeps = len(losses) > 2 and not evidence.dying and all(a > b for a, b in itertools.pairwise(losses))
    text = (
        f"The best training accuracy is {max(accuracies):.1%}; guessing among {evidence.classes} classes gives "
        f"{1 / evidence.classes:.1%}. The learning rate is {evidence.lr}. "
    )
    if creeps:
        text += "The loss falls from row to row, but hardly: the steps are far too short."
        return "The network learns nothing", text, evidence.scaled_lr(10)
    text += "The loss does not keep falling: most often the steps are far too long."
    return "The network learns nothing", text, evidence.scaled_lr(0.1)


@rule(
    f"a training loss that rose by more than {JUMP:.0%} from one row to the next at least twice, or ended more than "
    f"{2 * JUMP:.0%} above its lowest",
    yields_to=["diverged", "learns_nothing"],
)
def lr_too_high(evidence: Evidence) -> Judgement:
    """Find a training loss that jumps up."""
    (losses,) = evidence.values("train_loss")
    if len(losses) < 2:
        return None
    jumps = sum(later > (1 + JUMP) * earlier for earlier, later in itertools.pairwise(losses))
    rise = losses[-1] / max(min(losses), 1e-9) - 1
    if jumps < 2 and rise <= 2 * JUMP:
        return None
    text = (
        f"The training loss should fall; here it jumped up {jumps} time{'' if jumps == 1 else 's'} and ended "
        f"{above_lowest(rise)}. Steps that are too long throw a network out of the valley it is in. The "
        f"learning rate is {evidence.lr}."
    )
    return "The learning rate looks too high", text, evidence.scaled_lr(1 / 3)


@rule(
    f"at least {FEWEST_ROWS + 1} rows with half the highest learning rate or more, over which the training loss "
    f"always fell and in the last interval at least {STRAIGHT:.0%} as much as in the first; training accuracy below "
    f"{GOOD:.0%} at the end",
    yields_to=["diverged", "learns_nothing", "lr_too_high", "dead_relus"],
)
def lr_too_low(evidence: Evidence) -> Judgement:
    """Find a training loss that falls in a straight line."""
    rows = [row for row in evidence.record.rows if row.get("lr") is not None and row.get("train_loss") is not None]
    highest = max((row["lr"] or 0 for row in rows), default=0)
    losses = [row["train_loss"] or 0 for row in rows if (row["lr"] or 0) >= highest / 2]
    (accuracies,) = evidence.values("train_accuracy")
    if len(losses) < FEWEST_ROWS + 1 or not accuracies or accuracies[-1] >= GOOD:
        return None
    falls = [earlier - later for earlier, later in itertools.pairwise(losses)]
    if min(falls) <= 0 or falls[-1] < STRAIGHT * falls[0]:
        return None
    text = (
        f"The training loss falls in nearly a straight line: by {falls[0]:.3f} in the first interval, by "
        f"{falls[-1]:.3f} in the last. With a well chosen rate it falls fast at first, then flattens. The learning "
        f"rate is {evidence.lr}."
    )
    return "The learning rate looks too low", text, evidence.scaled_lr(3)


@rule(
    f"a constant schedule, at least {2 * FEWEST_ROWS} rows, and in the second half of them a median change of "
    f"validation accuracy from row to row of more than {points(RESTLESS)}",
    yields_to=["diverged", "learns_nothing", "lr_too_high", "few_images"],
)
def restless(evidence: Evidence) -> Judgement:
    """Find a validation accuracy that goes up and down."""
    (accuracies,) = evidence.values("validation_accuracy")
    if evidence.schedule != "constant" or len(accuracies) < 2 * FEWEST_ROWS:
        return None
    half = accuracies[len(accuracies) // 2 :]
    changes = sorted(abs(later - earlier) for earlier, later in itertools.pairwise(half))
    median = changes[len(changes) // 2]
    if median <= RESTLESS:
        return None
    text = (
        f"In the second half validation accuracy changes by {points(median)} from one row to the next: the steps are "
        "too long to settle. A schedule that falls to 0 ends in a calm, and usually higher, accuracy."
    )
    return "Validation accuracy is restless", text, ("train.schedule=cosine",)


@rule(
    f"a complete run of at least {FEWEST_ROWS} rows, the last quarter of which has a mean validation accuracy "
    f"(training accuracy where nothing validates) at least {points(CLIMBING)} above that of the quarter before, and "
    f"training accuracy below {GOOD:.0%} at the end",
    yields_to=["learns_nothing", "lr_too_high", "lr_too_low", "overfitting"],
)
def still_improving(evidence: Evidence) -> Judgement:
    """Find runs that ended while accuracy was rising."""
    validation, train = evidence.values("validation_accuracy", "train_accuracy")
    accuracies = validation or train
    if evidence.record.status != "complete" or len(accuracies) < FEWEST_ROWS or (train and train[-1] >= GOOD):
        return None
    if late_gain(accuracies) < CLIMBING:
        return None
    text = (
        f"Over the last quarter accuracy was {points(late_gain(accuracies))} above the quarter before, "
        f"{accuracies[-1]:.1%} at the end. Twice the steps may be worth their time."
    )
    if evidence.schedule != "constant":
        text += " Part of the rise is the falling learning rate; a new run stretches the schedule over the longer time."
    return "Still improving when it stopped", text, (evidence.longer(),)


@rule(f"fewer than {FEWEST_ROWS} rows")
def few_rows(evidence: Evidence) -> Judgement:
    """Find runs with too few rows to judge."""
    count = len(evidence.record.rows)
    if not 0 < count < FEWEST_ROWS:
        return None
    text = (
        f"There {'is 1 row' if count == 1 else f'are {count} rows'} of metrics; most rules want {FEWEST_ROWS} to "
        "tell a trend from chance. Validate more often."
    )
    every = max(1, (evidence.record.total_steps or 0) // (2 * FEWEST_ROWS))
    return "Few points to judge by", text, (f"train.validate_every={every}",)
