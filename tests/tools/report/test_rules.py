"""Each rule finds what it is for in figures that were made up, and is silent just below its threshold."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cnnlite.config.load import Config, config_from_data, load_config
from cnnlite.tools.report.explain import advise, describe_rules, judge
from cnnlite.tools.report.inside import DeadUnits
from cnnlite.tools.report.record import ByClass, Record, Row
from cnnlite.tools.report.rules import RULES, Evidence, finding, late_gain, points
from cnnlite.tools.report.rules_fit import lowest_loss
from tests.support.report_runs import made_up
from tests.support.small_runs import TINY, tiny

pytestmark = pytest.mark.usefixtures("as_typed")  # what a rule tells to try is a command

FALLING = [2.0, 1.5, 1.2, 1.0, 0.9, 0.85]
RISING = [0.3, 0.5, 0.6, 0.7, 0.75, 0.8]


def constant(**train: Any) -> Config:
    return tiny(schedule="constant", **train)


def no_augmentation() -> Config:
    data = yaml.safe_load(TINY)
    data["data"]["augment"] = []
    return config_from_data(data)


def smoothed() -> Config:
    return tiny(loss={"cross_entropy": {"label_smoothing": 0.1}})


Case = tuple[str, dict[str, Any], tuple[str, ...]]

HOLDS: list[Case] = [
    ("no_rows", {"status": None}, ()),
    (
        "diverged",
        {"status": "diverged", "train_loss": [2.0]},
        ("train.optimizer.adam.lr=0.0003", "train.clip_norm=1.0"),
    ),
    ("diverged", {"status": "diverged", "config": tiny(clip_norm=2.0)}, ("train.optimizer.adam.lr=0.0003",)),
    ("interrupted", {"status": "interrupted", "train_loss": FALLING, "config": tiny(epochs=7)}, ("--resume",)),
    ("interrupted", {"status": None, "train_loss": FALLING, "config": tiny(epochs=7)}, ("--resume",)),
    ("learns_nothing", {"train_accuracy": [0.1, 0.12, 0.149]}, ("train.optimizer.adam.lr=0.0003",)),
    (
        "learns_nothing",
        {"train_accuracy": [0.1, 0.1, 0.1], "train_loss": [2.31, 2.30, 2.31]},
        ("train.optimizer.adam.lr=0.0003",),
    ),
    (
        "learns_nothing",
        {"train_accuracy": [0.1, 0.1, 0.1], "train_loss": [2.32, 2.31, 2.30]},
        ("train.optimizer.adam.lr=0.03",),
    ),
    ("lr_too_high", {"train_loss": [2.0, 1.5, 1.7, 1.4, 1.6, 1.5]}, ("train.optimizer.adam.lr=0.001",)),
    ("lr_too_high", {"train_loss": [2.0, 1.0, 1.05, 1.1, 1.15, 1.21]}, ("train.optimizer.adam.lr=0.001",)),
    (
        "lr_too_low",
        {"train_loss": [2.3, 2.2, 2.1, 2.01, 1.93], "train_accuracy": [0.1, 0.2, 0.22, 0.24, 0.26]},
        ("train.optimizer.adam.lr=0.009",),
    ),
    (
        "restless",
        {"config": constant(), "validation_accuracy": [0.5, 0.6, 0.5, 0.6, 0.55, 0.6, 0.55, 0.6]},
        ("train.schedule=cosine",),
    ),
    ("still_improving", {"validation_accuracy": RISING, "train_accuracy": RISING}, ("train.epochs=12",)),
    ("still_improving", {"train_accuracy": RISING}, ("train.epochs=12",)),
    ("few_rows", {"train_loss": [2.0, 1.5, 1.2]}, ("train.validate_every=3",)),
    (
        "overfitting",
        {
            "train_accuracy": [0.5, 0.7, 0.8, 0.9],
            "validation_accuracy": [0.5, 0.7, 0.75, 0.79],
            "train_loss": FALLING[:4],
            "validation_loss": FALLING[:4],
            "config": no_augmentation(),
        },
        ("data.augment=[random_flip, random_crop]",),
    ),
    (
        "overfitting",
        {
            "train_accuracy": [0.5, 0.7, 0.75, 0.8],
            "validation_accuracy": [0.5, 0.7, 0.75, 0.75],
            "train_loss": FALLING[:4],
            "validation_loss": [1.0, 0.9, 0.95, 1.0],
        },
        ("train.optimizer.adam.weight_decay=0.004", "train.loss.cross_entropy.label_smoothing=0.1"),
    ),
    (
        "underfitting",
        {"train_accuracy": [0.3] + [0.4] * 7, "config": constant()},
        ("train.schedule=cosine",),
    ),
    ("underfitting", {"train_accuracy": [0.3] + [0.4] * 7}, ("model.0.conv2d.out_channels=12",)),
    ("frozen", {"config": tiny(freeze="^0")}, ()),
    ("smoothed_loss", {"train_loss": FALLING, "config": smoothed()}, ()),
    ("validation_ahead", {"train_accuracy": [0.5, 0.6], "validation_accuracy": [0.5, 0.62]}, ()),
]

SILENT: list[Case] = [
    ("no_rows", {"train_loss": [2.0]}, ()),
    ("no_rows", {"status": "diverged"}, ()),
    ("diverged", {"train_loss": FALLING}, ()),
    ("interrupted", {"status": None, "train_loss": FALLING}, ()),
    ("interrupted", {"status": "complete", "train_loss": FALLING, "config": tiny(epochs=7)}, ()),
    ("learns_nothing", {"train_accuracy": [0.1, 0.12, 0.151]}, ()),
    ("learns_nothing", {"train_accuracy": [0.1, 0.1], "train_loss": [2.498, 2.270]}, ()),
    ("learns_nothing", {"train_accuracy": [0.1, 0.1, 0.1], "validation_accuracy": [0.1, 0.12, 0.151]}, ()),
    ("lr_too_high", {"train_loss": [2.0, 1.5, 1.7, 1.4, 1.5, 1.5]}, ()),
    ("lr_too_high", {"train_loss": [2.0, 1.0, 1.05, 1.1, 1.15, 1.19]}, ()),
    ("lr_too_low", {"train_loss": FALLING, "train_accuracy": RISING}, ()),
    ("lr_too_low", {"train_loss": [2.3, 2.2, 2.1, 2.01], "train_accuracy": [0.1] * 4}, ()),
    ("lr_too_low", {"train_loss": [2.3, 2.2, 2.1, 2.01, 1.93], "train_accuracy": [0.1, 0.5, 0.8, 0.9, 0.91]}, ()),
    (
        "lr_too_low",
        {"train_loss": [2.3, 2.2, 2.1, 2.01, 1.93], "train_accuracy": [0.2] * 5, "lr": [1.0, 0.6, 0.3, 0.2, 0.1]},
        (),
    ),
    ("restless", {"validation_accuracy": [0.5, 0.6, 0.5, 0.6, 0.55, 0.6, 0.55, 0.6]}, ()),
    ("restless", {"config": constant(), "validation_accuracy": [0.5, 0.6, 0.5, 0.6, 0.55, 0.56, 0.57, 0.58]}, ()),
    ("restless", {"config": constant(), "validation_accuracy": [0.5, 0.6] * 3}, ()),
    ("still_improving", {"validation_accuracy": [0.3, 0.5, 0.6, 0.69, 0.69, 0.695, 0.695]}, ()),
    ("still_improving", {"validation_accuracy": RISING, "train_accuracy": [*RISING[:-1], 0.9]}, ()),
    ("still_improving", {"validation_accuracy": RISING, "status": "interrupted"}, ()),
    ("few_rows", {"train_loss": [2.0, 1.5, 1.2, 1.1]}, ()),
    (
        "overfitting",
        {
            "train_accuracy": [0.5, 0.7, 0.8, 0.9],
            "validation_accuracy": [0.5, 0.7, 0.75, 0.81],
            "train_loss": FALLING[:4],
            "validation_loss": [1.0, 0.9, 0.95, 0.98],
        },
        (),
    ),
    (
        "overfitting",
        {
            "train_accuracy": [0.5, 0.7, 0.75, 0.8],
            "validation_accuracy": [0.5, 0.7, 0.75, 0.75],
            "train_loss": [2.0, 1.0, 1.2, 1.1],
            "validation_loss": [1.0, 0.9, 0.95, 1.0],
        },
        (),
    ),
    ("overfitting", {"train_accuracy": [0.5, 0.7, 0.8, 0.99]}, ()),
    ("underfitting", {"train_accuracy": [0.3, 0.4, 0.45, 0.5] * 2}, ()),
    ("underfitting", {"train_accuracy": [0.95] * 8}, ()),
    ("underfitting", {"train_accuracy": [0.6] * 8, "validation_accuracy": [0.92] * 8}, ()),
    ("underfitting", {"train_accuracy": [0.1] * 8}, ()),
    ("underfitting", {"train_accuracy": [0.4] * 8, "validation_accuracy": [0.34] * 8}, ()),
    ("frozen", {}, ()),
    ("smoothed_loss", {"train_loss": FALLING}, ()),
    ("validation_ahead", {"train_accuracy": [0.5, 0.6], "validation_accuracy": [0.5, 0.605]}, ()),
]


def found(name: str, evidence: Evidence) -> Any:
    (rule,) = [rule for rule in RULES if rule.name == name]
    return finding(evidence, rule)


def test_a_loss_at_its_lowest_is_not_said_to_be_above_it(tmp_path: Path) -> None:
    figures: dict[str, Any] = dict.fromkeys(("train_loss", "validation_loss"), FALLING[:4])
    figures |= {"train_accuracy": [0.5, 0.7, 0.8, 0.9], "validation_accuracy": [0.5, 0.7, 0.75, 0.79]}
    result = found("overfitting", Evidence(made_up(tmp_path / "run", **figures), classes=10))
    assert "the validation loss at its lowest: the" in result.text
    record = made_up(tmp_path / "other", train_loss=[2.0, 1.5, 1.7, 1.4, 1.6, 1.3])
    assert "jumped up 2 times and ended at its lowest. Steps" in found("lr_too_high", Evidence(record, classes=10)).text


@pytest.mark.parametrize(("name", "figures", "commands"), HOLDS)
def test_a_rule_finds_what_it_is_for(
    name: str, figures: dict[str, Any], commands: tuple[str, ...], tmp_path: Path
) -> None:
    result = found(name, Evidence(made_up(tmp_path / "run", **figures), classes=10))
    assert result is not None
    assert result.title
    assert "nan" not in result.text
    assert bool(result.command) == bool(commands)
    for command in commands:
        assert command in result.command


@pytest.mark.parametrize(("name", "figures", "_"), SILENT)
def test_a_rule_is_silent_below_its_threshold(name: str, figures: dict[str, Any], _: Any, tmp_path: Path) -> None:
    assert found(name, Evidence(made_up(tmp_path / "run", **figures), classes=10)) is None


BY_HEART: dict[str, Any] = {
    "train_accuracy": [0.9] * 4,
    "validation_accuracy": [0.5] * 4,
    "train_loss": FALLING[:4],
    "validation_loss": FALLING[:4],
}


def test_each_member_of_a_composite_gets_its_share(tmp_path: Path) -> None:
    members = [
        {"match": "bias$", "optimizer": {"sgd": {"lr": 0.3, "groups": [{"match": "9", "lr": 5.0}]}}},
        {"match": ".", "optimizer": {"muon": {"lr": 0.06}}},
    ]
    config = tiny(optimizer={"composite": {"members": members}})
    record = made_up(tmp_path, status="diverged", config=config)
    result = found("diverged", Evidence(record, classes=10))
    assert "was 0.3, 0.06" in result.text
    overrides = shlex.split(result.command)[5::2]
    resolved = load_config(tmp_path / "config.yaml", overrides).resolved["train"]
    rates = [next(iter(member["optimizer"].values()))["lr"] for member in resolved["optimizer"]["composite"]["members"]]
    assert rates == [0.03, 0.006]
    assert resolved["clip_norm"] == 1
    command = found("overfitting", Evidence(made_up(tmp_path / "b", config=config, **BY_HEART), 10)).command
    assert command.endswith("-o train.loss.cross_entropy.label_smoothing=0.1")


def test_smoothing_is_added_to_the_loss_that_a_run_has(tmp_path: Path) -> None:
    weights = [1.0, 2.0] * 5

    def tried(name: str) -> Any:
        config = tiny(loss={name: {"class_weights": weights}})
        result = found("overfitting", Evidence(made_up(tmp_path / name, config=config, **BY_HEART), classes=10))
        overrides = shlex.split(result.command)[5::2]
        return load_config(tmp_path / name / "config.yaml", overrides).resolved["train"]["loss"]

    assert tried("cross_entropy") == {"cross_entropy": {"label_smoothing": 0.1, "class_weights": weights}}
    assert tried("focal") == {"focal": {"gamma": 2.0, "class_weights": weights}}


def test_how_much_is_frozen_is_said_where_the_config_tells(tmp_path: Path) -> None:
    record = made_up(tmp_path, config=tiny(freeze="^[01]"))
    text = found("frozen", Evidence(record, classes=10)).text
    assert text == (
        "train.freeze is '^[01]'; frozen: 4 of 6 parameters, 180 of 1,690 numbers; 1 layer keeps its statistics."
    )


OF_THEIR_OWN = {"dead_relus", "few_images", "never_predicted", "unequal_classes"}
"""Rules with tests of their own: they look at more than the figures."""


def test_every_rule_is_tried_both_ways() -> None:
    names = {rule.name for rule in RULES}
    assert {name for name, _, _ in HOLDS} == names - OF_THEIR_OWN
    assert {name for name, _, _ in SILENT} == names - OF_THEIR_OWN


@pytest.mark.parametrize(
    ("dead", "command"),
    [
        ([DeadUnits("model[2].relu", 13, 64)], "-o model.2=leaky_relu"),
        (
            [DeadUnits("model[2].relu", 13, 64), DeadUnits("model[4].residual.body[1].relu", 9, 10)],
            "-o model.4.residual.body.1=leaky_relu -o model.2=leaky_relu",
        ),
        ([DeadUnits("model[4].residual.body[1].relu", 9, 10)], "-o model.4.residual.body.1=leaky_relu"),
    ],
)
def test_dead_relus_are_named(dead: list[DeadUnits], command: str, tmp_path: Path) -> None:
    result = found("dead_relus", Evidence(made_up(tmp_path, train_loss=FALLING), 10, dead))
    assert result.command.endswith(command)
    assert f"{dead[-1].place} ({dead[-1].dead} of {dead[-1].units})" in result.text


NAMES = ("cat", "dog", "rare")
SEEN_ALL = ByClass([50, 40, 5], [45, 30, 1], [52, 42, 1])
MISSING = ByClass([50, 40, 5], [45, 30, 0], [53, 42, 0])


def of_classes(
    folder: Path, counts: list[int] | None, validated: ByClass | None = None, config: Config | None = None
) -> Evidence:
    record = made_up(folder, config=config, train_loss=FALLING)
    return Evidence(record, 3, names=NAMES, class_counts=counts, validated=validated)


def sampled() -> Config:
    data = tiny().resolved
    return config_from_data({**data, "data": {**data["data"], "sampling": "balanced"}})


def weighted() -> Config:
    return tiny(loss={"focal": {"class_weights": "balanced"}}, monitor="macro_f1")


def test_a_class_that_is_never_predicted_is_named(tmp_path: Path) -> None:
    rare = found("never_predicted", of_classes(tmp_path / "a", [500, 400, 50], MISSING))
    assert "predicted as rare (0 of 5, 50 to train on). They have few" in rare.text
    assert rare.command.endswith("-o data.sampling=balanced -o train.monitor=macro_f1")
    equal = found("never_predicted", of_classes(tmp_path / "b", [500, 400, 101], MISSING))
    assert "taken for" in equal.text
    assert equal.command.endswith("-o train.epochs=12")
    unknown = found("never_predicted", of_classes(tmp_path / "c", None, MISSING))
    assert "predicted as rare (0 of 5). " in unknown.text
    remedied = found("never_predicted", of_classes(tmp_path / "d", [500, 400, 50], MISSING, weighted()))
    assert "train.epochs" in remedied.command


@pytest.mark.parametrize(
    "validated",
    [
        None,
        SEEN_ALL,
        ByClass([50, 40, 4], [45, 30, 0], [53, 41, 0]),
        ByClass([50, 40, 0], [45, 30, 0], [50, 40, 0]),
        ByClass([50, 40, 5], [45, 2, 0], [95, 0, 0]),
    ],
    ids=["none", "all are", "few images", "no images", "no better than chance"],
)
def test_classes_that_are_predicted_or_hardly_there_are_not(validated: ByClass | None, tmp_path: Path) -> None:
    assert found("never_predicted", of_classes(tmp_path, [500, 400, 50], validated)) is None


def test_unequal_classes_are_told_with_what_accuracy_hides(tmp_path: Path) -> None:
    result = found("unequal_classes", of_classes(tmp_path / "a", [250, 400, 50], SEEN_ALL))
    assert "50 images of rare to train on, and 400 of dog" in result.text
    assert "it was 80.0%; the mean of the classes, the balanced accuracy, was 61.7%" in result.text
    assert result.command.endswith("-o data.sampling=balanced -o train.monitor=macro_f1")
    unvalidated = found("unequal_classes", of_classes(tmp_path / "b", [250, 0, 50]))
    assert unvalidated.command.endswith("-o data.sampling=balanced")
    assert "rare" in unvalidated.text
    monitored = found("unequal_classes", of_classes(tmp_path / "c", [250, 400, 50], SEEN_ALL, tiny(monitor="loss")))
    assert monitored.command.endswith("-o data.sampling=balanced")
    words = shlex.split(result.command)
    assert load_config(words[words.index("--config") + 1], words[5::2]).data.sampling == "balanced"


@pytest.mark.parametrize(
    ("counts", "config"),
    [([249, 240, 50], None), (None, None), ([0, 0, 0], None), ([500, 9, 9], sampled()), ([500, 9, 9], weighted())],
)
def test_equal_classes_and_those_that_something_is_done_for_are_not(
    counts: list[int] | None, config: Config | None, tmp_path: Path
) -> None:
    assert found("unequal_classes", of_classes(tmp_path, counts, SEEN_ALL, config)) is None


def test_a_class_that_is_never_predicted_is_told_once(tmp_path: Path) -> None:
    names = {found.rule for found in advise(of_classes(tmp_path, [500, 400, 50], MISSING))}
    assert "never_predicted" in names
    assert "unequal_classes" not in names


STEEP: dict[str, Any] = {
    "train_accuracy": [0.9] * 8,
    "validation_accuracy": [0.4, 0.8] * 4,
    "train_loss": [1.0] * 8,
    "validation_loss": [1.0] * 8,
}


@pytest.mark.parametrize(("count", "worth"), [(1, "1 image, of which one more is worth 100 points"), (49, "2 points")])
def test_few_validation_images_are_said_and_their_curves_are_not_judged(count: int, worth: str, tmp_path: Path) -> None:
    record = made_up(tmp_path, config=constant(epochs=8), **STEEP)
    findings = {found.rule: found for found in advise(Evidence(record, 10, validating=count))}
    assert worth in findings["few_images"].text
    assert findings["few_images"].command.endswith("-o data.validation=0.2")
    assert not findings.keys() & {"overfitting", "restless", "validation_ahead"}


def test_few_validation_images_are_no_reason_to_hold_back_what_is_held_back_already(tmp_path: Path) -> None:
    config = constant(epochs=8)
    config.resolved["data"]["validation"] = 0.25
    findings = {found.rule: found for found in advise(Evidence(made_up(tmp_path, config=config), 10, validating=9))}
    assert "validation=" not in (findings["few_images"].command or "")


@pytest.mark.parametrize("count", [50, None])
def test_those_of_enough_or_of_unknown_many_are(count: int | None, tmp_path: Path) -> None:
    record = made_up(tmp_path, config=constant(epochs=8), **STEEP)
    names = {found.rule for found in advise(Evidence(record, 10, validating=count))}
    assert names >= {"restless"}
    assert "few_images" not in names


@pytest.mark.parametrize(("count", "told"), [(8, False), (20, True), (1000, True), (None, True)])
def test_overfitting_is_told_of_few_images_too_unless_it_may_be_chance(
    count: int | None, told: bool, tmp_path: Path
) -> None:
    record = made_up(tmp_path, **BY_HEART | {"validation_accuracy": [0.5, 0.6, 0.7, 0.7]})
    names = {found.rule for found in advise(Evidence(record, 10, validating=count))}
    assert ("overfitting" in names) == told
    assert ("few_images" in names) == (count in (8, 20))


@pytest.mark.parametrize(("count", "told"), [(49, False), (50, True)])
def test_a_loss_of_few_images_that_rises_may_be_chance(count: int, told: bool, tmp_path: Path) -> None:
    figures = {"validation_accuracy": [0.9] * 4, "validation_loss": [1.0, 0.9, 0.95, 1.0]}
    evidence = Evidence(made_up(tmp_path, **BY_HEART | figures), 10, validating=count)
    assert (found("overfitting", evidence) is not None) == told


def test_accuracy_of_balanced_batches_is_compared_with_the_balanced_one(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"train_accuracy": [0.9] * 4, "train_loss": FALLING[:4], "validation_loss": FALLING[:4]}
    balanced: dict[str, Any] = {"validation_accuracy": [0.95] * 4, "validation_balanced_accuracy": [0.6] * 4}
    evidence = Evidence(made_up(tmp_path / "a", config=sampled(), **plain, **balanced), 10)
    assert "balanced validation accuracy 60.0%" in found("overfitting", evidence).text
    assert found("validation_ahead", evidence) is None
    for name in ("overfitting", "validation_ahead"):
        shuffled = Evidence(made_up(tmp_path / "b", **plain, **balanced), 10)
        assert (found(name, shuffled) is None) == (name == "overfitting")
    swapped: dict[str, Any] = {"validation_accuracy": [0.6] * 4, "validation_balanced_accuracy": [0.95] * 4}
    evidence = Evidence(made_up(tmp_path / "c", config=sampled(), **plain, **swapped), 10)
    assert found("overfitting", evidence) is None
    assert "below balanced validation accuracy (95.0%)" in found("validation_ahead", evidence).text


def test_few_dead_units_are_nothing_to_mention(tmp_path: Path) -> None:
    evidence = Evidence(made_up(tmp_path, train_loss=FALLING), 10, [DeadUnits("model[2].relu", 12, 60)])
    assert found("dead_relus", evidence) is None


@pytest.mark.parametrize(("name", "figures", "commands"), [case for case in HOLDS if case[2]])
def test_what_a_rule_tells_to_try_is_a_config(
    name: str, figures: dict[str, Any], commands: tuple[str, ...], tmp_path: Path
) -> None:
    words = shlex.split(found(name, Evidence(made_up(tmp_path / "a run", **figures), classes=10)).command)
    if "--resume" in words:
        assert words[-1] == str(tmp_path / "a run")
        return
    overrides = [word for option, word in itertools.pairwise(words) if option == "-o"]
    assert overrides
    before = load_config(tmp_path / "a run" / "config.yaml").resolved
    assert load_config(words[words.index("--config") + 1], overrides).resolved != before


def test_a_run_with_nothing_to_change_is_called_sound(tmp_path: Path) -> None:
    record = made_up(tmp_path, train_accuracy=[0.5, 0.8, 0.95, 0.97], train_loss=FALLING[:4])
    (only,) = judge(record)
    assert only.rule == "sound"
    assert not only.command


OPPOSITES = [
    ("diverged", "learns_nothing", "lr_too_high", "lr_too_low"),
    ("diverged", "learns_nothing", "lr_too_high", "restless"),
    ("lr_too_low", "dead_relus"),
    ("overfitting", "underfitting"),
    ("overfitting", "still_improving"),
    ("underfitting", "still_improving"),
    ("overfitting", "validation_ahead"),
]
"""Rules that would tell to do one thing and its contrary, or two things against one fault."""
CONFIGS = {"constant": constant(), "cosine": tiny()}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("status", ["complete", "interrupted", "diverged"])
def test_no_two_findings_pull_at_the_same_option(status: str, schedule: str) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(100):
        curves = rng.uniform(0.01, 1, (4, 8)) * rng.choice([0.1, 1])
        for curve in curves:
            if rng.random() < 0.5:
                curve.sort()
        names = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss")
        columns = {
            name: curve if "accuracy" in name else curve[::-1] for name, curve in zip(names, curves, strict=True)
        }
        rows: list[Row] = [
            {
                "step": 10.0 * index,
                "epoch": float(index),
                "lr": 0.01,
                **{name: c[index - 1] for name, c in columns.items()},
            }
            for index in range(1, 9)
        ]
        dead = [DeadUnits("model[2].relu", int(rng.integers(40)), 100)]
        record = Record(Path("run"), CONFIGS[schedule], rows, {"status": status}, {})
        found = advise(Evidence(record, 10, dead))
        places = [place for finding in found for place in re.findall(r"-o '?([\w.]+)=", finding.command)]
        assert len(set(places)) == len(places)
        together = {finding.rule for finding in found}
        assert together
        assert all(len(together & set(group)) <= 1 for group in OPPOSITES), together
        seen |= together
    assert len(seen) > 2


def test_rules_yield_to_rules() -> None:
    names = {rule.name for rule in RULES}
    assert all(names - {rule.name} >= set(rule.yields_to) for rule in RULES)


def test_rules_are_listed_with_their_thresholds() -> None:
    text = describe_rules()
    assert len(text.splitlines()) == len(RULES)
    assert "10 points" in text
    assert "{" not in text


def test_smoothed_labels_have_the_entropy_that_remains() -> None:
    assert lowest_loss(0.0, 10) == 0
    assert lowest_loss(0.1, 10) == pytest.approx(0.50029, abs=1e-5)  # -0.91 ln 0.91 - 9 * 0.01 ln 0.01
    assert lowest_loss(0.5, 2) == pytest.approx(0.56234, abs=1e-5)  # -0.75 ln 0.75 - 0.25 ln 0.25


def test_late_gain_compares_two_quarters() -> None:
    assert late_gain([0, 0, 0, 0, 1, 3, 4, 8]) == 4
    assert late_gain([1, 5]) == 4


def test_points() -> None:
    assert [points(value) for value in (0.01, 0.1, 0.0123, 1)] == ["1 point", "10 points", "1.2 points", "100 points"]
