"""Folders that cannot be looked at, moved, or shared while a run trains: what it has made stays, and its user's too."""

import builtins
import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from cnnlite.training.reporter import Reporter
from tests.support.faults import failing
from tests.support.small_runs import TINY, assert_same_run, figures
from tests.training.test_surroundings import give_up_privileges
from tests.utils.test_signals import SLOW, VALIDATING, until

pytestmark = pytest.mark.usefixtures("here")

OPERATIONS = ("open", "mkdir", "rmdir", "listdir", "scandir", "stat", "lstat", "replace", "link", "unlink")
ERRORS = ("EACCES", "ESTALE", "EIO", "ENOTDIR", "ELOOP", "ENOSPC", "EROFS", "EMFILE")
SHORT = ["-o", "data.dataset.shapes.train_images=30", "-o", "data.validation=10", "-o", "data.augment=[]"]
SHORT += ["-o", "train.batch_size=5", "-o", "train.validate_every=2", "-o", "train.checkpoint_every=1"]
SHORT += ["-o", "data.root=/nowhere", "-o", "train.epochs=null", "-o", "train.iterations=3"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", "--threads", "1", "--quiet", *arguments])


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.name}


def start() -> Result:
    return run("-c", "tiny.yaml", *SHORT, "--run-dir", "run")


