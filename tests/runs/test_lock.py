import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnlite.errors import ConfigError, LostRunError, StorageError
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.lock import Hold

CHECKPOINT = Checkpoint({"param/w": np.ones(3, dtype=np.float32)}, {"step": 1})
ROW = {"step": 1, "train_loss": 0.5}


def moved(path: Path) -> None:
    path.rename(path.with_name("moved"))


def made_anew(path: Path, before: Callable[[Path], object]) -> None:
    before(path)
    RunDirectory.create_at(path)


def linked(path: Path) -> None:
    moved(path)
    RunDirectory.create_at(path.with_name("other"))
    path.symlink_to("other")


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def replaced_by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


def copied_over(path: Path) -> None:
    shutil.copytree(path, path.with_name("copy"))
    shutil.rmtree(path)
    path.with_name("copy").rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "moved": moved,
    "removed and made anew": lambda path: made_anew(path, shutil.rmtree),
    "moved and made anew": lambda path: made_anew(path, moved),
    "moved, with a link to another run in its place": linked,
    "emptied": emptied,
    "replaced by a file": replaced_by_a_file,
    "copied over": copied_over,
}
WRITERS: dict[str, Callable[[RunDirectory], object]] = {
    "config.yaml": lambda run: run.write_text("config.yaml", "seed: 1\n"),
    "environment.json": lambda run: run.write_json("environment.json", {}),
    "log.txt": lambda run: run.append_to("log.txt"),
    "metrics.csv": lambda run: run.metrics().append(ROW),
    "result.json": lambda run: run.write_json("result.json", {}),
    "last": lambda run: run.save("last", CHECKPOINT),
    "best": lambda run: run.save("best", CHECKPOINT),
}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_written_into_a_directory_that_is_no_longer_the_one_that_is_held(
    change: str, writer: str, tmp_path: Path
) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.write_text("config.yaml", "seed: 0\n")
    CHANGES[change](run.path)
    before = files(tmp_path)
    with pytest.raises(LostRunError, match="moved, removed or made anew") as caught:
        WRITERS[writer](run)
    assert caught.value.exit_code == 5
    run.discard()
    assert files(tmp_path) == before


@pytest.mark.parametrize("change", CHANGES)
def test_figures_are_not_cut_back_in_another_directory(change: str, tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    figures = run.metrics()
    CHANGES[change](run.path)
    if not run.path.is_dir():
        return
    run.file("metrics.csv").write_text("of another\n")
    with pytest.raises(LostRunError):
        figures.cut_back(0)
    assert run.file("metrics.csv").read_text() == "of another\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO, errno.ELOOP])
def test_a_directory_that_cannot_be_looked_at_is_written_to_no_more_but_not_called_lost(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    run.write_text("config.yaml", "seed: 0\n")

    def fail(path: object, **_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fail)
        with pytest.raises(StorageError, match=os.strerror(number)) as caught:
            run.write_text("config.yaml", "seed: 1\n")
        assert not isinstance(caught.value, LostRunError)
        run.discard()
    assert (run.path / "config.yaml").read_text() == "seed: 0\n"


def test_where_files_have_no_numbers_all_is_taken_for_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def numberless(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        return lambda *args, **options: os.stat_result((look(*args, **options).st_mode, 0, 0, *[1] * 7))

    hold = Hold(tmp_path)
    for name in ("lstat", "fstat"):
        monkeypatch.setattr(os, name, numberless(getattr(os, name)))
    hold.take()
    hold.path.unlink()
    hold.path.write_text("")
    hold.confirm()
    hold.release()


def in_time(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for somebody"


@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
def test_only_a_regular_file_is_a_lock(kind: str, tmp_path: Path) -> None:
    path, mine = tmp_path / "run", tmp_path / "mine"
    path.mkdir()
    mine.write_text("mine")
    lock = path / ".lock"
    if kind == "FIFO":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(mine if kind == "link" else tmp_path / "nowhere")

    def take() -> None:
        with pytest.raises((OSError, StorageError)):
            Hold(path).take()
        (path / "checkpoints").mkdir(exist_ok=True)
        with pytest.raises(StorageError):
            RunDirectory.open(path)

    in_time(take)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["log.txt", "metrics.csv"])
@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_only_regular_files_are_appended_to(kind: str, name: str, tmp_path: Path) -> None:
    run, mine = RunDirectory.create_at(tmp_path / "run"), tmp_path / "mine"
    mine.write_text("mine")
    if kind == "FIFO":
        os.mkfifo(run.file(name))
    else:
        run.file(name).symlink_to(mine)

    def append() -> None:
        with pytest.raises(StorageError, match=rf"{name}: is not a regular file; remove it"):
            run.metrics().append(ROW) if name == "metrics.csv" else run.append_to(name)

    in_time(append)
    assert mine.read_text() == "mine"
    run.close()


def test_a_lock_belongs_to_one_and_can_be_had_after_it(tmp_path: Path) -> None:
    first, second = Hold(tmp_path), Hold(tmp_path)
    first.take()
    with pytest.raises(ConfigError, match="another process is training in this run directory; name another one"):
        second.take()
    assert not second.taken
    first.remove()
    assert os.listdir(tmp_path) == []
    second.take()
    second.release()
    with pytest.raises(ConfigError):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize("change", ["link to those of another run", "made anew", "removed"])
def test_nothing_is_saved_where_the_folder_of_checkpoints_is_no_longer_the_one_of_the_start(
    change: str, tmp_path: Path
) -> None:
    other = RunDirectory.create_at(tmp_path / "other")
    other.save("best", CHECKPOINT)
    before = other.checkpoint_path("best").read_bytes()
    run = RunDirectory.create_at(tmp_path / "run")
    run.save("last", CHECKPOINT)
    run.checkpoints.rename(tmp_path / "aside")
    if change == "made anew":
        run.checkpoints.mkdir()
    elif change != "removed":
        run.checkpoints.symlink_to("../other/checkpoints")
    for kind in ("last", "best"):
        with pytest.raises(LostRunError, match="checkpoints: was moved, removed or made anew"):
            run.save(kind, Checkpoint(CHECKPOINT.arrays, {"step": 2}))
    assert other.checkpoint_path("best").read_bytes() == before
    assert os.listdir(other.checkpoints) == ["best.npz"]
    assert os.listdir(tmp_path / "aside") == ["last.npz"]


def test_a_lock_shared_by_a_copy_of_hard_links_is_called_so(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    (tmp_path / "copy/checkpoints").mkdir(parents=True)
    os.link(run.path / ".lock", tmp_path / "copy/.lock")
    with pytest.raises(ConfigError, match="a copy by hard links"):
        RunDirectory.open(tmp_path / "copy")
