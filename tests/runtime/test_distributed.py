"""Runs of several processes under mpiexec: the same as one alone, and failing together."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runtime import distributed
from cnnlite.training.evaluation import evaluate_checkpoint
from tests.support.small_runs import assert_same_run, figures

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-W", "error"]
COMMAND = [*PYTHON, "-m", "cnnlite"]
TRAIN = ["train", "--threads", "1", "-c", "mine.yaml"]
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}") or ""
needs_mpi = pytest.mark.skipif(
    not MPIEXEC or importlib.util.find_spec("mpi4py") is None, reason='needs mpi4py and mpiexec: "cnnlite[mpi]"'
)

# 122 images in batches of 10: they do not divide among 4 ranks, and the last batch of an epoch has fewer than 4.
CONFIG = """\
data:
  dataset: {shapes: {train_images: 140, test_images: 520}}
  validation: 18
  sampling: balanced
  augment: [random_flip, random_crop]
  mix: cutmix
model:
  - conv2d: {out_channels: 6, kernel_size: 3, stride: 2}
  - batch_norm
  - relu
  - max_pool2d: {kernel_size: 3, stride: 3}
  - residual: {body: [{conv2d: {out_channels: 6, kernel_size: 3, padding: same}}, batch_norm], drop_probability: 0.3}
  - dropout: {p: 0.2}
  - flatten
  - linear: {out_features: 64}
  - relu
  - linear: {out_features: 10}
train:
  iterations: 50
  batch_size: 10
  loss: {cross_entropy: {label_smoothing: 0.1, class_weights: [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]}}
  optimizer: {sgd: {lr: 0.02, momentum: 0.9, weight_decay: 0.001}}
  clip_norm: 5.0
  validate_every: 5
  checkpoint_every: 10
"""

FAULTY = """\
import os, signal, time
from pathlib import Path
from cnnlite.cli import main
from cnnlite.nn.network import Network

what, rank = os.environ["FAULT"].split()
forward = Network.forward

def faulty(self, x, *, training, step=0):
    if training and step >= 25:
        if what == "slow":
            Path("slow").touch()
            time.sleep(0.2)
        elif os.environ["PMI_RANK"] == rank:
            if what == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"MemoryError": MemoryError, "ValueError": ValueError}[what]("no room")
    return forward(self, x, training=training, step=step)

Network.forward = faulty
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all tests of this file work: they compare runs with one another."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "faulty.py").write_text(FAULTY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("CNNLITE_DATA", raising=False)
        yield folder


