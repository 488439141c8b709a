"""Saving under faults: whatever call of a save fails or is the last, a whole checkpoint remains and nothing else."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlite.errors import StorageError
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.metrics_file import COLUMNS, MetricsFile
from cnnlite.utils.files import write_text
from tests.support.faults import Faults, dying, failing

MOST_CALLS = 300


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint({"param/w": np.full(3000, step, dtype=np.float32)}, {"step": step})


def prepared(path: Path) -> RunDirectory:
    """A run with ``last``, ``previous`` and ``best`` of steps 2, 1 and 2; all but the first are copies."""
    first = path.parent / "first"
    if first.exists():
        shutil.copytree(first, path)
        return RunDirectory.open(path)
    run = RunDirectory.create_at(first)
    for step in (1, 2):
        run.save("last", checkpoint(step))
    run.save("best", checkpoint(2))
    run.close()
    return prepared(path)


def step_of(run: RunDirectory, kind: str) -> int:
    return int(run.load(kind).meta["step"])


@pytest.mark.parametrize(("number", "lasting"), [(errno.EIO, False), (errno.ENOSPC, True), (errno.EDQUOT, True)])
@pytest.mark.parametrize("kind", ["last", "best"])
def test_whatever_call_of_a_save_fails_the_old_checkpoint_stays(
    kind: str, number: int, lasting: bool, tmp_path: Path
) -> None:
    failed, messages = set(), set()
    for at in range(1, MOST_CALLS):
        run = prepared(tmp_path / str(at))
        try:
            with Faults(at, failing(number), lasting=lasting).watching() as faults:
                run.save(kind, checkpoint(3))
            expected = {3}
        except StorageError as error:
            messages.add(str(error).replace(str(run.checkpoints), ""))
            failed.add(faults.calls[at - 1])
            expected = {2, 3} if "replace" in faults.calls[: at - 1] else {2}
        assert step_of(run, kind) in expected
        assert step_of(run, "previous") in (1, 2)
        assert step_of(run, "last") in (2, 3)
        if not lasting and faults.calls[at - 1 : at] != ["unlink"]:
            assert not list(run.checkpoints.glob(".*"))
        run.close()
        if len(faults.calls) < at:
            break
    else:
        raise AssertionError("the save never ended")
    assert {"open file", "write", "fsync", "close file", "replace", "open", "close"} <= failed
    assert messages == {f"/{kind}.npz: cannot write: {os.strerror(number)}"}


KILLED = """
import os, sys
from pathlib import Path
from tests.support.faults import Faults, dying
from tests.runs.test_save_faults import MOST_CALLS, checkpoint, prepared, step_of
from cnnlite.runs.directory import RunDirectory

kind, folder = sys.argv[1], Path(sys.argv[2])
for at in range(1, MOST_CALLS):
    path = folder / str(at)
    prepared(path).close()
    child = os.fork()
    if child == 0:
        run = RunDirectory.open(path)
        with Faults(at, dying).watching() as faults:
            run.save(kind, checkpoint(3))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    leftover = len(list(path.glob("checkpoints/.*")))
    run = RunDirectory.open(path)
    assert not list(path.glob("checkpoints/.*")), "stale files"
    newest, warnings = run.newest_checkpoint()
    assert not warnings, warnings
    run.close()
    print(status, leftover, newest.meta["step"], step_of(run, kind), step_of(run, "previous"))
    if status == 0:
        break
"""


@pytest.mark.parametrize("kind", ["last", "best"])
def test_killed_at_any_call_of_a_save_a_whole_checkpoint_remains_under_every_name(kind: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [9] * (len(rows) - 1) + [0]
    saved = [row[3] for row in rows]
    assert saved == sorted(saved)
    assert set(saved) == {2, 3}
    assert {row[2] for row in rows} == ({2, 3} if kind == "last" else {2})
    assert {row[4] for row in rows} == ({1, 2} if kind == "last" else {1})
    assert any(row[1] for row in rows), "no kill left a temporary file: were the calls watched?"
    assert len(rows) > 15


def test_content_is_on_disk_before_it_gets_its_name_and_the_name_after(tmp_path: Path) -> None:
    run = prepared(tmp_path / "run")
    with Faults(0, dying).watching() as faults:
        run.save("last", checkpoint(3))
    run.close()
    calls = [call for call in faults.calls if call not in ("write", "unlink")]
    assert calls == ["open file", "fsync", "close file", "link", "replace", "replace", "open", "fsync", "close"]


def test_without_hard_links_the_old_checkpoint_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    run = prepared(tmp_path / "run")
    run.save("last", checkpoint(3))
    assert (step_of(run, "last"), step_of(run, "previous")) == (3, 2)
    run.close()


def test_files_get_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            run = RunDirectory.create_at(tmp_path / str(mask))
            for kind in ("last", "last", "best"):
                run.save(kind, checkpoint(1))
            run.write_text("config.yaml", "seed: 0\n")
        finally:
            os.umask(before)
        run.close()
        for path in (run.path / "config.yaml", *run.checkpoints.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_whatever_call_fails_a_text_is_the_old_or_the_new_and_rows_are_whole_after_cutting_back(tmp_path: Path) -> None:
    row = {"step": 1, "train_loss": 0.5}
    for at in range(1, MOST_CALLS):
        path, metrics = tmp_path / "text", MetricsFile(tmp_path / "metrics.csv")
        for file in (path, metrics.path):
            file.unlink(missing_ok=True)
        write_text(path, "old")
        metrics.append(row)
        faults = Faults(at, failing(errno.EIO))
        with contextlib.suppress(StorageError), faults.watching():
            metrics.append({**row, "step": 2})
            write_text(path, "new")
        assert path.read_text() in ("old", "new")
        metrics.cut_back(2)
        lines = metrics.path.read_text().splitlines()
        assert [line.split(",")[0] for line in lines] in (["step", "1"], ["step", "1", "2"])
        assert {line.count(",") for line in lines} == {len(COLUMNS) - 1}
        if len(faults.calls) < at:
            return
    raise AssertionError("the writing never ended")
