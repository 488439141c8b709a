import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnlite.errors import CheckpointError, ConfigError, StorageError
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint
from cnnlite.runs.directory import RunDirectory


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint({"param/w": np.full(3, step, dtype=np.float32)}, {"step": step})


def test_runs_are_numbered_and_never_overwritten(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        run = RunDirectory.create("small", tmp_path / "runs")
        names.append(run.path.name)
        run.close()
    assert names == ["small", "small-2", "small-3"]


def test_a_taken_name_is_skipped_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("a file")
    (tmp_path / "small-2").symlink_to("nowhere")
    run = RunDirectory.create("small", tmp_path)
    assert run.path == tmp_path / "small-3"
    run.close()


def test_a_run_that_never_started_leaves_nothing(tmp_path: Path) -> None:
    run = RunDirectory.create("small", tmp_path / "new" / "runs")
    run.write_text("config.yaml", "seed: 0\n")
    run.write_json("environment.json", {})
    run.append_to("log.txt").write_text("begun\n")
    assert run.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "user", ["notes.txt", "checkpoints/notes.txt", "folder/", "config.yaml", "log.txt", "last.npz"]
)
@pytest.mark.parametrize("was_empty", [False, True])
def test_what_a_process_did_not_write_stays_when_its_run_is_discarded(
    was_empty: bool, user: str, tmp_path: Path
) -> None:
    if was_empty:
        (tmp_path / "run").mkdir()
    run = RunDirectory.create_at(tmp_path / "run")
    run.write_text("config.yaml", "seed: 0\n")
    run.append_to("log.txt").write_text("begun\n")
    path = run.path / user
    if user.endswith("/"):
        path.mkdir()
    else:  # as editors do
        (tmp_path / "edited").write_text("mine\n")
        os.replace(tmp_path / "edited", path)
    discarded = run.discard()
    if user == "config.yaml":  # which can be gone on with
        assert not discarded
        assert sorted(os.listdir(run.path)) == [".lock", "checkpoints", "config.yaml", "log.txt"]
        assert path.read_text() == "mine\n"
        return
    assert discarded
    assert {found.relative_to(run.path) for found in run.path.rglob("*")} == {
        Path(user),
        *({Path("checkpoints")} if "/n" in user else ()),
    }
    assert path.is_dir() or path.read_text() == "mine\n"


def row_of(run: RunDirectory) -> None:
    run.metrics().append({"step": 1})


@pytest.mark.parametrize(
    "write",
    [
        row_of,
        lambda run: run.save("last", checkpoint(1)),
        lambda run: run.save("best", checkpoint(1)),
        lambda run: run.write_json("result.json", {}),
    ],
)
def test_a_run_that_came_to_something_is_not_discarded(write: Callable[[RunDirectory], None], tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.write_text("config.yaml", "seed: 0\n")
    write(run)
    before = files(run.path)
    assert not run.discard()
    assert files(run.path) == before
    run.close()


def test_a_run_whose_first_save_failed_for_certain_has_come_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for certain in (True, False):
        run = RunDirectory.create_at(tmp_path / "run")
        run.write_text("config.yaml", "seed: 0\n")
        (run.path / "notes.txt").write_text("mine")

        def fail(folder: Path, run: RunDirectory = run, certain: bool = certain) -> None:
            if certain:
                run.checkpoint_path("last").unlink()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr("cnnlite.utils.files._sync_folder", fail)
            with pytest.raises(StorageError):
                run.save("last", checkpoint(1))
        assert run.discard() is certain
        left = {"notes.txt"} if certain else {"notes.txt", "config.yaml", ".lock", "checkpoints"}
        assert set(os.listdir(run.path)) == left
        (run.path / "notes.txt").unlink()


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_discarding_leaves_other_runs_and_an_empty_folder_that_was_there(tmp_path: Path) -> None:
    other = RunDirectory.create("small", tmp_path / "runs")
    other.close()
    RunDirectory.create("small", tmp_path / "runs").discard()
    assert os.listdir(tmp_path / "runs") == ["small"]
    (tmp_path / "mine").mkdir()
    RunDirectory.create_at(tmp_path / "mine").discard()
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] in ([], [".lock"])


def test_a_named_directory_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        run = RunDirectory.create_at(tmp_path / name)
        run.write_text("config.yaml", "seed: 0\n")
        run.close()
    with pytest.raises(ConfigError, match="continue that run with resume="):
        RunDirectory.create_at(tmp_path / "new/deep")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a folder"):
        RunDirectory.create_at(tmp_path / "file")


def test_a_directory_that_a_killed_process_left_before_its_config_is_as_good_as_empty(tmp_path: Path) -> None:
    RunDirectory.create_at(tmp_path / "run").close()
    for leftover in (".cnnlite-0123456789abcdef.tmp", "checkpoints/.cnnlite-0123456789abcde0.tmp"):
        (tmp_path / "run" / leftover).write_text("")
    RunDirectory.create_at(tmp_path / "run").close()
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == [".lock", "checkpoints"]
    (tmp_path / "run/checkpoints/mine.npz").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        RunDirectory.create_at(tmp_path / "run")


