"""What a run directory holds, and who may write to it."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from cnnlite.checkpoint import Checkpoint, CheckpointFile, load_checkpoint, save_checkpoint
from cnnlite.errors import CheckpointError, ConfigError, DamagedError, StorageError
from cnnlite.files import check_writable, is_special, lock, open_to_append, remove_temporary, unwritable, write_text
from cnnlite.metrics import MetricsFile, NoMetrics
from cnnlite.words import did_you_mean

_LOCK = ".lock"


class RunDirectory:
    """A directory that belongs to one run, held by one process at a time.

    ``config.yaml``, ``environment.json``, ``metrics.csv``, ``log.txt``, ``result.json`` and in ``checkpoints``
    ``last.npz``, the one before it as ``previous.npz``, and ``best.npz``.
    """

    def __init__(self, path: Path, made: Sequence[Path] = (), was_empty: bool = False):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._made = list(made)
        self._was_empty = was_empty
        self._lock: IO[bytes] | None = None

    @classmethod
    def create(cls, name: str, base: Path = Path("runs")) -> "RunDirectory":
        """Make and lock ``base/name``, or ``base/name-2`` and so on: whichever does not exist yet."""
        for number in itertools.count(1):
            path = base / (name if number == 1 else f"{name}-{number}")
            if not path.exists() and not path.is_symlink():
                with contextlib.suppress(FileExistsError):  # another process was faster: take the next number
                    return cls._make(path)
        raise AssertionError  # count() does not end

    @classmethod
    def create_at(cls, path: Path) -> "RunDirectory":
        """Make and lock exactly ``path``, which may exist if it is an empty folder; ConfigError otherwise."""
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                return cls._make(path)
        run = cls(path, was_empty=True)
        run._refuse_if_in_use()
        run._prepare()
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Lock an existing run to go on with it; ConfigError if it is none or another process has it."""
        run = cls(path)
        if not run.checkpoints.is_dir():
            raise no_run(path)
        if run.checkpoints.is_symlink():  # perhaps to those of another run, with another lock
            raise ConfigError(f"{run.checkpoints}: is a link; resume the run that it leads into, or put a folder there")
        for file in (run.file("result.json"), run.checkpoint_path("previous"), run.checkpoint_path("best")):
            if is_special(file):  # found now, and not when it is to be written
                raise StorageError(f"{file}: is not a regular file; remove it")
        run._prepare()
        return run

    @classmethod
    def _make(cls, path: Path) -> "RunDirectory":
        made = [path, *itertools.takewhile(lambda folder: not folder.exists(), path.parents)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not path.parent.is_dir():
                raise StorageError(f"{path}: cannot make the run directory: {path.parent} is not a folder") from None
            raise
        except OSError as error:
            raise StorageError(f"{path}: cannot make the run directory: {error.strerror or error}") from error
        run = cls(path, made)
        run._prepare()
        return run

    def _refuse_if_in_use(self) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: is not a folder; name another --run-dir")
        if any(entry.name != _LOCK for entry in self.path.iterdir()):
            raise ConfigError(
                f"{self.path}: is not empty; continue that run with --resume {self.path}, or name another --run-dir"
            )

    def _prepare(self) -> None:
        """Take the lock, and find out now rather than at the first save whether files can be written here."""
        try:
            self._lock = open_to_append(self.path / _LOCK)
            if not lock(self._lock):
                self._lock.close()
                raise ConfigError(f"{self.path}: another process is training in this run directory; name another one")
            self.checkpoints.mkdir(exist_ok=True)
            check_writable(self.checkpoints)
        except OSError as error:
            self.discard()
            raise unwritable(self.path, error) from error
        remove_temporary(self.path)
        remove_temporary(self.checkpoints)

    def file(self, name: str) -> Path:
        """Path of a file in the run directory."""
        return self.path / name

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run in one piece; StorageError if that cannot be."""
        write_text(self.path / name, text)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run in one piece; StorageError if that cannot be."""
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def metrics(self) -> MetricsFile:
        """The figures of the run."""
        return MetricsFile(self.file("metrics.csv"))

    def checkpoint_path(self, kind: str) -> Path:
        """Path of the checkpoint ``last``, ``previous`` or ``best``."""
        return self.checkpoints / f"{kind}.npz"

    def save(self, kind: str, checkpoint: Checkpoint) -> None:
        """Save the checkpoint ``last`` (the one before becomes ``previous``) or ``best``."""
        previous = self.checkpoint_path("previous") if kind == "last" else None
        save_checkpoint(self.checkpoint_path(kind), checkpoint, previous)

    def load(self, kind: str) -> Checkpoint:
        """Load the checkpoint ``last``, ``previous`` or ``best``; CheckpointError if it is damaged."""
        return load_checkpoint(self.checkpoint_path(kind))

    def newest_checkpoint(
        self, check: Callable[[CheckpointFile], object] = lambda file: None
    ) -> tuple[Checkpoint, list[str]]:
        """Load the newest checkpoint that is whole; also return warnings about newer ones, which are set aside.

        The best one is as good as any to go on from, if older. CheckpointError if there is none, or one cannot be read
        or is refused by ``check``, which is that of `load_checkpoint`.
        """
        faults: list[str] = []
        warnings: list[str] = []
        for kind in ("last", "previous", "best"):
            path = self.checkpoint_path(kind)
            if not path.exists():
                continue
            try:
                return load_checkpoint(path, check), warnings
            except DamagedError as error:
                faults.append(str(error))
                aside, done = path.with_name(f"{kind}.corrupt.npz"), ""
                with contextlib.suppress(OSError):
                    os.replace(path, aside)
                    done = f"set aside as {aside.name}, "
                warnings.append(f"{error}; {done}going back to the one before")
        reason = faults[0] if faults else f"{self.checkpoints}: no checkpoint to resume from"
        raise CheckpointError(f"{reason}; start a new run instead")

    def has_results(self) -> bool:
        """Tell whether the run has come to anything: a checkpoint or a result."""
        return self.file("result.json").exists() or any(self.checkpoints.glob("[!.]*.npz"))

    def close(self) -> None:
        """Let other processes have the run directory."""
        if self._lock is not None:
            self._lock.close()  # closing releases the lock, and so does the end of the process
            self._lock = None

    def discard(self) -> None:
        """Remove again what this process made of the directory, for a run that never started."""
        self.close()
        if self._made or self._was_empty:
            for entry in self.path.glob("*"):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        entry.unlink()
        for folder in self._made:
            with contextlib.suppress(OSError):  # somebody else's by now
                folder.rmdir()


class RunElsewhere(RunDirectory):
    """The directory of a run that another rank writes."""

    def write_text(self, name: str, text: str) -> None:
        """Do nothing."""

    def metrics(self) -> MetricsFile:
        """Figures that are kept nowhere."""
        return NoMetrics(self.file("metrics.csv"))

    def save(self, kind: str, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def has_results(self) -> bool:
        """Leave it to the other rank to discard a directory without results."""
        return True


def checkpoint_of(path: Path) -> Path:
    """Find the best checkpoint of a run, or else the newest; a file, or the ``path`` of an .npz, is one itself.

    CheckpointError for a run that has none yet, ConfigError for another folder, or none.
    """
    if path.is_file() or path.suffix == ".npz":
        return path
    for folder in path / "checkpoints", path:
        for kind in "best", "last", "previous":
            if (file := folder / f"{kind}.npz").exists():
                return file
    raise CheckpointError(f"{path}: no checkpoint yet") if (path / "config.yaml").exists() else no_run(path)


def no_run(path: Path) -> ConfigError:
    """Make the error for a path that is no run directory.

    It names a run of nearly that name, beside the path or where runs go by default, or the latest inside.
    """
    if not path.exists():
        runs = (folder.parent for base in (Path("runs"), path.parent) for folder in base.glob("*/checkpoints/"))
        known = {run.name: str(run) for run in runs}
        way_out = did_you_mean(path.name, known, known)
        return ConfigError(f"{path}: no such run{way_out or '; name the directory of one, such as runs/small'}")
    if path.parent.name == "checkpoints":
        return ConfigError(f"{path}: is not a run directory; name the run, {path.parent.parent}")
    inside = sorted(path.glob("*/checkpoints/"), key=lambda folder: folder.stat().st_mtime)
    if inside:
        return ConfigError(f"{path}: is not a run directory but holds some; name one, such as {inside[-1].parent}")
    return ConfigError(f"{path}: is not a run directory; name one, such as runs/small")
