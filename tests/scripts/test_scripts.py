import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUCK = """#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then
    echo installing
    exec sleep 60
fi
exec "$REAL" "$@"
"""
"""An interpreter whose pip never ends."""


@pytest.mark.skipif(os.name == "nt", reason="the scripts are for bash")
@pytest.mark.parametrize(
    ("script", "venv", "python_in"),
    [
        ("setup", "", "bin/python"),
        ("setup", "another one", "bin/python"),
        ("setup", "", "Scripts/python.exe"),
        ("quickstart", "", "bin/python"),
    ],
)
def test_an_interrupted_installation_is_called_that(script: str, venv: str, python_in: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    python = tmp_path / (venv or ".venv") / python_in
    python.parent.mkdir(parents=True)
    system = "Windows_NT" if python.suffix else ""
    python.write_text(STUCK, encoding="utf-8")
    python.chmod(0o755)
    process = subprocess.Popen(
        [tmp_path / "scripts" / script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "REAL": sys.executable, "PYTHON": "", "CNNLITE_VENV": venv, "OS": system},
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    assert "installing\n" in iter(process.stdout.readline, "")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "scripts/setup: interrupted; run it again to go on\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such mode")
def test_what_begins_as_a_program_can_be_started_as_one() -> None:
    files = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    programs = {path.name for path in files if path.read_bytes().startswith(b"#!")}
    assert len(programs) > 10
    assert programs == {path.name for path in files if os.access(path, os.X_OK)}


def test_contributing_has_a_row_for_each_script() -> None:
    rows = re.findall(
        r"^\| `scripts/([\w.]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(rows) == sorted(
        path.name for path in (ROOT / "scripts").iterdir() if path.suffix in {"", ".py"} and path.is_file()
    )


def test_the_fuzzer_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ModuleNotFoundError(name='atheris')")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/fuzz.py", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    needs = "scripts/fuzz.py needs atheris: .venv/bin/python -m pip install atheris  (Linux, CPython 3.11 to 3.13)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", needs)


USAGE = "usage: scripts/setup [dev]     `dev` adds the tools that scripts/test runs; PYTHON names the interpreter\n"


@pytest.mark.skipif(os.name == "nt", reason="the scripts are for bash")
@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], (0, USAGE, "")),
        (["-h"], (0, USAGE, "")),
        (["plot"], (2, "", f"scripts/setup: unknown argument: plot\n{USAGE}")),
        (["dev", "x"], (2, "", f"scripts/setup: unknown argument: x\n{USAGE}")),
    ],
)
def test_setup_knows_one_argument(arguments: list[str], answer: tuple[int, str, str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    done = subprocess.run(
        [tmp_path / "scripts/setup", *arguments],
        env={**os.environ, "PYTHON": "/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == answer
    assert os.listdir(tmp_path) == ["scripts"]
