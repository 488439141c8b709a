import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnnlite import __version__
from cnnlite.config.load import Config, config_from_data
from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.environment import arithmetic, versions
from cnnlite.runs.results import Progress
from cnnlite.runtime import machine
from cnnlite.training.reporter import Reporter
from cnnlite.training.resume import check_same, check_version, describe_schedule, refused
from tests.support.small_runs import STEPS_PER_EPOCH, TINY, tiny

ROOT = Path(__file__).parents[2]


def made_by(made: Config, step: Any = 14, **facts: Any) -> Checkpoint:
    """The facts of a checkpoint that a run with this config would write."""
    meta = {"config": made.resolved, "step": step, "epoch": 2.0, "versions": versions()}
    return Checkpoint({}, meta | facts)


def said(config: Config, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]) -> str:
    check_same(config, checkpoint, Reporter())
    return capsys.readouterr().err


def test_the_same_config_resumes_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(tiny(), made_by(tiny()), capsys) == ""


def test_options_that_came_after_a_checkpoint_have_their_defaults_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    old = json.loads(json.dumps(tiny().resolved))
    del old["train"]["monitor"], old["data"]["sampling"], old["train"]["loss"]["cross_entropy"]["class_weights"]
    before = made_by(tiny(), config=old)
    assert said(tiny(), before, capsys) == ""
    assert [change.path for change in refused(tiny(monitor="loss"), before)] == ["train.monitor"]
    nonsense = made_by(tiny(), config={"model": []})
    assert "train.monitor" in {change.path for change in refused(tiny(), nonsense)}


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


def test_of_many_differences_a_few_are_shown_with_a_hint() -> None:
    other = config_from_data(tiny().resolved | {"model": ["flatten", {"linear": {"out_features": 10}}]})
    with pytest.raises(ConfigError) as caught:
        check_same(other, made_by(tiny()), Reporter())
    *shown, last = str(caught.value).split("\n")
    assert len(shown) == 5
    assert all(line.startswith("model[") for line in shown)
    assert re.match(r"and \d+ more differences; a resumed run may change only train.epochs, .*; leave out config", last)


def test_another_version_is_refused_and_other_packages_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match=r"made by cnnlite 9\.9, .* install 9\.9"):
        check_version(made_by(tiny(), versions={"cnnlite": "9.9"}))
    text = said(tiny(), made_by(tiny(), versions={"cnnlite": __version__, "numpy": "1.0", "python": "3.1"}), capsys)
    assert "warning: numpy was 1.0" in text
    assert f"python was 3.1, is {sys.version.split()[0]}" in text


def test_another_kernel_processor_or_number_of_ranks_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    then = {"blas": "openblas 0.2", "blas_kernel": "Nehalem", "cpu_features": "MMX", "ranks": 3}
    text = said(tiny(), made_by(tiny(), arithmetic=then), capsys)
    for part in (
        f"warning: blas was openblas 0.2, is {machine.blas_name()}; ",
        f"blas kernel was Nehalem, is {machine.blas_kernel()}; ",
        f"cpu features was MMX, is {machine.cpu_features()}; ",
        "ranks was 3, is 1: from here on, bits will differ from those of a run without interruption\n",
    ):
        assert part in text
    assert said(tiny(), made_by(tiny(), arithmetic=arithmetic()), capsys) == ""
    assert "blas was none, is" in said(tiny(), made_by(tiny(), arithmetic={"blas": ""}), capsys)


@pytest.mark.parametrize("then", [None, 3, [], {}, {"unknown": 1}])
def test_what_a_checkpoint_does_not_tell_of_the_machine_is_not_compared(
    then: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(tiny(), made_by(tiny(), arithmetic=then), capsys) == ""


def test_what_a_stranger_says_of_the_machine_is_made_fit_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(tiny(), made_by(tiny(), arithmetic={"blas_kernel": "\x1b[2J" + "x" * 10_000, "ranks": [[]]}), capsys)
    assert "\x1b" not in text
    assert len(text) < 500


@pytest.mark.skipif(machine.blas_kernel() in ("unknown", "Nehalem"), reason="not OpenBLAS on x86-64")
def test_a_real_resume_on_another_kernel_says_so_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")

    def train(*arguments: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cnnlite", "train", *arguments, "--quiet"],
            env={**machine.without_pins(), "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    assert train("-c", "tiny.yaml", "--epochs", "1") == ""
    said = train("--resume", "runs/tiny", "--epochs", "2", OPENBLAS_CORETYPE="Nehalem")
    assert said.count("warning: ") == 1
    assert f"blas kernel was {machine.blas_kernel()}, is Nehalem: from here on, bits will differ" in said
    said = train("--resume", "runs/tiny", "--epochs", "3", OPENBLAS_CORETYPE="Nehalem")
    assert said == ""
    recorded = json.loads(Path("runs/tiny/environment.json").read_text(encoding="utf-8"))
    assert recorded["blas_kernel"] == machine.blas_kernel()
    kernels = [session["changed"].get("blas_kernel") for session in recorded["sessions"]]
    assert kernels == [None, "Nehalem", None]
    assert [session["step"] for session in recorded["sessions"]] == [0, 7, 14]


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