class FolderFaults:
    """Lets an operation on a path in ``folder`` fail: the one with the number ``at``, and later ones if `lasting`."""

    def __init__(self, folder: Path, at: int, act: Callable[[], None], *, lasting: bool):
        self.folder, self.at, self.act, self.lasting = folder, at, act, lasting
        self.calls = 0
        self.before: dict[Path, bytes] = {}
        """The files of the run when the first operation failed, and a note that its user writes at that moment."""
        self._looking = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module, names in ((os, OPERATIONS), (builtins, ("open",))):
                for name in names:
                    patch.setattr(module, name, self._watched(getattr(module, name)))
            yield

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            inside = isinstance(arguments[0], (str, Path)) and Path(arguments[0]).absolute().is_relative_to(self.folder)
            if inside and not self._looking:
                self.calls += 1
                if self.calls == self.at:
                    self._take_note()
                if self.calls == self.at or (self.lasting and self.calls > self.at):
                    self.act()
            return function(*arguments, **options)

        return call

    def _take_note(self) -> None:
        self._looking = True  # which is not the run's doing
        if self.folder.is_dir():
            (self.folder / "notes.txt").write_text("mine")
            self.before = files(self.folder)
        self._looking = False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it is without faults."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    done = run("-c", str(folder / "tiny.yaml"), *SHORT, "--run-dir", str(folder / "run"))
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.mark.long
@pytest.mark.parametrize(
    ("where", "lasting", "step"),
    [(".", False, 16), (".", True, 32), ("checkpoints", True, 16)],
    ids=["once", "from then on", "from then on in checkpoints"],
)
@pytest.mark.parametrize("name", ERRORS)
def test_whatever_folder_operation_of_a_run_fails_nothing_is_lost_and_resuming_gets_there(
    name: str, where: str, lasting: bool, step: int, whole: Path, here: Path
) -> None:
    path, failed = here / "run", 0
    # Each error fails other operations than the next one: together they fail each second one, or each fourth.
    for at in range(1 + ERRORS.index(name) * step // 8, 1000, step):
        faults = FolderFaults(path / where, at, failing(getattr(errno, name)), lasting=lasting)
        with faults.watching():
            done = start()
        assert done.exit_code in (0, 2, 3, 5), (at, done.output)
        assert "Traceback" not in done.output
        failed += done.exit_code != 0
        now = files(path)
        if any(file.suffix == ".npz" for file in faults.before):
            assert faults.before.keys() <= now.keys(), (at, done.output)
        for note in (file for file in faults.before if file.name == "notes.txt"):
            assert now[note] == b"mine", (at, done.output)
            note.unlink()
        for file in path.glob("checkpoints/*.npz"):
            load_checkpoint(file)
        if path.exists() and done.exit_code:
            resumed = run("--resume", "run") if (path / "config.yaml").exists() else start()
            assert resumed.exit_code == 0, (at, done.output, resumed.output)
        if path.exists():
            if name == "ENOTDIR" and "best.npz: is gone; testing with the last parameters instead" in done.output:
                assert figures(path)[1]["best_validation_accuracy"] is None  # as the system said there is no such file
            else:
                assert_same_run(whole, path)
            shutil.rmtree(path)
        if faults.calls < at:
            break
    assert failed


def stuck_while_validating(act: Callable[[], object], before: Callable[[], object] | None = None) -> tuple[int, str]:
    """Exit code and stderr of a run in which ``act`` happens while it validates for the first time, at step 5."""
    command = [sys.executable, "-c", SLOW.format(patch=VALIDATING), "train", "-c", "tiny.yaml", "--run-dir", "run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=before)
    until(Path("there"))
    act()
    Path("go-on").touch()
    _, err = process.communicate(timeout=60)
    for file in ("there", "go-on"):
        os.unlink(file)
    assert "Traceback" not in err
    return process.returncode, err


@pytest.mark.parametrize("folder", ["run", "run/checkpoints"])
def test_a_run_whose_folder_is_closed_to_it_stays_whole_and_can_be_gone_on_with(folder: str, here: Path) -> None:
    kept: dict[Path, bytes] = {}

    def close() -> None:
        kept.update(files(here / "run"))
        os.chmod(folder, 0)

    code, err = stuck_while_validating(close, give_up_privileges)
    os.chmod(folder, 0o755)
    assert code == 5, err
    assert "Permission denied" in err
    assert here / "run/checkpoints/last.npz" in kept
    now = files(here / "run")
    assert all(now[path].startswith(content) for path, content in kept.items())
    assert run("--resume", "run").exit_code == 0
    assert run("-c", "tiny.yaml", "--run-dir", "whole").exit_code == 0
    assert_same_run(Path("whole"), Path("run"))


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_run_whose_path_is_another_runs_ends_and_leaves_that_one_alone(how: str, here: Path) -> None:
    def make_anew() -> None:
        shutil.rmtree("run") if how == "removed" else os.rename("run", "moved")
        assert run("-c", "tiny.yaml", "--run-dir", "run", "--seed", "1").exit_code == 0
        others.update(files(here / "run"))

    others: dict[Path, bytes] = {}
    code, err = stuck_while_validating(make_anew)
    assert code == 5, err
    assert "error: run: was moved, removed or made anew during this run" in err
    assert files(here / "run") == others
    if how == "moved":
        assert run("--resume", "moved").exit_code == 0
        assert run("-c", "tiny.yaml", "--run-dir", "whole").exit_code == 0
        assert_same_run(Path("whole"), Path("moved"))


def test_a_run_is_not_tested_with_what_lies_at_its_path_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last write and the test, another run has taken its place."""
    activity = Reporter.activity

    def take_its_place(self: Reporter, name: str, step: int) -> None:
        activity(self, name, step)
        if name == "test":
            os.rename("run", "moved")
            shutil.copytree("moved", "run")

    monkeypatch.setattr(Reporter, "activity", take_its_place)
    done = run("-c", "tiny.yaml", "--run-dir", "run")
    assert (done.exit_code, "moved, removed or made anew" in done.stderr) == (5, True), done.output
    assert not Path("run/result.json").exists()


def replaced_best(how: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> Result:
    """The answer of a run whose best checkpoint is not what it was when it is to be tested."""
    monkeypatch.chdir(here)
    assert run("-c", "tiny.yaml", "--run-dir", "other", "--seed", "1").exit_code == 0
    assert run("-c", "tiny.yaml", "--run-dir", "run").exit_code == 0
    best = Path("run/checkpoints/best.npz")
    os.unlink("run/result.json")
    if how == "another run's":
        shutil.copy("other/checkpoints/best.npz", best)
    elif how == "another run's of the same step and accuracy":
        mine, checkpoint = load_checkpoint(best), load_checkpoint(Path("other/checkpoints/best.npz"))
        checkpoint.meta |= {"step": mine.meta["step"], "progress": mine.meta["progress"]}
        save_checkpoint(best, checkpoint)
    elif how == "damaged":
        best.write_bytes(best.read_bytes()[:-1])
    elif how == "gone":
        best.unlink()
    return run("--resume", "run")


@pytest.mark.parametrize("how", ["another run's", "another run's of the same step and accuracy", "damaged", "gone"])
def test_a_best_checkpoint_that_this_run_did_not_write_is_not_tested_and_the_result_says_what_was(
    how: str, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    done = replaced_best(how, monkeypatch, here)
    assert done.exit_code == 0, done.output
    assert "testing with the last parameters instead" in done.stderr
    _, result = figures(Path("run"))
    assert (result["best_step"], result["best_validation_accuracy"]) == (21, None)
    evaluated = CliRunner().invoke(cli, ["eval", "run/checkpoints/last.npz", "--json"])
    assert f'"accuracy": {result["test_accuracy"]}' in evaluated.stdout


def test_the_best_of_a_resumed_run_is_its_own_though_another_length_was_asked_for_since() -> None:
    assert run("-c", "tiny.yaml", "--run-dir", "run", "-o", "train.schedule=constant").exit_code == 0
    before = figures(Path("run"))[1]["best_step"]
    for epochs in ("4", "5"):
        longer = run("--resume", "run", "--epochs", epochs, "-o", "train.validate_every=1000")
        assert (longer.exit_code, "warning" in longer.stderr) == (0, False), longer.stderr
    assert before


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_best_checkpoint_that_cannot_be_read_now_is_not_passed_over(
    number: int, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    opened = os.open

    def fail(path: Any, *arguments: Any) -> int:
        if str(path).endswith("best.npz"):
            raise OSError(number, os.strerror(number))
        return opened(path, *arguments)

    assert run("-c", "tiny.yaml", "--run-dir", "run").exit_code == 0
    result = Path("run/result.json").read_text()
    os.unlink("run/result.json")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        done = run("--resume", "run")
    assert (done.exit_code, os.strerror(number) in done.stderr) == (3, True), done.output
    assert not Path("run/result.json").exists()
    assert run("--resume", "run").exit_code == 0
    assert Path("run/result.json").read_text() == result
