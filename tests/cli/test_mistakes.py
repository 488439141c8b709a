"""Typical mistakes, each with the exact answer, which says what to do: mistakes.txt holds both.

After ``===`` stands what is wrong with the config that follows, or a command in a folder with a small config and a run
of it; after ``---`` the exit code, and below it the errors, in which HERE is that folder.
"""

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from tests.support.small_runs import TINY

TEXT = (Path(__file__).parent / "mistakes.txt").read_text(encoding="utf-8")
CASE = re.compile(r"^=== (.*)\n((?:.*\n)*?)--- (\d)\n((?:(?!===).*\n)*)", re.MULTILINE)
CASES = {name: (config, int(code), errors.rstrip("\n")) for name, config, code, errors in CASE.findall(TEXT)}
COMMANDS = [name for name in CASES if name.startswith("$ cnnlite ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small config and a run of it."""
    path = tmp_path_factory.mktemp("mistakes")
    (path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    arguments = ["train", "-c", str(path / "tiny.yaml"), "--run-dir", str(path / "runs/tiny"), "--epochs", "1", "-q"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    return path


def answer(arguments: list[str]) -> tuple[int, str]:
    """Exit code of a command, and the errors it printed, without the usage before them."""
    result = CliRunner().invoke(cli, arguments)
    assert result.stdout == ""
    errors = "\n".join(line for line in result.stderr.splitlines() if line.lower().startswith("error"))
    return result.exit_code, errors.replace(os.getcwd(), "HERE")


@pytest.mark.parametrize("mistake", sorted(CASES.keys() - set(COMMANDS)))
def test_a_mistake_in_a_config_is_answered(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, code, errors = CASES[mistake]
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(config, encoding="utf-8")
    assert answer(["validate", "mine.yaml"]) == (code, errors)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistaken_command_is_answered_and_leaves_nothing(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CNNLITE_DATA", raising=False)
    assert answer(shlex.split(command)[2:]) == CASES[command][1:]
    assert sorted(os.listdir()) == ["runs", "tiny.yaml"]
    assert os.listdir("runs") == ["tiny"]


def test_there_are_more_than_twenty() -> None:
    assert len(CASES) == TEXT.count("\n===") + 1 > 40
