import dataclasses
import re
import sys
from typing import Any

import pytest

from cnnlite import __version__
from cnnlite.checkpoint import Checkpoint
from cnnlite.config import Config, config_from_data
from cnnlite.environment import versions
from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.progress import Reporter
from cnnlite.results import Progress
from cnnlite.resuming import check_same, check_version, describe_schedule
from tests.small_runs import STEPS_PER_EPOCH, tiny


def made_by(made: Config, step: Any = 14, **facts: Any) -> Checkpoint:
    """The facts of a checkpoint that a run with this config would write."""
    meta = {"config": made.resolved, "step": step, "epoch": 2.0, "versions": versions()}
    return Checkpoint({}, meta | facts)


def said(config: Config, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]) -> str:
    check_same(config, checkpoint, Reporter())
    return capsys.readouterr().err


def test_the_same_config_resumes_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(tiny(), made_by(tiny()), capsys) == ""


def test_a_longer_training_says_what_becomes_of_the_learning_rate(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(tiny(epochs=5), made_by(tiny()), capsys)
    assert "train.epochs: was 3.0, is 5.0" in text
    schedule, lr = tiny().train.schedule, 0.003
    was, now = (lr * schedule.factor(14, epochs * STEPS_PER_EPOCH, STEPS_PER_EPOCH) for epochs in (3, 5))
    assert was < now
    wanted = (
        f"cosine now spans 35 steps instead of 21: at step 14 the learning rate is {now:.3g}, not {was:.3g}; the run"
    )
    assert wanted in text


def test_a_schedule_that_does_not_know_the_end_stays_what_it_was() -> None:
    for schedule in ("constant", {"step": {"every": 1}}, {"constant": {"warmup_epochs": 2}}):
        before, after = (tiny(epochs=epochs, schedule=schedule) for epochs in (3, 5))
        text = describe_schedule(after, made_by(before))
        assert text.startswith("35 steps instead of 21; the learning rates")
        assert "stay what they were" in text


def test_of_several_optimizers_those_whose_learning_rate_changes_are_told() -> None:
    members = [
        {"match": "weight$", "optimizer": {"sgd": {"lr": 0.5}}, "schedule": "linear"},
        {"match": ".", "optimizer": {"sgd": {"lr": 0.1}}, "schedule": "constant"},
    ]
    before, after = (tiny(epochs=epochs, optimizer={"composite": {"members": members}}) for epochs in (3, 5))
    text = describe_schedule(after, made_by(before))
    assert "span 35 steps instead of 21: at step 14 the learning rate of weight$ is 0.3, not 0.167; the run" in text


def test_steps_instead_of_epochs_are_another_length_too() -> None:
    text = describe_schedule(tiny(epochs=None, iterations=30), made_by(tiny(), step=21, epoch=3.0))
    assert "spans 30 steps instead of 21: at step 21" in text


def test_every_other_difference_is_shown_and_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check_same(tiny(batch_size=8, clip_norm=1.0, epochs=5), made_by(tiny()), Reporter())
    for line in ("train.batch_size: was 16, is 8", "train.clip_norm: was null, is 1.0", "start a new run"):
        assert line in str(caught.value)


def test_of_many_differences_a_few_are_shown_with_the_way_out() -> None:
    other = config_from_data(tiny().resolved | {"model": ["flatten", {"linear": {"out_features": 10}}]})
    with pytest.raises(ConfigError) as caught:
        check_same(other, made_by(tiny()), Reporter())
    *shown, last = str(caught.value).split("\n")
    assert len(shown) == 5
    assert all(line.startswith("model[") for line in shown)
    assert re.match(r"and \d+ more differences; a resumed run may change only train.epochs, .*; leave out --", last)


def test_another_version_is_refused_and_other_packages_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match=r"made by cnnlite 9\.9, .* install 9\.9"):
        check_version(made_by(tiny(), versions={"cnnlite": "9.9"}))
    text = said(tiny(), made_by(tiny(), versions={"cnnlite": __version__, "numpy": "1.0", "python": "3.1"}), capsys)
    assert "warning: numpy was 1.0" in text
    assert f"python was 3.1, is {sys.version.split()[0]}" in text


@pytest.mark.parametrize(
    "facts", [{"config": []}, {"versions": None}, {"versions": [1]}, {"step": "x"}, {"epoch": None}, {"step": None}]
)
def test_a_checkpoint_without_the_facts_of_a_run_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"{next(iter(facts))} is "):
        check_same(tiny(epochs=5), made_by(tiny(), **facts), Reporter())


@pytest.mark.parametrize("change", [{"step": "x"}, {"step": 1.5}, {"loss": 3}, {"best_accuracy": "1"}, {"more": 1}])
def test_progress_that_is_none_is_refused(change: dict[str, Any]) -> None:
    plain = dataclasses.asdict(Progress(step=3))
    assert Progress.from_meta(plain) == Progress(step=3)
    with pytest.raises(TypeError):
        Progress.from_meta({**plain, **change})
    with pytest.raises(KeyError):
        Progress.from_meta({"step": 3})
