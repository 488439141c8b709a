import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.runtime import engine, machine
from tests.support.small_runs import TINY

ROOT = Path(__file__).parents[2]
MB = 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux can forget a peak")
def test_peak_memory_sees_what_was_given_back_and_can_begin_anew() -> None:
    code = (  # in a process of its own, where nothing else is given back meanwhile
        "import numpy as np; from cnnlite.runtime import machine; machine.reset_peak_memory();"
        "print(machine.peak_memory_bytes()); np.ones(80 * 2**20, np.uint8); print(machine.peak_memory_bytes());"
        "machine.reset_peak_memory(); print(machine.peak_memory_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, high, after = map(int, done.stdout.split())
    assert 70 * MB < high - before < 200 * MB
    assert after < high - 60 * MB


def test_peak_memory_is_that_of_this_process_not_of_the_one_that_started_it() -> None:
    held = np.ones(400 * MB, np.uint8)
    code = "from cnnlite.runtime import machine; print(machine.peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 10 * MB < int(done.stdout) < 200 * MB
    del held


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process_limits_the_memory_that_it_may_use(name: str) -> None:
    code = (
        "import resource; from cnnlite.runtime import machine;"
        f"resource.setrlimit(resource.{name}, (5 * 10**9, 5 * 10**9));"
        "print(machine.memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 5 * 10**9


def test_gemm_peak_counts_the_operations_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.set_threads(3)

    def two_seconds(work: Any) -> float:
        work()
        return 2.0

    monkeypatch.setattr(machine, "_least_seconds", two_seconds)
    assert machine.gemm_peak() == pytest.approx(3 * 4 * 2 * 768**3 / 2 / 1e9)
    assert machine.memory_bandwidth() == pytest.approx(2 * 128 * MB / 2 / 1e9)


def test_of_several_calls_the_least_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROBES", 3)
    waits = iter([0.3, 0.05, 0.3])
    assert 0.05 <= machine._least_seconds(lambda: time.sleep(next(waits))) < 0.3
    assert not [*waits]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 fma avx512f avx512dq avx512bw avx512vl", "AVX-512"),
        ("fpu avx2 fma avx512f", "AVX2"),  # such as Knights Landing, for which OpenBLAS takes its AVX2 kernels
        ("fpu avx sse2", ""),
    ],
)
def test_vector_instructions_come_from_the_flags(flags: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: flags)
    assert machine.vectors() == expected


def test_where_the_system_tells_no_flags_numpy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    known = machine.vectors()
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: "")
    assert machine.vectors() == known
    assert machine.cpu_name()


