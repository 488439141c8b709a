"""Runs that are killed before their first checkpoint: whoever goes on with them gets there, with the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from tests.support.small_runs import assert_same_run

pytestmark = pytest.mark.usefixtures("here")

KILLED = """
import os, signal
from cnnlite.cli import main
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{patch}
main()
"""
MOMENTS = {
    "with a config alone": "from cnnlite.runs.directory import RunDirectory; RunDirectory.append_to = kill",
    "before the first step": "from cnnlite.training.loop import Training; Training.begin = kill",
    "in a step": "from cnnlite.nn.network import Network; Network.backward = kill",
    "with a row": "from cnnlite.training.reporter import Reporter; Reporter.row = kill",
    "in the first save": "from cnnlite.utils import files; files.os.fsync = lambda _: None; files._sync_folder = kill",
}
CONFIG = ["-c", "tiny.yaml", "-o", "train.validate_every=3", "-o", "data.root=/nowhere"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", "--threads", "1", *arguments])


def killed(patch: str, *arguments: str) -> None:
    script = KILLED.format(patch=patch)
    done = subprocess.run([sys.executable, "-c", script, "train", *arguments], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def whole() -> Path:
    assert run(*CONFIG, "--run-dir", "whole").exit_code == 0
    return Path("whole")


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_before_its_first_checkpoint_is_started_from_its_config_with_the_same_bits(
    moment: str, whole: Path
) -> None:
    patch = MOMENTS[moment]
    if moment == "in the first save":  # config and environment are saved too
        patch = "from cnnlite.utils import files; from cnnlite.runs import checkpoint; checkpoint._sha256 = kill"
    killed(patch, *CONFIG, "--run-dir", "killed")
    assert not list(Path("killed/checkpoints").glob("[!.]*"))
    if moment not in ("with a config alone", "before the first step"):
        killed(patch, "--resume", "killed")  # and again
    resumed = run("--resume", "killed")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming killed before its first checkpoint: from its config, from step 0" in resumed.stderr
    assert_same_run(whole, Path("killed"))


@pytest.mark.parametrize("name", ["mkdir", "lock", "environment"])
def test_a_run_killed_before_it_has_a_config_says_how_to_start_it_and_can_be(name: str, whole: Path) -> None:
    patch = {
        "mkdir": "from cnnlite.runs import directory as runs; runs.check_writable = kill",
        "lock": "from cnnlite.training import launch; launch.with_session = kill",
        "environment": "from cnnlite.training import launch; launch.render = kill",
    }[name]
    killed(patch, *CONFIG, "--run-dir", "killed")
    resumed = run("--resume", "killed")
    way_out = "start it again with --config and --run-dir killed"
    assert (resumed.exit_code, resumed.stderr) == (
        3,
        f"error: killed: was ended before its config was written; {way_out}\n",
    )
    assert run(*CONFIG, "--run-dir", "killed").exit_code == 0
    assert_same_run(whole, Path("killed"))


def test_only_what_any_resumed_run_may_change_can_be_changed() -> None:
    killed(MOMENTS["in a step"], *CONFIG, "--run-dir", "killed")
    refused = run("--resume", "killed", "-o", "train.optimizer.adam.lr=0.1")
    assert (refused.exit_code, "adam.lr: was 0.003, is 0.1" in refused.stderr) == (2, True)
    longer = run("--resume", "killed", "--epochs", "4")
    assert longer.exit_code == 0, longer.output
    assert "changed: train.epochs: was 3.0, is 4.0\nresuming" in longer.stderr  # nothing of a schedule to go on with
    assert run(*CONFIG, "--epochs", "4", "--run-dir", "four").exit_code == 0
    assert_same_run(Path("four"), Path("killed"))


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_run_whose_checkpoints_are_damaged_or_gone_is_never_started_anew(here: Path) -> None:
    assert run(*CONFIG, "--run-dir", "run").exit_code == 0
    figures = Path("run/metrics.csv").read_bytes()
    for path in here.glob("run/checkpoints/*.npz"):
        corrupt(path)
    os.unlink("run/result.json")
    for _ in range(2):  # the first sets them aside
        done = run("--resume", "run")
        assert (done.exit_code, "start a new run instead" in done.stderr) == (3, True), done.stderr
    assert len(list(here.glob("run/checkpoints/*.corrupt.npz"))) == 3
    for path in here.glob("run/checkpoints/*.npz"):
        path.unlink()
    done = run("--resume", "run")
    assert (done.exit_code, "figures from after step 3, where a checkpoint was written" in done.stderr) == (3, True)
    Path("run/result.json").write_text("{}")
    assert run("--resume", "run").exit_code == 3
    assert Path("run/metrics.csv").read_bytes() == figures


def test_a_second_damaged_checkpoint_does_not_replace_the_first_that_was_set_aside() -> None:
    assert run(*CONFIG, "--run-dir", "run").exit_code == 0
    last, aside = Path("run/checkpoints/last.npz"), Path("run/checkpoints/last.corrupt.npz")
    aside.write_bytes(b"the first")
    corrupt(last)
    os.unlink("run/result.json")
    assert run("--resume", "run").exit_code == 0
    assert aside.read_bytes() == b"the first"
    assert last.with_name("last.corrupt-2.npz").exists()


@pytest.mark.parametrize("name", ["checkpoints", "result.json"])
def test_whether_there_is_something_to_lose_is_not_guessed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(MOMENTS["in a step"], *CONFIG, "--run-dir", "killed")
    for call in ("listdir", "lstat"):
        function = getattr(os, call)

        def fail(path: object, *arguments: object, function: object = function, **options: object) -> object:
            if str(path).endswith(name):
                raise OSError(116, "Stale file handle")
            return function(path, *arguments, **options)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            done = run("--resume", "killed")
        if (name, call) != ("result.json", "listdir"):
            assert (done.exit_code, "Stale file handle" in done.stderr) == (5, True), (call, done.output)
            assert "resuming" not in done.stderr


def test_tensorboard_shows_nothing_twice_of_a_run_that_began_anew() -> None:
    pytest.importorskip("tensorboardX", reason='needs tensorboardX: pip install "cnnlite[tensorboard]"')
    from tests.training.test_tensorboard import scalars

    killed(
        "from cnnlite.training.loop import RunDirectory; RunDirectory.save = kill",
        *CONFIG,
        "--tensorboard",
        "--run-dir",
        "killed",
    )
    assert run("--resume", "killed").exit_code == 0
    steps = [step for name, step, _ in scalars(Path("killed/tensorboard")) if name == "lr"]
    assert steps == [3, 6, 9, 12, 15, 18, 21]
