import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import load_config
from cnnlite.data import Dataset
from cnnlite.errors import ConfigError
from cnnlite.nn.network import Network
from cnnlite.runs.restore import load_data
from cnnlite.training import budget
from cnnlite.training.budget import RESERVE, Pace, measure, plan
from cnnlite.utils.signals import StopFlag
from tests.support.small_runs import TINY, assert_same_run, figures, tiny

PACE = Pace(
    setup=0.0,
    step=0.5,
    validation=3.0,
    save=1.0,
    test=10.0,
    steps_per_epoch=7,
    validate_every=10,
    checkpoint_every=4,
    peak_memory_bytes=0,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small config in it, and a place for temporary files that can be looked into."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(budget, "_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", "-c", "tiny.yaml", "--threads", "1", *arguments])


def test_steps_validations_checkpoints_and_the_test_take_time() -> None:
    assert PACE.seconds(1) == 0.5 + 3 + 1 + 10
    assert PACE.seconds(20) == 20 * 0.5 + 2 * 3 + 5 * 1 + 10
    assert PACE.seconds(21) == 21 * 0.5 + 3 * 3 + 6 * 1 + 10
    assert replace(PACE, setup=7.0).seconds(1) == 7 + PACE.seconds(1)


@pytest.mark.parametrize("seconds", [0.0, 14.4, 14.5, 15, 20, 31, 34.6, 100, 1e6])
def test_as_many_steps_are_planned_as_fit(seconds: float) -> None:
    steps = PACE.steps_within(seconds)
    assert steps == 0 or PACE.seconds(steps) <= seconds
    assert PACE.seconds(steps + 1) > seconds


def test_a_budget_becomes_a_number_of_steps_in_the_config() -> None:
    config, text = plan(tiny(), PACE, 100 / (1 - RESERVE) + 1e-9)
    assert (config.train.iterations, config.train.epochs) == (PACE.steps_within(100), None)
    assert config.resolved["train"]["iterations"] == config.train.iterations
    assert config.resolved | {"train": 0} == tiny().resolved | {"train": 0}
    assert text.startswith(f"budget: {config.train.iterations} steps of 500.0 ms (")
    assert (
        plan(tiny(), PACE, 150 / (1 - RESERVE) + 1e-9, 50 / (1 - RESERVE))[0].train.iterations
        == config.train.iterations
    )
    assert "warning" not in text


def test_a_schedule_that_no_budget_moves_is_told() -> None:
    config = tiny(schedule={"step": {"milestones": [2]}})
    assert "\nwarning: the schedule step has epochs of its own" in plan(config, PACE, 100)[1]


def test_members_with_epochs_and_schedules_of_their_own_are_told_with_what_would_fit() -> None:
    sgd = {"sgd": {"lr": 0.1}}
    members: list[dict[str, object]] = [
        {"match": "bias$", "optimizer": sgd, "schedule": "linear", "epochs": 1.5},
        {"match": ".", "optimizer": sgd, "schedule": {"step": {"every": 1}}},
    ]
    config, text = plan(tiny(optimizer={"composite": {"members": members}}), PACE, 100)
    epochs = (config.train.iterations or 0) / PACE.steps_per_epoch
    assert text.splitlines()[1:] == [
        "warning: the schedule step has epochs of its own, whatever the budget; cosine or linear would fit it",
        "warning: members[0] of the optimizer is trained for 1.5 epochs, whatever the budget; for the same part "
        f"of the training give train.optimizer.composite.members.0.epochs={1.5 * epochs / 3:.3g}",
    ]


@pytest.mark.parametrize(
    ("warmup", "told"), [({"warmup_epochs": 2}, False), ({"warmup_epochs": 40}, True), ({}, False)]
)
def test_a_warm_up_that_does_not_end_within_the_budget_is_told(warmup: dict[str, int], told: bool) -> None:
    text = plan(tiny(schedule={"cosine": warmup}), PACE, 100)[1]
    assert ("\nwarning: the warm-up of 280 steps does not end within the budget" in text) == told


def test_what_is_measured_is_above_zero_and_leaves_no_files(here: Path) -> None:
    dataset = load_data(tiny())
    found = measure(tiny(), dataset, StopFlag())
    assert min(found.setup, found.step, found.validation, found.save, found.test) > 0
    assert (found.steps_per_epoch, found.validate_every, found.checkpoint_every) == (7, 5, 4)
    assert os.listdir(here / "temporary") == []
    alone = Dataset("shapes", dataset.train, None, dataset.test, dataset.classes, dataset.digest)
    assert measure(tiny(tta="mirror_translate"), alone, StopFlag()).validation == 0


def test_a_run_with_a_budget_is_the_run_of_so_many_steps(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnlite.training.launch.measure", lambda *_: PACE)
    result = run("--budget", "40s", "--run-dir", "budget")
    assert result.exit_code == 0, result.output
    assert "\nbudget: " in "\n" + result.stderr
    steps = load_config("budget/config.yaml").train.iterations
    assert steps is not None
    assert PACE.seconds(steps) < 40 < PACE.seconds(steps + 8)
    assert run("-o", f"train.iterations={steps}", "-o", "train.epochs=null", "--run-dir", "plain").exit_code == 0
    assert_same_run(here / "budget", here / "plain")


def test_a_budget_is_kept_about_and_resumed_with_the_same_steps(here: Path) -> None:
    seconds = 2
    while (result := run("--budget", f"{seconds}s", "--run-dir", "run")).exit_code == 2:  # on a busy machine
        seconds = 2 * int(result.stderr.partition("give at least ")[2].removesuffix("s\n"))
    assert result.exit_code == 0, result.output
    final = figures(here / "run")[1]
    assert final["steps"] == yaml.safe_load((here / "run/config.yaml").read_text())["train"]["iterations"] > 1
    again = CliRunner().invoke(cli, ["train", "--resume", "run"])
    assert (again.exit_code, "complete" in again.stderr) == (0, True)


def test_too_small_a_budget_names_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="give at least 37s"):
        plan(tiny(), PACE, 30, spent=20)
    monkeypatch.setattr("cnnlite.training.launch.measure", lambda *_: PACE)
    result = run("--budget", "5s")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "give at least " in result.stderr
    assert not os.path.exists("runs")


def test_a_dry_run_tells_all_and_leaves_nothing(here: Path) -> None:
    result = run("--dry-run")
    assert result.exit_code == 0, result.output
    for part in ("0 conv2d", "parameters ", "data  ", "106 images to train on", "21 steps of ", "memory"):
        assert part in result.stdout
    assert sorted(os.listdir(here)) == ["temporary", "tiny.yaml"]
    assert os.listdir(here / "temporary") == []
    assert "budget: " in run("--dry-run", "--budget", "60s").stdout


def test_a_dry_run_without_the_data_shows_the_network_and_says_what_is_missing() -> None:
    result = run("--dry-run", "-o", "data.dataset=cifar10", "-o", "data.root=nowhere")
    assert result.exit_code == 3
    assert "0 conv2d" in result.stdout
    assert "cnnlite download-cifar --data nowhere" in result.stderr


@pytest.mark.parametrize("measured", [["--dry-run"], ["--budget", "60s"]])
def test_what_keeps_a_training_from_starting_is_told_alike_before_it_is_measured(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        result = run("--quiet", *arguments)
        return result.exit_code, result.stderr

    wrong = ["-o", "data.drop_last=true", "-o", "train.batch_size=120"]
    assert told(*wrong, *measured) == told(*wrong)
    assert told(*wrong)[1].startswith("error: -o train.batch_size=120: train.batch_size: ")

    def starve(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Network, "forward", starve)
    assert told(*measured) == told()
    assert "batch size 16" in told()[1]


@pytest.mark.parametrize("text", ["", "20", "0m", "m", "-5m", "20 minutes", "1m1h", "1..5h", "nanm", "9" * 400 + "h"])
def test_other_times_are_refused_with_examples(text: str) -> None:
    result = run("--budget", text)
    assert result.exit_code == 2
    assert "write 90s, 20m or 1h30m" in result.stderr


@pytest.mark.parametrize("arguments", [["--epochs", "3"], ["--resume", "x"]])
def test_a_budget_goes_with_nothing_that_decides_the_steps(arguments: list[str]) -> None:
    assert run("--budget", "20m", *arguments).exit_code == 2
    assert run("--dry-run", "--resume", "x").exit_code == 2