@pytest.mark.parametrize(
    ("setting", "kernel", "vectors", "expected"),
    [
        ("Haswell", "Haswell", "AVX-512", True),
        ("ZEN", "Zen", "AVX-512", True),
        ("Prescott", "Prescott", "AVX2", True),
        ("Haswell", "Haswell", "AVX2", False),
        ("SkylakeX", "SkylakeX", "AVX-512", False),
        ("Cooperlake", "Cooperlake", "AVX-512", False),
        ("nonsense", "SkylakeX", "AVX-512", False),
        ("ARMV8", "armv8", "", False),
        ("Haswell", "unknown", "AVX-512", False),
        (None, "Haswell", "AVX-512", False),
        ("", "Haswell", "AVX-512", False),
    ],
)
def test_a_variable_that_pins_below_the_processor_is_named(
    setting: str | None, kernel: str, vectors: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if setting is not None:
        monkeypatch.setenv("OPENBLAS_CORETYPE", setting)
    monkeypatch.setattr(machine, "blas_kernel", lambda: kernel)
    monkeypatch.setattr(machine, "vectors", lambda: vectors)
    line = machine.pinned()
    assert (line is not None) == expected
    if line:
        assert f"OPENBLAS_CORETYPE={setting}" in line
        assert f"{kernel} kernel" in line
        assert "\n" not in line


@pytest.mark.skipif(machine.blas_kernel() == "unknown" or not machine.vectors(), reason="not OpenBLAS on x86-64")
def test_a_real_pin_is_found_and_left_as_the_user_set_it() -> None:
    code = "import os; from cnnlite.runtime import machine; print(machine.blas_kernel(), machine.pinned(), os.environ)"
    variables = {**machine.without_pins(), "OPENBLAS_CORETYPE": "Sandybridge"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Sandybridge OPENBLAS_CORETYPE=Sandybridge pins")
    assert "'OPENBLAS_CORETYPE': 'Sandybridge'" in done.stdout


def test_the_peak_without_pins_is_measured_without_them_on_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1024")
    engine.set_threads(2)
    seen: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> Any:
        seen.update(options, code=command[-1])
        return subprocess.CompletedProcess(command, 0, stdout="12.5\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert machine.unpinned_gemm_peak() == 12.5
    assert not set(machine.PINS) & seen["env"].keys()
    assert seen["env"].keys() >= {"PATH"}
    assert "set_threads(2)" in seen["code"]
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"


def test_the_peak_without_pins_is_measured_in_a_real_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cnnlite.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    peak = machine.unpinned_gemm_peak()
    assert peak is not None
    assert 0.1 < peak < 1e5


def test_a_peak_that_cannot_be_measured_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert machine.unpinned_gemm_peak() is None


@pytest.mark.parametrize("line", ["pinned for this test", None])
def test_train_says_once_that_a_variable_pins_the_kernel(
    line: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "pinned", lambda: line)
    command = ["train", "-c", "tiny.yaml", "--epochs", "1", "--threads", "1"]
    for arguments in (command, ["train", "--resume", "runs/tiny", "--epochs", "2", "--threads", "1"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr.count("pinned for this test") == bool(line)
    assert Path("runs/tiny/log.txt").read_text().count("pinned for this test") == 2 * bool(line)
    quiet = CliRunner().invoke(cli, [*command, "--quiet"])
    assert "pinned" not in quiet.output


WITH_BLAS = {"Build Dependencies": {"blas": {"name": "scipy-openblas", "found": True, "version": "0.3.31"}}}
WITHOUT = [
    {"Build Dependencies": {"blas": {"name": "none"}, "lapack": {"name": "none"}}},  # NumPy leaves out what is false
    {"Build Dependencies": {"blas": {"name": "auto", "found": False}}},
    {"Build Dependencies": {}},
    {},
]


def test_a_numpy_with_a_blas_is_not_complained_about(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.without_blas() is None
    monkeypatch.setattr(np, "show_config", lambda mode: WITH_BLAS)
    assert machine.without_blas() is None
    assert machine.blas_name() == "scipy-openblas 0.3.31"
    assert machine.cpu_features() == ""


@pytest.mark.parametrize("build", WITHOUT)
def test_a_numpy_without_a_blas_is_told_with_the_way_out(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "show_config", lambda mode: build)
    line = machine.without_blas()
    assert line is not None
    assert "without a BLAS" in line
    assert "50 times" in line
    assert "pip install" in line
    assert "\n" not in line
    assert machine.slowed() == line
    assert machine.blas_name() == "none"


def test_the_instructions_that_numpy_computes_with_are_those_it_was_left_with() -> None:
    found = machine.cpu_features().split()
    if not found:
        pytest.skip("nothing beyond what all processors have")
    variables = {**os.environ, "NPY_DISABLE_CPU_FEATURES": found[-1]}
    code = "from cnnlite.runtime import machine; print(machine.cpu_features())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == found[:-1]


def test_train_bench_and_doctor_tell_of_a_numpy_without_a_blas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    monkeypatch.setattr(np, "show_config", lambda mode: WITHOUT[0])
    monkeypatch.setattr(machine, "_PROBES", 1)
    for command in (
        ["train", "-c", "tiny.yaml", "--epochs", "1"],
        ["train", "--resume", "runs/tiny", "--epochs", "2"],
        ["bench", "tiny.yaml", "--steps", "1"],
        ["doctor"],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
        assert result.output.count("without a BLAS") == 1