@pytest.mark.parametrize("name", ["environment.json", ".lock", "checkpoints/"])
def test_files_of_the_user_that_are_called_as_ours_are_not_taken_for_leftovers(name: str, tmp_path: Path) -> None:
    place = tmp_path / "run" / name
    place.parent.mkdir(exist_ok=True)
    if name.endswith("/"):
        place.mkdir()
    else:
        place.write_text('{"mine": 1}')
    if name == "environment.json":
        with pytest.raises(ConfigError, match="not empty"):
            RunDirectory.create_at(tmp_path / "run")
    else:  # nothing of which is written to
        RunDirectory.create_at(tmp_path / "run").discard()
    assert place.is_dir() if name.endswith("/") else place.read_text() == '{"mine": 1}'


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    with pytest.raises(ConfigError, match="another process"):
        RunDirectory.open(tmp_path / "run")
    with pytest.raises(ConfigError):
        RunDirectory.create_at(tmp_path / "run")
    code = f"from cnnlite.runs.directory import *; RunDirectory.open(Path({str(run.path)!r}))"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is training" in second.stderr
    run.close()
    RunDirectory.open(tmp_path / "run").close()


def test_only_a_run_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        RunDirectory.open(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for base in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(StorageError, match="cannot make"):
            RunDirectory.create("small", base)

    def refuse(folder: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("cnnlite.runs.directory.check_writable", refuse)
    with pytest.raises(StorageError, match="Read-only"):
        RunDirectory.create("small", tmp_path / "runs")
    assert os.listdir(tmp_path) == ["file"]


def test_the_last_checkpoint_becomes_the_previous_one(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.save("last", checkpoint(1))
    run.save("best", checkpoint(1))
    run.save("last", checkpoint(2))
    assert load_checkpoint(run.checkpoint_path("previous")).meta["step"] == 1
    newest, warnings = run.newest_checkpoint()
    assert (newest.meta["step"], warnings) == (2, [])
    run.close()


def test_a_corrupt_last_checkpoint_is_set_aside(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.save("last", checkpoint(1))
    run.save("last", checkpoint(2))
    path = run.checkpoint_path("last")
    path.write_bytes(path.read_bytes()[:-10])
    newest, warnings = run.newest_checkpoint()
    assert newest.meta["step"] == 1
    assert len(warnings) == 1
    assert "last.npz" in warnings[0]
    assert "set aside" in warnings[0]
    assert (run.checkpoints / "last.corrupt.npz").exists()
    assert not run.is_unsaved()
    run.save("last", checkpoint(3))
    assert run.newest_checkpoint()[0].meta["step"] == 3
    assert load_checkpoint(run.checkpoint_path("previous")).meta["step"] == 1
    run.close()


def test_a_corrupt_checkpoint_that_cannot_be_renamed_is_not_called_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    for step in (1, 2):
        run.save("last", checkpoint(step))
    run.checkpoint_path("last").write_bytes(b"PK")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    newest, (warning,) = run.newest_checkpoint()
    assert newest.meta["step"] == 1
    assert warning.endswith("(not an .npz file); going back to the one before")
    run.close()


def test_the_best_checkpoint_is_the_last_resort(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.save("best", checkpoint(1))
    for step in (2, 3):
        run.save("last", checkpoint(step))
    for kind in ("last", "previous"):
        run.checkpoint_path(kind).write_bytes(b"PK")
    newest, warnings = run.newest_checkpoint()
    assert (newest.meta["step"], len(warnings)) == (1, 2)
    run.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "fstat"])
def test_a_checkpoint_that_cannot_be_read_now_is_not_set_aside(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    for step in (1, 2):
        run.save("last", checkpoint(step))

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointError, match=rf"last\.npz: cannot read: {os.strerror(number)}"):
            run.newest_checkpoint()
    newest, warnings = run.newest_checkpoint()
    assert (newest.meta["step"], warnings) == (2, [])
    run.close()


@pytest.mark.parametrize("error", [CheckpointError("of another network"), RuntimeError("a bug"), OSError(5, "no disk")])
def test_what_a_check_of_a_whole_checkpoint_raises_is_passed_on(error: Exception, tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.save("last", checkpoint(1))

    def refuse(_: object) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run.newest_checkpoint(refuse)
    assert caught.value is error
    assert run.checkpoint_path("last").exists()
    run.close()


def test_a_checkpoint_of_a_later_format_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("cnnlite.runs.checkpoint.VERSION", 99)
        run.save("last", checkpoint(1))
    with pytest.raises(CheckpointError, match="has format version 99"):
        run.newest_checkpoint()
    assert run.checkpoint_path("last").exists()
    run.close()


def test_without_a_whole_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run.newest_checkpoint()
    run.checkpoint_path("last").write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        run.newest_checkpoint()
    run.close()
