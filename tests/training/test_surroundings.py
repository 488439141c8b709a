"""Disks that are full, folders that cannot be written, too little memory, plain terminals, clocks that jump."""

import ctypes
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnlite.config.load import render
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import load_data
from cnnlite.tools.verify_resume import differences
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from tests.support.locales import PYTHON, with_locale
from tests.support.small_runs import figures, tiny

ROOT = Path(__file__).parents[2]
TRAIN = ["-m", "cnnlite", "train", "--threads", "1"]
NEW = ["-c", "tiny.yaml", "-o", "train.epochs=20"]


pytestmark = pytest.mark.usefixtures("here")


def run(
    *arguments: str, before: Callable[[], object] | None = None, locale: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-W", "error"] if locale is None else PYTHON
    environment = None if locale is None else with_locale(**locale)
    done = subprocess.run(
        [*python, *TRAIN, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        preexec_fn=before,
    )
    assert "Traceback" not in done.stderr
    return done


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    directory = RunDirectory.create_at(folder)
    config = tiny(epochs=1)
    directory.write_text("config.yaml", render(config))
    train(config, directory, dataset=load_data(config), reporter=Reporter(quiet=True), stop=StopFlag())
    directory.close()
    return folder


def test_a_full_disk_leaves_the_old_checkpoint_and_a_run_that_goes_on_with_the_same_bits(here: Path) -> None:
    constant = ["-c", "tiny.yaml", "-o", "train.epochs=null", "-o", "train.schedule=constant"]
    constant += ["-o", "data.validation=none"]  # so that `best` is of the end, and not of the config of the beginning
    longer = ["-o", "train.epochs=null", "-o", "train.iterations=25"]
    assert run(*constant, "-o", "train.iterations=25", "--run-dir", "whole").returncode == 0
    assert run(*constant, "-o", "train.iterations=5", "--run-dir", "full").returncode == 0
    before = {path: path.read_bytes() for path in here.glob("full/checkpoints/*")}

    full = run("--resume", "full", *longer, before=lambda: limit(resource.RLIMIT_FSIZE, 20_000))

    assert full.returncode == 5
    assert errors(full) == [
        "error: full/checkpoints/last.npz: cannot write: File too large",
        "error: the last checkpoint is whole; continue with: cnnlite train --resume full",
    ]
    assert {path: path.read_bytes() for path in here.glob("full/checkpoints/*")} == before
    assert run("--resume", "full", *longer).returncode == 0
    assert differences(Path("whole"), Path("full")) == []


def test_a_folder_that_cannot_be_written_is_found_before_training(here: Path, trained: Path) -> None:
    Path("closed").mkdir(mode=0o555)
    shutil.copytree(trained, "open")
    for folder in ("open", "open/checkpoints"):
        os.chmod(folder, 0o555)
    try:
        for arguments, place in (
            (["-c", "tiny.yaml", "--run-dir", "closed"], "closed"),
            (["-c", "tiny.yaml", "--run-dir", "closed/run"], "closed/run"),
            (["--resume", "open", "--epochs", "9"], "open"),
        ):
            done = run(*arguments, before=give_up_privileges)
            assert done.returncode == 5
            assert [line for line in errors(done) if place in line and "Permission denied" in line] == errors(done)
            assert "step" not in done.stderr
        assert os.listdir("closed") == []
    finally:
        for folder in ("open", "open/checkpoints"):
            os.chmod(folder, 0o755)


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        ("run/checkpoints/last.npz", ["--resume", "run", "--epochs", "4"], 3),
        ("run/checkpoints/last.npz", ["--resume", "run/checkpoints/last.npz", "--epochs", "4"], 3),
        ("run/metrics.csv", ["--resume", "run", "--epochs", "4"], 5),
        ("mine.yaml", ["-c", "mine.yaml"], 2),
        ("data/cifar-10-batches-py", ["-c", "tiny.yaml", "-o", "data.dataset=cifar10"], 3),
        ("data", ["-c", "tiny.yaml", "-o", "data.dataset=cifar10"], 3),
    ],
)
def test_what_may_not_be_read_is_named_and_stays_what_and_where_it_is(
    closed: str, arguments: list[str], code: int, here: Path, trained: Path
) -> None:
    shutil.copytree(trained, "run")
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    shutil.copy("tiny.yaml", "mine.yaml")
    checkpoints = {path: path.read_bytes() for path in here.glob("run/checkpoints/*")}
    os.chmod(closed, 0)
    done = run(*arguments, before=give_up_privileges)
    os.chmod(closed, 0o755)
    assert done.returncode == code
    assert re.match(f"error: {closed}: cannot .*: Permission denied", errors(done)[0])
    assert len(errors(done)) <= 2
    assert {path: path.read_bytes() for path in here.glob("run/checkpoints/*")} == checkpoints
    assert not Path("runs").exists()


