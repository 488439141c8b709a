"""Run directories from strangers: what is beside the checkpoints may be of any size and kind."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.runs.metrics_file import COLUMNS, MetricsFile
from cnnlite.runs.results import read_result
from tests.support.small_runs import TINY

COMMANDS = {
    "resume": ["train", "-q", "--resume", "run"],
    "explain": ["explain", "run"],
    "compare": ["compare", "run", "other"],
}


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one epoch in the current folder, beside another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CNNLITE_DATA", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    done = CliRunner().invoke(cli, ["train", "-c", "tiny.yaml", "-q", "--epochs", "1", "--run-dir", "run"])
    assert done.exit_code == 0, done.output
    shutil.copytree("run", "other")
    return tmp_path / "run"


def answers(*names: str) -> dict[str, tuple[int, str]]:
    found = {}
    for name in names or COMMANDS:
        done = CliRunner().invoke(cli, COMMANDS[name])
        assert done.exit_code in (0, 2, 3, 5), (name, done.output, done.exception)
        found[name] = done.exit_code, done.stderr
    return found


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
def test_files_larger_than_any_of_ours_are_refused_unread(name: str, run: Path) -> None:
    os.truncate(run / name, 50 * 10**9)
    for command, (code, told) in answers().items():
        if (command, name) != ("resume", "metrics.csv"):  # which needs no more than its result to see it is complete
            assert (code, told.startswith(f"error: run/{name}: has 50,000,000,000 bytes")) == (3, True), told
            assert len(told.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_fifos_are_refused_and_not_waited_for(run: Path) -> None:
    for name in ("result.json", "metrics.csv"):
        (run / name).unlink()
        os.mkfifo(run / name)
        told = {command: text for command, (code, text) in answers().items() if code}
        assert {"explain", "compare"} <= told.keys()
        assert all(f"{name}: is not a regular file" in told[command] for command in ("explain", "compare"))
    (run / "result.json").unlink()
    resumed = CliRunner().invoke(cli, ["train", "-q", "--resume", "run", "--epochs", "2"])
    assert (resumed.exit_code, "metrics.csv: is not a regular file" in resumed.stderr) == (5, True), resumed.stderr


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
def test_files_closed_to_the_user_are_not_taken_for_missing(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *arguments: Any) -> int:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    refused = (3, f"error: run/{name}: cannot be read: Permission denied\n")
    assert set(answers("explain", "compare").values()) == {refused}


NONSENSE: dict[str, Any] = {
    "a list": [[]],
    "an object": {},
    "huge": 10**400,
    "not a number": float("nan"),
}


def test_nonsense_in_a_result_is_left_out(run: Path) -> None:
    path = run / "result.json"
    result = json.loads(path.read_text())
    for nonsense in NONSENSE.values():
        for name in result.keys() - {"config"}:
            path.write_text(json.dumps(result | {name: nonsense}))
            assert read_result(path) == {key: value for key, value in result.items() if key != name}
        path.write_text(json.dumps(dict.fromkeys(result, nonsense) | {"status": "complete"}))
        answers("explain", "compare")
    path.write_text("[" * 100_000)
    answers()


@pytest.mark.parametrize(
    "rows", ["x" * 200_000, '"' + "x" * 200_000, "step,epoch\n1,\n,1\nnan,inf\n1e400,-1\n", "\0\n", ",".join(COLUMNS)]
)
def test_nonsense_in_the_figures_ends_in_a_line(rows: str, run: Path) -> None:
    (run / "metrics.csv").write_text(rows)
    for code, told in answers("explain", "compare").values():
        assert code == 0 or len(told.splitlines()) == 1


def test_a_run_of_a_layer_that_nobody_registered_is_answered_the_same_by_all(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(ReLU):
        """A layer of one's own."""

    with monkeypatch.context() as patch:
        patch.setitem(layers._classes, "mine", Mine)
        command = ["train", "-c", "tiny.yaml", "-q", "--epochs", "1", "--run-dir", "own", "-o", "model.2=mine"]
        assert CliRunner().invoke(cli, command).exit_code == 0
    for command in (["eval"], ["explain"], ["report"], ["compare", "run"], ["train", "--epochs", "2", "--resume"]):
        done = CliRunner().invoke(cli, [*command, "own"])
        *_, last = done.stderr.splitlines()
        assert done.exit_code == 3, (command, done.stderr)
        assert "model[2]: unknown layer 'mine'" in last
        assert last.endswith(" (one of your own has to be registered first)")


def test_cutting_back_holds_one_line_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    figures = MetricsFile(path)
    figures.append({"step": 1})
    before = path.read_bytes()
    path.write_bytes(before + b"9" * 5000 + b"," * (len(COLUMNS) - 1) + b"\n")
    os.truncate(path, 300 * 2**20)
    figures.cut_back(1)
    assert path.read_bytes() == before
