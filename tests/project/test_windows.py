"""cnnlite where there is no fork, no /proc, no SIGHUP, and nothing that is open can be replaced: see windows.py."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.windows import MODULES, SIGNALS

ROOT = Path(__file__).parents[2]

BEGIN = """
import os, signal, sys
from pathlib import Path
from tests.support.windows import pretend
pretend()
from click.testing import CliRunner
from cnnlite.cli import cli

def run(*arguments, code=0):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, (arguments, result.output)
    return result.output
"""


pytestmark = pytest.mark.usefixtures("here")


def on_windows(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_disguise_is_one() -> None:
    on_windows("""
import pytest
from cnnlite.utils import files; from cnnlite.runtime import machine
assert files.os.name == "nt" and files.sys.platform == "win32" and os.name == "posix"
assert not hasattr(files.os, "fork") and not hasattr(signal, "SIGHUP") and files.os.getpid() == os.getpid()
with pytest.raises(ImportError):
    import resource
with open("a", "wb") as file, pytest.raises(PermissionError):
    os.replace("tiny.yaml", "a")
Path("a").rename("b")
with pytest.raises(FileExistsError):
    Path("b").rename("tiny.yaml")
""")


def test_a_run_is_trained_tested_continued_and_evaluated() -> None:
    on_windows("""
assert "epoch 1" in run("train", "-c", "tiny.yaml", "--epochs", "1", "--threads", "2")
assert "test accuracy" in run("train", "--resume", "runs/tiny", "--epochs", "2")
assert not list(Path("runs").rglob("*.tmp"))
assert "accuracy" in run("eval", "runs/tiny/checkpoints/best.npz")
last = Path("runs/tiny/checkpoints/last.npz")
last.write_bytes(last.read_bytes()[:-1])
assert "set aside" in run("train", "--resume", "runs/tiny", "--epochs", "3")
best = Path("runs/tiny/checkpoints/best.npz")
best.unlink()
best.mkdir()
assert "is a directory; name a file" in run("eval", "runs/tiny", code=3)
assert "same bits" in run("verify-resume", "tiny.yaml", "--steps", "3")
""")


def test_workers_that_cannot_be_spawned_are_said_and_threads_compute() -> None:
    on_windows("""
wide = ("-o", "model.0.conv2d.out_channels=420", "--epochs", "1")
run("train", "-c", "tiny.yaml", *wide, "--run-dir", "two", "--workers", "2")
assert "2 processes could not be started (worker 1 of 2" in Path("two/log.txt").read_text()
run("train", "-c", "tiny.yaml", *wide, "--run-dir", "one", "--workers", "1")
assert Path("two/metrics.csv").read_text().splitlines()[-1].split(",")[3] == \\
    Path("one/metrics.csv").read_text().splitlines()[-1].split(",")[3]
""")


def test_a_run_is_held_by_one_process_and_one_that_fails_leaves_nothing() -> None:
    on_windows("""
from cnnlite.runs.directory import RunDirectory
held = RunDirectory.create_at(Path("run"))
held.checkpoint_path("last").touch()
assert "another process" in run("train", "--resume", "run", code=2)
held.close()
run("train", "-c", "tiny.yaml", "-o", "train.optimizer.adam.lr=1e35", "--run-dir", "bad", code=4)
run("train", "-c", "tiny.yaml", "-o", "train.batch_size=1000", "--run-dir", "none", code=2)
assert not Path("none").exists()
""")


def test_a_signal_that_windows_has_saves_the_run() -> None:
    on_windows("""
from cnnlite.training.reporter import Reporter
row = Reporter.row
def stop(*arguments):
    row(*arguments)
    signal.raise_signal(signal.SIGTERM)
Reporter.row = stop
assert "continue with: cnnlite train --resume runs/tiny" in run("train", "-c", "tiny.yaml", code=128 + signal.SIGTERM)
""")


def test_the_machine_is_described_as_far_as_it_tells() -> None:
    on_windows("""
from cnnlite.runtime import engine, machine
assert machine.memory() == sys.maxsize
assert machine.peak_memory_bytes() == 0
machine.reset_peak_memory()
assert isinstance(machine.cpu_name(), str) and isinstance(machine.vectors(), str)
assert engine.available_cores() == os.cpu_count()
run("bench", "tiny.yaml", "--steps", "1", "--threads", "1")
""")


def test_what_is_downloaded_replaces_what_was_there() -> None:
    on_windows("""
from cnnlite.data.download.archive import extract
from cnnlite.utils.files import locked_folder
from tests.support import cifar_files as files
archive = Path("cifar.tar.gz")
content = files.python_files(2)
archive.write_bytes(files.pack(files.members(content)))
target = Path("data/cifar-10-batches-py")
for aside in (None, Path("data/cifar-10-batches-py.old-1")):
    assert extract(archive, target, files.described(content).members, lambda *_: None) == aside
with locked_folder(Path("data")) as alone:
    assert alone
""")


def test_pictures_that_changed_are_read_again() -> None:
    pytest.importorskip("PIL", reason="the extra `images` is not installed")
    on_windows("""
import os
from cnnlite.data.datasets.folder import Folder
from tests.support.folders import fill
root = fill(Path("pictures"))
source = Folder(size=8)
before = len(source.load(root).train)
os.remove("pictures/ant/00000.png")
assert len(source.load(root).train) == before - 1
cache = source.cache_path(root)
cache.write_bytes(cache.read_bytes()[:-1])
assert len(source.load(root).train) == before - 1
""")


def test_no_room_imports_at_once_what_only_some_systems_have_nor_names_their_signals() -> None:
    for path in (ROOT / "cnnlite").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_once = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert not at_once & {*MODULES, "msvcrt", "winreg"}, path
        named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not named & set(SIGNALS), path
        missing = {"fork", "getuid", "statvfs", "uname"} & named
        assert missing <= ({"fork"} if path.name == "processes.py" else set()), path  # which asks before: `way`


def test_without_limits_of_resources_all_memory_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    from cnnlite.runtime import machine

    before = machine.memory()
    monkeypatch.delattr(resource, "RLIMIT_AS")
    assert machine.memory() >= before


def test_macos_tells_its_peak_memory_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    from cnnlite.runtime import machine

    monkeypatch.setattr(machine, "Path", lambda name: Path("/nowhere" + name))
    elsewhere = machine.peak_memory_bytes()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine.peak_memory_bytes() * 1024 == pytest.approx(elsewhere, rel=0.2)
