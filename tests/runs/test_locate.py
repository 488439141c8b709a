import errno
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.errors import CheckpointError, ConfigError, StorageError
from cnnlite.runs.locate import checkpoint_of

ERRORS = [errno.EACCES, errno.ESTALE, errno.EIO, errno.ELOOP]


def failing_for(name: str, number: int, patch: pytest.MonkeyPatch) -> None:
    """Let the system say nothing about the files of this name."""
    for call in ("lstat", "stat", "open"):
        function = getattr(os, call)

        def fail(path: object, *arguments: object, function: object = function, **options: object) -> object:
            if str(path).endswith(name):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *arguments, **options)  # type: ignore[operator]

        patch.setattr(os, call, fail)


def test_a_run_stands_for_its_best_checkpoint_and_else_for_the_newest(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="is not a run directory"):
        checkpoint_of(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        checkpoint_of(tmp_path)
    for kind in ("previous", "last", "best"):
        path = tmp_path / f"checkpoints/{kind}.npz"
        path.touch()
        assert checkpoint_of(tmp_path) == path
    assert checkpoint_of(path) == path


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("name", ["best.npz", "config.yaml"])
def test_what_cannot_be_looked_at_is_not_taken_for_missing(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    if name == "best.npz":
        (tmp_path / "checkpoints/last.npz").touch()
    failing_for(name, number, monkeypatch)
    with pytest.raises(StorageError, match=rf"{name}: cannot read: {os.strerror(number)}"):
        checkpoint_of(tmp_path)


@pytest.mark.parametrize("number", ERRORS)
def test_a_file_of_a_run_that_cannot_be_read_is_not_taken_for_missing(
    number: int, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parent.parent, run)
    (run / "config.yaml").touch()
    for name, commands in {
        "result.json": (["explain", str(run)], ["train", "-q", "--resume", str(run)]),
        "metrics.csv": (["explain", str(run)],),
        "best.npz": (
            ["eval", str(run)],
            ["predict", str(run), "x.png"],
            ["export", str(run), str(tmp_path / "n.onnx")],
        ),
        "config.yaml": (["explain", str(run)],),
    }.items():
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with monkeypatch.context() as patch:
            failing_for(name, number, patch)
            for command in commands:
                done = CliRunner().invoke(cli, command)
                assert (done.exit_code in (3, 5), os.strerror(number) in done.stderr) == (True, True), (
                    name,
                    done.output,
                )
        left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
        assert left == {path: content for path, content in before.items() if path.name != ".lock"}
