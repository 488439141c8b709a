"""Trainings that start from a trained network, whole or in part: by command, resumed, by workers and ranks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

import cnnlite
from cnnlite.cli import cli
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runtime.workers import supported
from tests.runtime.test_distributed import needs_mpi, under_mpi
from tests.support.small_runs import TINY, assert_same_run

pytestmark = pytest.mark.usefixtures("here")

KILLED = """
import os, signal
from cnnlite.cli import main
from cnnlite.training.loop import Training
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
Training.{method} = kill
main()
"""
FROZEN = r"^[01]\."


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", "--threads", "1", *arguments])


@pytest.fixture
def source(checkpoint: Path) -> Path:
    """A copy of a checkpoint, which a test may remove."""
    path = Path("source.npz")
    path.write_bytes(checkpoint.read_bytes())
    return path


def arrays(path: str, kind: str = "last") -> dict[str, Any]:
    return load_checkpoint(Path(path) / "checkpoints" / f"{kind}.npz").arrays


def test_a_training_goes_on_from_the_arrays_and_says_so(source: Path) -> None:
    done = run(
        "-c",
        "tiny.yaml",
        "--from",
        str(source),
        "--run-dir",
        "run",
        "--epochs",
        "0.01",
        "-o",
        "train.schedule=constant",
        "-o",
        "train.optimizer={sgd: {lr: 1.0e-30}}",
    )
    assert done.exit_code == 0, done.output
    assert f"8 of 8 arrays are from {source.absolute()}" in done.stderr
    known, now = load_checkpoint(source).arrays, arrays("run")
    for name in known:
        if name.startswith(("param/", "normalize/")):
            np.testing.assert_array_equal(now[name], known[name])
    facts = json.loads(Path("run/environment.json").read_text())["from"]
    assert (facts["path"], facts["taken"], len(facts["sha256"])) == (str(source.absolute()), 8, 64)
    assert yaml.safe_load(Path("run/config.yaml").read_text())["train"]["from"] == str(source.absolute())
    assert "6.weight" in Path("run/log.txt").read_text()


def test_the_normalization_of_the_source_is_used_and_kept_on_resume(source: Path) -> None:
    data = ["-o", "data.dataset={shapes: {train_images: 130, test_images: 20, seed: 5}}"]
    assert run("-c", "tiny.yaml", "--from", str(source), "--run-dir", "run", *data).exit_code == 0
    assert run("--resume", "run", "--epochs", "4").exit_code == 0
    for kind in ("normalize/mean", "normalize/std"):
        np.testing.assert_array_equal(arrays("run")[kind], load_checkpoint(source).arrays[kind])
    assert run("-c", "tiny.yaml", "--run-dir", "fresh", *data).exit_code == 0
    assert not np.array_equal(arrays("fresh")["normalize/mean"], arrays("run")["normalize/mean"])


def test_a_resumed_run_needs_the_source_no_longer_and_has_the_same_bits(source: Path) -> None:
    start = ["-c", "tiny.yaml", "--from", str(source), "--freeze", FROZEN]
    assert run(*start, "--run-dir", "whole").exit_code == 0
    assert run(*start, "--run-dir", "short", "--epochs", "1", "-o", "train.schedule=constant").exit_code == 0
    for method, moment in (("begin", "before the first step"), ("checkpoint", "at the first save")):
        script = KILLED.format(method=method)
        command = [sys.executable, "-c", script, "train", *start, "--run-dir", moment]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
    source.unlink()
    for moment in ("before the first step", "at the first save"):
        resumed = run("--resume", moment)
        assert resumed.exit_code == 0, resumed.output
        assert_same_run(Path("whole"), Path(moment))


def test_a_run_killed_between_its_start_and_its_config_is_made_again_in_its_place(source: Path) -> None:
    start = ["-c", "tiny.yaml", "--from", str(source), "--run-dir", "run"]
    script = KILLED.replace("from cnnlite.training.loop import Training", "from cnnlite.training import launch")
    script = script.replace("Training.{method}", "launch.render")
    done = subprocess.run([sys.executable, "-c", script, "train", *start], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(os.listdir("run")) == [".lock", "checkpoints", "environment.json", "start.npz"]
    assert run(*start, "--epochs", "0.1").exit_code == 0
    os.mkdir("mine")
    Path("mine/start.npz").write_text("mine")
    refused = run(*start[:-1], "mine")
    assert (refused.exit_code, "mine: is not empty" in refused.stderr) == (2, True)
    assert Path("mine/start.npz").read_text() == "mine"


def test_a_run_that_came_to_nothing_leaves_no_directory(source: Path) -> None:
    done = run("-c", "tiny.yaml", "--from", str(source), "-o", "train.batch_size=2000", "-o", "data.drop_last=true")
    assert done.exit_code != 0
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["missing.npz", "runs/missing", "missing.safetensors", "tiny.yaml"])
def test_nothing_is_made_where_the_source_is_missing_or_foreign(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnlite.training import launch

    if "tiny" not in name:
        monkeypatch.setattr(launch, "checked_data", lambda *_: pytest.fail("data are read first"))
    before = sorted(os.listdir())
    done = run("-c", "tiny.yaml", "--from", name)
    assert done.exit_code in (2, 3), done.output
    assert name in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_a_dry_run_shows_what_would_be_taken_and_makes_nothing(source: Path) -> None:
    done = run("-c", "tiny.yaml", "--from", str(source), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "8 of 8 arrays are from" in done.stdout
    missing = run("-c", "tiny.yaml", "--from", "missing.npz", "--dry-run")
    assert (missing.exit_code, "missing.npz" in missing.stderr) == (3, True)
    assert not Path("runs").exists()


def test_what_the_run_keeps_of_its_start_is_checked_when_it_is_resumed_before_its_first_step(source: Path) -> None:
    script = KILLED.format(method="begin")
    command = [sys.executable, "-c", script, "train", "-c", "tiny.yaml", "--from", str(source), "--run-dir", "run"]
    subprocess.run(command, capture_output=True, timeout=60)
    start = Path("run/start.npz")
    whole = start.read_bytes()
    start.write_bytes(whole[:-1])
    done = run("--resume", "run")
    assert (done.exit_code, "start.npz" in done.stderr) == (3, True), done.output
    start.write_bytes(Path("run/start.npz").read_bytes() + b" ")
    assert run("--resume", "run").exit_code == 3
    start.write_bytes(whole)
    assert run("--resume", "run").exit_code == 0


def test_another_source_or_freeze_is_refused_on_resume(source: Path) -> None:
    assert run("-c", "tiny.yaml", "--from", str(source), "--run-dir", "run", "--epochs", "1").exit_code == 0
    for option, word in (
        (["--from", "other.npz"], "train.from: was"),
        (["--freeze", "bias"], "train.freeze: was null"),
    ):
        done = run("--resume", "run", *option)
        assert (done.exit_code, word in done.stderr) == (2, True), done.output


# Freezing


@pytest.mark.parametrize(
    "optimizer", ["{sgd: {lr: 0.1, momentum: 0.9, weight_decay: 0.5}}", "{adam: {lr: 0.01, weight_decay: 0.1}}"]
)
def test_what_is_frozen_is_not_updated_decayed_or_averaged_and_its_statistics_stand_still(
    optimizer: str, source: Path
) -> None:
    options = ["-o", f"train.optimizer={optimizer}", "-o", "train.averaging={ema: {decay: 0.9}}"]
    done = run("-c", "tiny.yaml", "--from", str(source), "--freeze", FROZEN, "--run-dir", "run", *options)
    assert done.exit_code == 0, done.output
    assert "frozen: 4 of 6 parameters, 180 of 1,690 numbers; 1 layer keeps its statistics" in done.stderr
    known, now = load_checkpoint(source).arrays, arrays("run")
    for name in known:
        if name.startswith(("param/0", "param/1", "buffer/1")):
            np.testing.assert_array_equal(now[name], known[name])
    assert not np.array_equal(now["param/6.weight"], known["param/6.weight"])
    assert {name for name in now if name.startswith("average/")} == {"average/param/6.weight", "average/param/6.bias"}
    assert {name.split("/")[-1] for name in now if name.startswith("optimizer/")} == {"6.weight", "6.bias"}


def test_optimizers_see_only_what_is_trained() -> None:
    composite = (
        "{composite: {members: [{match: '^0', optimizer: {sgd: {lr: 1}}}, {match: ., optimizer: {sgd: {lr: 1}}}]}}"
    )
    done = run("-c", "tiny.yaml", "--freeze", "^0", "-o", f"train.optimizer={composite}")
    assert (done.exit_code, "members[0].match: '^0' matches no parameter that is left" in done.stderr) == (2, True)


@pytest.mark.parametrize(("match", "words"), [("nothing", "matches no parameter"), (".", "matches every parameter")])
@pytest.mark.parametrize("command", ["train", "validate", "summary", "bench"])
def test_a_pattern_that_freezes_nothing_or_all_is_an_error_of_every_command(
    command: str, match: str, words: str
) -> None:
    arguments = ["train", "-c", "tiny.yaml"] if command == "train" else [command, "tiny.yaml"]
    done = CliRunner().invoke(cli, [*arguments, "-o", f"train.freeze={match}"])
    assert done.exit_code == 2, done.output
    assert "train.freeze" in done.stderr
    assert words in done.stderr


def test_a_frozen_training_resumes_with_the_same_bits_and_verify_resume_says_so(source: Path) -> None:
    options = [
        "-o",
        f"train.from={source}",
        "-o",
        f"train.freeze={FROZEN}",
        "-o",
        "train.averaging={ema: {decay: 0.9}}",
    ]
    done = CliRunner().invoke(cli, ["verify-resume", "tiny.yaml", *options])
    assert done.exit_code == 0, done.output
    assert "end with the same bits" in done.output


@pytest.mark.long
@pytest.mark.skipif(not supported(), reason="workers are threads here")
def test_any_number_of_workers_gives_the_same_bits(source: Path) -> None:
    wide = ["-o", "model.0.conv2d.out_channels=420", "-c", "tiny.yaml", "--epochs", "1", "--quiet"]
    command = [sys.executable, "-W", "error", "-m", "cnnlite", "train", *wide]
    subprocess.run([*command, "--workers", "1", "--run-dir", "source"], check=True, timeout=100)
    for freeze in ("0.weight|^1", "^0", "weight"):
        for workers in "12":
            name = f"{freeze}-{workers}".replace("|", "-").replace("^", "")
            more = ["--from", "source", "--freeze", freeze, "--workers", workers, "--run-dir", name]
            subprocess.run([*command, *more], check=True, timeout=100)
        assert_same_run(*(Path(f"{freeze}-{workers}".replace("|", "-").replace("^", "")) for workers in "12"))


@needs_mpi
def test_ranks_start_from_what_the_first_one_reads(source: Path) -> None:
    more = ["-c", "tiny.yaml", "--from", str(source), "--freeze", "^0", "--threads", "1", "--epochs", "1"]
    command = [sys.executable, "-W", "error", "-m", "cnnlite", "train", *more]
    done = under_mpi(2, *command, "--run-dir", "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("8 of 8 arrays are from") == 1
    assert run(*more, "--run-dir", "one").exit_code == 0
    one, two = arrays("one"), arrays("two")
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(two["param/0.weight"], load_checkpoint(source).arrays["param/0.weight"])
    missing = under_mpi(2, *command, "--from", "missing.npz", "--run-dir", "none")
    assert (missing.returncode, missing.stderr.count("missing.npz")) == (3, 1), missing.stderr
    assert not Path("none").exists()


def test_programs_start_from_a_network_too(source: Path) -> None:
    trained = cnnlite.train("tiny.yaml", from_=source, freeze=FROZEN, epochs=1, run_dir="run", quiet=True)
    assert trained.status == "complete"
    np.testing.assert_array_equal(arrays("run")["param/0.weight"], load_checkpoint(source).arrays["param/0.weight"])


def test_the_option_from_is_told_as_it_is_written() -> None:
    text = TINY + "  rename: [[a, b]]\n"
    Path("renamed.yaml").write_text(text)
    done = run("-c", "renamed.yaml")
    assert (done.exit_code, "say where to start from (--from)" in done.stderr) == (2, True), done.output