def give_up_privileges() -> None:
    """Let permissions hold for root too, from the next exec on; whoever is not root needs no such thing."""
    drop_from_bounding_set, override_permissions, read_and_search = 24, 1, 2
    for privilege in (override_permissions, read_and_search):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, privilege, 0, 0, 0)


def limit(what: int, amount: int) -> None:
    resource.setrlimit(what, (amount, amount))


@pytest.mark.long
def test_too_little_memory_is_two_lines_and_exit_code_5() -> None:
    large = ["-o", "train.batch_size=800", "-o", "data.dataset.shapes.train_images=900", "-o", "data.augment=[]"]
    wide = ["-o", "model.0.conv2d.out_channels=3000"]  # the output fits by itself, but not beside all the rest
    done = run("-c", "tiny.yaml", *large, *wide, before=lambda: limit(resource.RLIMIT_AS, 3 * 2**30))
    assert done.returncode == 5, done.stderr
    assert re.match(
        r"error: out of memory with batch size 800: Unable to allocate [\d.]+ [MG]iB for an array", errors(done)[0]
    )
    assert errors(done)[0].endswith("lower train.batch_size (-o train.batch_size=400)")
    assert len(errors(done)) == 1
    assert not list(Path("runs").glob("*"))


def no_room_for_stacks() -> None:
    """Let no thread be started, by any user: its stack would be larger than all memory that the process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (8 * 2**30, hard))
    limit(resource.RLIMIT_AS, 4 * 2**30)


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [["-c", "tiny.yaml", "--quiet"], ["-c", "tiny.yaml", "--quiet", "--dry-run"]], ids=["run", "dry run"]
)
def test_where_no_thread_can_be_started_training_goes_on_and_says_so(arguments: list[str]) -> None:
    done = run(*arguments, "--threads", "3", before=no_room_for_stacks)
    assert done.returncode == 0, done.stderr
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: only 1 of 3 threads could be started")
    if "--dry-run" not in arguments:
        assert run(*NEW, "--epochs", "3", "--run-dir", "whole").returncode == 0
        assert differences(Path("whole"), Path("runs/tiny")) == []


@pytest.mark.parametrize("environment", [{"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_in_the_c_locale_streams_are_plain_lines_and_files_are_utf8(
    environment: dict[str, str],
) -> None:
    shutil.copy("tiny.yaml", "größe.yaml")
    done = run("-c", "größe.yaml", "--run-dir", "läufe", locale={"PYTHONCOERCECLOCALE": "0", **environment})
    assert done.returncode == 0, done.stderr
    log, result = (Path("läufe", name).read_text(encoding="utf-8") for name in ("log.txt", "result.json"))
    name = result.splitlines()[1].partition('"config": ')[2].strip(",")
    if "PYTHONUTF8" in environment:  # then the name of the file is no text to Python
        assert json.loads(name).encode(errors="surrogateescape").decode() == "größe"
    else:
        assert name == '"größe"'
        assert log.startswith("größe: shapes, ")


def test_without_a_terminal_there_is_one_plain_line_an_evaluation() -> None:
    done = run("-c", "tiny.yaml")
    first, *lines = done.stderr.splitlines()
    assert first.startswith("tiny: shapes")
    assert [re.match(r"epoch [\d.]+  step (\d+)/21  train loss", line)[1] for line in lines if "step" in line] == [  # type: ignore[index]
        row["step"] for row in figures(Path("runs/tiny"))[0]
    ]
    assert not set(done.stderr) & set("\r\x1b|%") - {"%"}


def test_a_clock_that_jumps_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def once(name: str) -> list[float]:
        directory = RunDirectory.create_at(tmp_path / name)
        train(tiny(), directory, dataset=load_data(tiny()), reporter=Reporter(quiet=True), stop=StopFlag())
        directory.close()
        rows = (tmp_path / name / "metrics.csv").read_text().splitlines()
        return [float(row.split(",")[2]) for row in rows[1:]]

    once("steady")
    chance = random.Random(0)
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: int(chance.uniform(-1e9, 4e9)))
    seconds = once("jumping")
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert seconds[-1] < 60
    assert differences(tmp_path / "steady", tmp_path / "jumping") == []


@pytest.mark.long
def test_the_long_checks_hold_where_they_are_short(here: Path) -> None:
    few = ["--kills", "2", "--epochs", "3", "--calls", "83", "--bits", "1999", "--steps", "200", "--looks", "0"]
    few += ["--fuzzing", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.soak", *few], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    memory, damage, calls, kills = done.stdout.splitlines()
    assert "200 steps, 40 validations" in memory
    assert "all refused" in damage
    assert re.search(r"killed at \d+ of the \d+ system calls", calls)
    assert "2 SIGKILLs" in kills
