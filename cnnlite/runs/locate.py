"""Paths to runs: the checkpoint that a path means, and the error for a path that is no run."""

import contextlib
from pathlib import Path

from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.utils.files import is_missing
from cnnlite.utils.suggest import did_you_mean

PLUGINS = "plugins"
"""Name of the folder in a run that has copies of its plugins, which nothing runs by itself."""


def checkpoint_of(path: Path) -> Path:
    """Return the best checkpoint of a run, or else the newest; a file, or a path of an .npz, is returned as is.

    Raises:
        CheckpointError: If the run has no checkpoint yet.
        ConfigError: If the folder is not a run, or there is none.
        StorageError: If the system does not say what is there.
    """
    if path.is_file() or path.suffix == ".npz":
        return path
    for folder in path / "checkpoints", path:
        for kind in "best", "last", "previous":
            if not is_missing(file := folder / f"{kind}.npz"):
                return file
    raise no_run(path) if is_missing(path / "config.yaml") else CheckpointError(f"{path}: no checkpoint yet")


def no_run(path: Path) -> ConfigError:
    """Return the error for a path that is no run directory.

    It suggests a run with a similar name, beside the path or in ``runs``, or the latest run inside the path.
    """
    if is_missing(path):
        known = {run.name: str(run) for base in (Path("runs"), path.parent) for run in _runs_in(base)}
        hint = did_you_mean(path.name, known, known)
        return ConfigError(f"{path}: no such run{hint or '; name the directory of one, such as runs/small'}")
    if path.parent.name == "checkpoints":
        return ConfigError(f"{path}: is not a run directory; name the run, {path.parent.parent}")
    if inside := _runs_in(path):
        return ConfigError(f"{path}: is not a run directory but holds some; name one, such as {inside[-1]}")
    return ConfigError(f"{path}: is not a run directory; name one, such as runs/small")


def _runs_in(folder: Path) -> list[Path]:
    """Return the runs in a folder, latest last; empty if it cannot be read. Used in messages only."""
    with contextlib.suppress(OSError):
        found = sorted(folder.glob("*/checkpoints/"), key=lambda inside: inside.stat().st_mtime)
        return [inside.parent for inside in found]
    return []
