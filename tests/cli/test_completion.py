"""What a shell is told to complete, through the variable that it sets."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from cnnlite.cli import cli
from cnnlite.config.bundled import bundled_configs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with configs and runs of one's own."""
    for run in ("small", "small-2"):
        (tmp_path / "runs" / run / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / run / "checkpoints" / "best.npz").touch()
    (tmp_path / "runs" / "notes").mkdir()
    for file in ("smaller.yaml", "mine.yml", "notes.txt"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)


def complete(line: str) -> list[tuple[str, str]]:
    *words, last = line.split(" ")
    found = ShellComplete(cli, {}, "cnnlite", "_CNNLITE_COMPLETE").get_completions(words, last)
    return [(item.type, item.value) for item in found]


def plain(*words: str) -> list[tuple[str, str]]:
    return [("plain", word) for word in words]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exp", plain("explain", "export")),
        ("train --res", plain("--resume")),
        ("train --config sm", plain("small", "smaller.yaml")),
        ("train -c mi", plain("mine.yml")),
        ("summary quick", plain("quickstart")),
        ("validate configs/", [("file", "configs/")]),
        ("configs show sm", plain("small")),
        ("configs copy smaller", []),
        ("report ", plain("runs/small", "runs/small-2")),
        ("train --resume runs/small-", plain("runs/small-2")),
        ("compare runs/small runs/", plain("runs/small", "runs/small-2")),
        ("explain elsewhere/", [("dir", "elsewhere/")]),
        ("eval runs/small-", plain("runs/small-2", "runs/small-2/checkpoints/best.npz")),
        ("predict other", [("file", "other")]),
        ("eval x --data ", [("file", "")]),
        ("eval x --split va", plain("validation")),
    ],
)
def test_commands_options_configs_runs_and_checkpoints_are_completed(
    line: str, expected: list[tuple[str, str]]
) -> None:
    assert complete(line) == expected


def test_all_bundled_configs_are_offered() -> None:
    assert set(plain(*(name.removesuffix(".yaml") for name in bundled_configs()))) < set(complete("train -c "))


def asked(folder: Path, **environment: str) -> str:
    """What the command answers a shell; without NumPy, which would take long."""
    code = "import sys; sys.modules['numpy'] = None; from cnnlite.cli import main; main()"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_answered(shell: str, tmp_path: Path) -> None:
    words = {"COMP_WORDS": "cnnlite train -c smal", "COMP_CWORD": "smal" if shell == "fish" else "3"}
    answer = asked(tmp_path, _CNNLITE_COMPLETE=f"{shell}_complete", **words)
    assert "plain" in answer
    assert "smaller.yaml" in answer
    assert f"_CNNLITE_COMPLETE={shell}_complete" in asked(tmp_path, _CNNLITE_COMPLETE=f"{shell}_source")


def test_the_readme_says_how_to_switch_it_on() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"_CNNLITE_COMPLETE=(\w+)_source cnnlite", text) == ["bash", "zsh", "fish"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_line_as_it_is_typed(tmp_path: Path) -> None:
    script = asked(tmp_path, _CNNLITE_COMPLETE="bash_source")
    words = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m cnnlite"
    Path("cnnlite").write_text(f'#!/bin/sh\n{words} "$@"\n', encoding="utf-8")
    os.chmod("cnnlite", 0o755)
    typed = "COMP_WORDS=(cnnlite report runs/small-); COMP_CWORD=2; _cnnlite_completion ./cnnlite; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", f"{script}\n{typed}"], capture_output=True, text=True)
    assert done.stdout == "runs/small-2\n", done.stderr
