import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cnnlite import __version__
from cnnlite.cli import cli
from cnnlite.data.download import cifar
from cnnlite.runtime import cgroups, machine
from tests.support.cifar_files import binary_files, cifar100_files, described, python_files, write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, no pins, and quick measurements."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "_PROBES", 1)
    for name in ("CNNLITE_DATA", *machine.PINS):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def doctor(*arguments: str) -> dict[str, str]:
    """The lines by their names."""
    result = CliRunner().invoke(cli, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return {line[:20].strip(): line[20:] for line in result.stdout.splitlines()}


def test_each_finding_has_a_line() -> None:
    found = doctor()
    assert list(found) == [
        "CPU",
        "cores",
        "limits",
        "BLAS",
        "pins",
        "GEMM peak",
        "memory",
        "versions",
        *(f"extra {name}" for name in ("plot", "images", "onnx", "mpi", "safetensors", "tensorboard")),
        "dataset cifar10",
        "dataset cifar100",
    ]
    assert machine.cpu_name() in found["CPU"]
    assert machine.blas_kernel() in found["BLAS"]
    assert found["pins"].startswith("none")
    assert "GFLOP/s" in found["GEMM peak"]
    assert "GB/s" in found["memory"]
    assert f"cnnlite {__version__}" in found["versions"]
    for package in ("numpy", "python", "click", "PyYAML", "tqdm"):
        assert f"{package} " in found["versions"]


def test_limits_of_control_groups_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "memory_limit", lambda: None)
    monkeypatch.setattr(cgroups, "processors", lambda: None)
    assert doctor()["limits"] == "none set by a control group"
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 2 * 10**9)
    assert doctor()["limits"] == "2.0 GB of memory, set by a control group"
    monkeypatch.setattr(cgroups, "processors", lambda: 0.5)
    found = doctor()
    assert found["limits"] == "2.0 GB of memory and the time of 0.5 cores, set by a control group"
    assert found["cores"].startswith("1 to use; a training has as many workers")


def test_a_pin_is_shown_with_its_measured_cost_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(machine, "gemm_peak", lambda: 100.0)
    monkeypatch.setattr(machine, "unpinned_gemm_peak", lambda: 190.0)
    assert doctor()["pins"] == "OPENBLAS_CORETYPE=Haswell; 100 GFLOP/s with, 190 without: 1.90 times as fast"
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    monkeypatch.setattr(machine, "unpinned_gemm_peak", lambda: None)
    assert "could not be measured" in doctor()["pins"]


def test_extras_are_found_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return object() if name == "PIL" else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    found = doctor()
    assert (found["extra images"], found["extra plot"]) == ("PIL present", "matplotlib absent")


def test_missing_datasets_come_with_the_command_that_gets_them() -> None:
    found = doctor("--data", "images")
    assert found["dataset cifar10"] == "not in images; `cnnlite download-cifar --data images` gets it"
    assert found["dataset cifar100"].endswith("`cnnlite download-cifar --data images --dataset cifar100` gets it")
    found = doctor("--data", "my images")
    assert found["dataset cifar10"] == "not in my images; `cnnlite download-cifar --data 'my images'` gets it"


def test_whole_datasets_are_verified_wherever_the_user_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    files = python_files()
    monkeypatch.setitem(cifar.ARCHIVES, "cifar10", described(files))
    folder = write(Path("d/cifar-10-batches-py"), files)
    for root in ("d", str(folder)):
        found = doctor("--data", root)
        assert found["dataset cifar10"] == f"{folder}: complete and verified"
        assert found["dataset cifar100"].startswith(f"not in {root}")
    monkeypatch.setenv("CNNLITE_DATA", "d")
    assert "verified" in doctor()["dataset cifar10"]


def test_datasets_without_the_published_checksums_are_read_to_see_whether_they_can_be_used() -> None:
    write(Path("d/cifar-10-batches-bin"), binary_files())
    write(Path("d/cifar-100-python"), cifar100_files())
    found = doctor("--data", "d")
    assert "can be used, 36 images" in found["dataset cifar10"]
    assert "can be used, 400 images" in found["dataset cifar100"]


def test_damaged_datasets_are_named_with_the_file() -> None:
    files = python_files()
    folder = write(Path("d/cifar-10-batches-py"), {**files, "data_batch_2": files["data_batch_2"][:100]})
    assert "data_batch_2" in doctor("--data", "d")["dataset cifar10"]
    (folder / "data_batch_3").unlink()
    assert "data_batch_3 missing" in doctor("--data", "d")["dataset cifar10"]


def test_a_folder_that_cannot_be_read_is_said_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> bool:
        raise PermissionError(13, "Permission denied", "d")

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert "Permission denied" in doctor("--data", "d")["dataset cifar10"]


def test_a_thread_that_cannot_be_started_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(machine, "cpu_name", lambda: threading.Thread().start())  # as a library might
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 5
    assert result.stderr.splitlines()[-1] == (
        "error: no more threads can be started; allow more processes (ulimit -u, pids.max) or memory"
    )
