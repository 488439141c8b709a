"""Links, FIFOs, folders and devices in the place of every file of a run or a dataset: nothing waits or is followed."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from tests.support.small_runs import TINY
from tests.support.strange import KINDS, place

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")

COMMANDS = {
    "resume": ["train", "-q", "--resume", "run", "--epochs", "2", "--tensorboard"],
    "eval": ["eval", "run"],
    "explain": ["explain", "run"],
    "compare": ["compare", "run", "other"],
    "report": ["report", "run"],
    "export": ["export", "run", "out.onnx"],
}
FILES = (
    "config.yaml",
    "environment.json",
    "metrics.csv",
    "log.txt",
    "predictions.csv",
    "result.json",
    "checkpoints/best.npz",
    "checkpoints/last.npz",
    "checkpoints/previous.npz",
    "checkpoints",
    ".lock",
    "tensorboard",
    "report",
)
CASES = [(name, command) for name in FILES for command in ("resume", "explain")] + [
    ("config.yaml", "compare"),
    ("metrics.csv", "compare"),
    ("predictions.csv", "compare"),
    ("checkpoints/best.npz", "eval"),
    ("checkpoints", "eval"),
    ("checkpoints/best.npz", "export"),
    ("report", "report"),
]
"""Files, and the commands that read or write them; resuming a run comes to nearly all."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever waits for the other end of a FIFO would wait for ever."""
    monkeypatch.setitem(sys.modules, "torch", None)  # which tensorboardX would load, for seconds

    def fail(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, before = tmp_path_factory.mktemp("runs"), Path.cwd()
    os.chdir(folder)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    done = CliRunner().invoke(cli, ["train", "-c", "tiny.yaml", "-q", "--epochs", "1", "--run-dir", "run"])
    os.chdir(before)
    assert done.exit_code == 0, done.output
    shutil.copytree(folder / "run", folder / "other")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fits(command: str) -> None:
    needed = {"resume": "tensorboardX", "report": "matplotlib", "export": "onnx"}
    if command in needed:
        pytest.importorskip(needed[command])


def answer(arguments: list[str]) -> tuple[int, str]:
    """The exit code of a command and what it told; one line, or two, and no bug, if it failed."""
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code in (0, 2, 3, 5), (done.output, done.exception)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert bool(errors) == bool(done.exit_code)
    assert len(errors) <= 2
    return done.exit_code, done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("name", "command"), CASES)
def test_in_the_place_of_a_file_of_a_run(
    name: str, command: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits(command)
    for kind in KINDS:
        folder = tmp_path / kind
        shutil.copytree(runs, folder)
        monkeypatch.chdir(folder)
        path = folder / "run" / name
        if path.is_dir():
            shutil.rmtree(path)
        victim = place(path, kind)
        answer(COMMANDS[command])
        assert kind != "link" or victim.read_text() == "precious"
        assert kind != "dangling link" or not os.path.lexists(victim)
        assert kind != "link to a folder" or not list(victim.iterdir())


@pytest.mark.parametrize(("name", "command"), CASES)
def test_a_link_to_the_same_file_elsewhere_is_read_and_never_written_through(
    name: str, command: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits(command)
    folder = tmp_path / "copy"
    shutil.copytree(runs, folder)
    monkeypatch.chdir(folder)
    path, elsewhere = folder / "run" / name, folder / "elsewhere"
    elsewhere.mkdir()
    if not path.exists():
        (elsewhere / "moved").mkdir()
    else:
        shutil.move(path, elsewhere / "moved")
    path.symlink_to(elsewhere / "moved")
    before = content(elsewhere)
    answer(COMMANDS[command])
    assert content(elsewhere) == before


WRITING = {
    "export": (["export", "run", "out.onnx"], "out.onnx"),
    "compare": (["compare", "run", "other", "--out", "out.svg"], "out.svg"),
    "report": (["report", "run", "--out", "out"], "out/index.html"),
    "configs copy": (["configs", "copy", "small", "out.yaml"], "out.yaml"),
}


@pytest.mark.long
@pytest.mark.parametrize("command", WRITING)
def test_every_command_that_writes_has_the_same_rule(
    command: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for needed in ("matplotlib", "onnx"):
        pytest.importorskip(needed)
    arguments, out = WRITING[command]
    for kind in (*KINDS, "file"):
        folder = tmp_path / kind
        shutil.copytree(runs, folder)
        monkeypatch.chdir(folder)
        path = folder / out
        path.parent.mkdir(exist_ok=True)
        if kind == "file":
            path.write_text("precious")
        victim = place(path, kind) if kind != "file" else path
        before = sorted(tmp_path.rglob("*"))
        if kind in ("folder", "link to a folder") and command == "configs copy":
            continue  # into which it copies
        for force in ([], ["--force"]):
            code, told = answer([*arguments, *force])
            if force and kind in ("file", "link", "dangling link"):
                assert (code, path.is_symlink(), path.is_file()) == (0, False, True), (kind, told)
            else:
                reason = "exists already" if kind in ("file", "link", "dangling link") else "is not a regular file"
                assert (code, f"error: {out}: {reason}; name another place" in told) == (2, True), (kind, told)
                assert sorted(tmp_path.rglob("*")) == before
                assert kind != "file" or path.read_text() == "precious"
        assert kind != "link" or victim.read_text() == "precious"
        assert kind != "dangling link" or not victim.exists()


@pytest.mark.parametrize("out", ["/dev/null", "/dev/stdout"])
def test_devices_are_not_replaced_whoever_asks(out: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("replaced"))
    monkeypatch.chdir(runs)
    for command in (["configs", "copy", "small"], ["export", "run"]):
        code, told = answer([*command, out, "--force"])
        assert code == 2
        assert f"error: {out}: is not a regular file; name another place" in told