def seconds_to_end() -> float:
    """Ten seconds, within which all ranks have to end; more where many other processes want the cores too."""
    return 10 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def under_mpi(count: int, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [MPIEXEC, "-n", str(count), *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def train(count: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "train", "--threads", "1", *arguments]
    if count == 1:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)
    return under_mpi(count, *command)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[int, Path]:
    """The same run on 1, 2 and 4 ranks."""
    runs = {count: folder / f"whole-{count}" for count in (1, 2, 4)}
    for count, path in runs.items():
        done = train(count, "-c", "mine.yaml", "--run-dir", str(path))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("test accuracy") == 1
        assert done.stderr.count("step 25/50") == (path / "log.txt").read_text().count("step 25/50") == 1
    return runs


def assert_close(one: Path, other: Path) -> None:
    (rows, result), (other_rows, other_result) = figures(one), figures(other)
    assert len(rows) == len(other_rows) == 10
    for row, other_row in zip(rows, other_rows, strict=True):
        for name in ("step", "train_accuracy"):
            assert float(row[name]) == pytest.approx(float(other_row[name]), rel=1e-6)
        for name in ("train_loss", "validation_loss"):
            assert float(row[name]) == pytest.approx(float(other_row[name]), rel=1e-5)
    assert result["test_loss"] == pytest.approx(other_result["test_loss"], rel=1e-5)


@needs_mpi
def test_losses_do_not_depend_on_the_number_of_ranks(whole: dict[int, Path]) -> None:
    assert_close(whole[1], whole[2])
    assert_close(whole[1], whole[4])


@needs_mpi
def test_the_test_is_the_same_to_the_bit_on_one_rank(whole: dict[int, Path]) -> None:
    for count in (2, 4):
        found, _, _ = evaluate_checkpoint(whole[count] / "checkpoints" / "best.npz", "test")
        result = figures(whole[count])[1]
        assert (found.loss, found.accuracy, found.images) == (result["test_loss"], result["test_accuracy"], 520)


@needs_mpi
def test_a_killed_rank_ends_all_and_as_many_ranks_resume_with_the_same_bits(whole: dict[int, Path]) -> None:
    process = subprocess.Popen(
        [MPIEXEC, "-n", "2", *PYTHON, "faulty.py", *TRAIN, "--run-dir", "killed"],
        env={**os.environ, "FAULT": "SIGKILL 1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(Path("killed/checkpoints/previous.npz"))
    assert process.wait(timeout=seconds_to_end()) != 0
    assert load_checkpoint(Path("killed/checkpoints/last.npz")).meta["step"] == 20
    done = train(2, "--resume", "killed")
    assert done.returncode == 0, done.stderr
    assert_same_run(whole[2], Path("killed"))


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_run_and_another_number_of_ranks_resumes_it(
    number: signal.Signals, whole: dict[int, Path]
) -> None:
    run, slow = Path(f"stopped-{number}"), Path("slow")
    slow.unlink(missing_ok=True)
    process = subprocess.Popen(
        [MPIEXEC, "-n", "2", *PYTHON, "faulty.py", *TRAIN, "--run-dir", str(run)],
        env={**os.environ, "FAULT": "slow 0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(slow)
    process.send_signal(number)
    _, err = process.communicate(timeout=seconds_to_end())
    assert process.returncode == 128 + number
    assert err.count(f"stopped by {number.name}; continue with: mpiexec -n 2 cnnlite train --resume {run}\n") == 1
    assert 25 < load_checkpoint(run / "checkpoints/last.npz").meta["step"] < 50
    done = train(1, "--resume", str(run))
    assert done.returncode == 0, done.stderr
    assert_close(whole[1], run)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_mpi
@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (
            "MemoryError 1",
            5,
            "error: rank 1 on HOST: out of memory with batch size 10: no room; lower train.batch_size",
        ),
        ("ValueError 1", 1, "error: rank 1 on HOST: no room (ValueError)"),
        ("ValueError 0", 1, "error: ValueError: no room"),
    ],
)
def test_a_rank_that_raises_ends_all_with_its_exit_code_and_one_message(
    folder: Path, fault: str, code: int, message: str
) -> None:
    path = fault.replace(" ", "-")
    done = under_mpi(2, *PYTHON, "faulty.py", *TRAIN, "--run-dir", path, FAULT=fault)
    assert done.returncode == code
    assert message.replace("HOST", os.uname().nodename) in done.stderr
    assert done.stderr.count("no room") == 1
    assert "Traceback" not in done.stderr
    assert load_checkpoint(Path(path) / "checkpoints" / "last.npz").meta["step"] == 20


OTHERS = {
    "config": "import sys; sys.argv += ['-o', 'train.batch_size=11']",
    "images": (
        "import dataclasses; from cnnlite.training import launch; load = launch.checked_data;"
        "launch.checked_data = lambda *asked: dataclasses.replace(load(*asked), digest='0')"
    ),
    "version": "import cnnlite; cnnlite.__version__ = '9.9'",
}


@needs_mpi
@pytest.mark.parametrize(
    ("other", "code", "message"),
    [
        ("config", 2, "error: rank 1 on HOST has train.batch_size 11, rank 0 on HOST has 10"),
        ("images", 3, "error: rank 1 on HOST has images of SHA-256 '0', rank 0 on HOST has "),
        ("version", 2, "error: rank 1 on HOST has cnnlite '9.9', rank 0 on HOST has "),
    ],
)
def test_ranks_with_another_config_or_dataset_or_version_are_refused_before_the_first_step(
    folder: Path, other: str, code: int, message: str
) -> None:
    options = ["train", "-c", "mine.yaml", "--run-dir", "never"]
    changed = [*PYTHON, "-c", f"{OTHERS[other]}; from cnnlite.cli import main; main()", *options]
    done = under_mpi(1, *COMMAND, *options, ":", "-n", "1", *changed)
    assert done.returncode == code
    first, second = done.stderr.splitlines()
    assert first.startswith(message.replace("HOST", os.uname().nodename))
    assert second == "error: all ranks have to train the same network on the same images"
    assert not Path("never").exists()


@needs_mpi
@pytest.mark.parametrize("ranks", [3])
def test_what_ranks_put_together(folder: Path, ranks: int) -> None:
    done = under_mpi(ranks, *PYTHON, str(ROOT / "tests/support/rank_checks.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"


def start_with(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "train", "-c", "mine.yaml", "--run-dir", "never"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_a_launcher_without_mpi4py_is_one_line_that_names_the_extra(folder: Path) -> None:
    (folder / "without").mkdir()
    (folder / "without" / "mpi4py.py").write_text("raise ImportError")
    for rank, lines in (("0", 1), ("1", 0)):
        path = f"{folder / 'without'}{os.pathsep}{ROOT}"
        done = start_with(folder, PMI_SIZE="4", PMI_RANK=rank, PYTHONPATH=path)
        assert done.returncode == 2
        assert done.stderr.count('pip install "cnnlite[mpi]"') == done.stderr.count("\n") == lines


@needs_mpi
def test_a_launcher_of_another_mpi_is_refused_instead_of_training_several_times(folder: Path) -> None:
    done = start_with(folder, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: a launcher started several processes (OMPI_COMM_WORLD_SIZE=2), but the MPI here"
    )
    assert not Path("never").exists()


def test_one_process_is_alone_and_needs_no_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")  # of the job, not of the step
    modules: dict[str, Any] = {**sys.modules, "mpi4py": None}
    monkeypatch.setattr(sys, "modules", modules)
    with distributed.joined() as ranks:
        assert ranks.size == 1
        assert ranks.first
        assert ranks is distributed.current()
        with ranks.batch(7, lambda own: 4) as which:
            assert which == slice(0, 7)
        assert ranks.allgather(np.pi) == [np.pi]
