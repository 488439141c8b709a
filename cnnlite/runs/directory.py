"""The run directory: its files, and which process may write them."""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnlite.errors import CheckpointError, ConfigError, DamagedError, StorageError
from cnnlite.runs.checkpoint import Checkpoint, CheckpointFile, load_checkpoint, open_checkpoint, save_checkpoint
from cnnlite.runs.locate import PLUGINS, no_run
from cnnlite.runs.lock import Hold, confirm_same
from cnnlite.runs.metrics_file import MetricsFile, NoMetrics
from cnnlite.runs.predictions import PREDICTIONS
from cnnlite.runs.results import read_object
from cnnlite.runs.traces import Traces
from cnnlite.utils.files import (
    check_writable,
    is_missing,
    is_temporary,
    open_to_append,
    reading,
    refuse_special,
    remove_temporary,
    unwritable,
    write_bytes,
    write_text,
    writing,
)
from cnnlite.utils.hints import Argument

SNAPSHOTS = "snapshots.npz"
"""Name of the file with the snapshots of a training."""
START = "start.npz"
"""Name of the file with the arrays that were taken from another network."""
_CONFIG = "config.yaml"
_PRELIMINARY = (_CONFIG, START, "environment.json", "log.txt")
"""Files that a run writes before it has any result."""
_KINDS = ("last", "previous", "best")


class RunDirectory:
    """A directory that belongs to one run, locked by one process at a time.

    Holds ``config.yaml``, ``environment.json``, ``metrics.csv``, ``log.txt``, ``predictions.csv``, ``result.json``,
    perhaps ``start.npz`` and ``snapshots.npz``, in ``plugins`` copies of those, and in ``checkpoints`` ``last.npz``,
    the one before it as ``previous.npz``, and ``best.npz``.
    """

    def __init__(self, path: Path, new: bool = False):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._traces = Traces()
        self._new, self._begun = new, False
        self._inside: os.stat_result | None = None
        """The folder of checkpoints that this process writes to."""
        self._hold = Hold(path)

    @classmethod
    def create(cls, name: str, base: Path = Path("runs")) -> "RunDirectory":
        """Make and lock ``base/name``, or the first of ``base/name-2``, ``base/name-3``, ... that does not exist."""
        for number in itertools.count(1):
            path = base / (name if number == 1 else f"{name}-{number}")
            if is_missing(path):
                with contextlib.suppress(FileExistsError):  # another process was faster: take the next number
                    return cls._make(path)
        raise AssertionError  # count() does not end

    @classmethod
    def create_at(cls, path: Path) -> "RunDirectory":
        """Make and lock exactly ``path``, which may exist as an empty folder.

        Raises:
            ConfigError: If it is in use, or not an empty folder.
        """
        if is_missing(path):
            with contextlib.suppress(FileExistsError):
                return cls._make(path)
        run = cls(path, new=True)
        run._refuse_if_in_use()
        run._prepare()
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Lock an existing run in order to resume it.

        Raises:
            ConfigError: If it is not a run, or another process has locked it.
            StorageError: If its files cannot be written.
        """
        run = cls(path)
        if is_missing(run.checkpoints):
            raise no_run(path)
        if run.checkpoints.is_symlink():  # perhaps to the checkpoints of another run, with another lock
            raise ConfigError(f"{run.checkpoints}: is a link; resume the run that it leads into, or put a folder there")
        written = [run.file(name) for name in ("result.json", PREDICTIONS, SNAPSHOTS)]
        for file in (*written, *map(run.checkpoint_path, ("previous", "best"))):
            refuse_special(file)  # report it now, not at the first write
        run._prepare()
        return run

    @classmethod
    def _make(cls, path: Path) -> "RunDirectory":
        run = cls(path, new=True)
        try:
            for folder in reversed([path, *itertools.takewhile(is_missing, path.parents)]):
                try:
                    run._traces.make_folder(folder)
                except FileExistsError:  # another process was faster
                    if folder == path:
                        raise
        except OSError as error:
            run._traces.remove_folders()
            if isinstance(error, FileExistsError):
                raise
            reason = f"{path.parent} is not a folder" if isinstance(error, NotADirectoryError) else error.strerror
            raise StorageError(f"{path}: cannot make the run directory: {reason or error}") from error
        run._prepare()
        return run

    def _refuse_if_in_use(self) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: is not a folder; name another {Argument('run_dir')}")
        with reading(self.path):
            bare = self._is_bare()
        if not bare:
            resume, other = Argument("resume", str(self.path)), Argument("run_dir")
            raise ConfigError(f"{self.path}: is not empty; continue that run with {resume}, or name another {other}")

    def _is_bare(self) -> bool:
        """Return True for an empty directory, or one with only the files of a process killed before its config."""
        names = {name for name in os.listdir(self.path) if not is_temporary(name)}
        environment = self.file("environment.json")
        if not names <= {".lock", self.checkpoints.name, environment.name, START}:
            return False
        if START in names and environment.name not in names:
            return False  # the user's
        if environment.name in names and not {"cnnlite", "sessions"} <= read_object(environment).keys():
            return False  # the user's
        return self.checkpoints.name not in names or all(map(is_temporary, os.listdir(self.checkpoints)))

    def _prepare(self) -> None:
        """Take the lock, and find out now rather than at the first save whether files can be written here."""
        try:
            self._hold.take()
            with contextlib.suppress(FileExistsError):
                self._traces.make_folder(self.checkpoints)
            self._inside = os.lstat(self.checkpoints)
            check_writable(self.checkpoints)
            remove_temporary(self.path)
            remove_temporary(self.checkpoints)
        except BaseException as error:
            if not self.discard():
                self.close()
            if isinstance(error, OSError):
                raise unwritable(Path(error.filename or self.path), error) from error
            raise

    def confirm(self) -> None:
        """Raise LostRunError if the path, or that of the checkpoints, no longer leads to the directory of the start."""
        self._hold.confirm()
        if self._inside is not None:
            confirm_same(self.checkpoints, self._inside)

    def file(self, name: str) -> Path:
        """Return the path of a file in the run directory, for reading."""
        return self.path / name

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a file that the block writes, after `confirm`.

        Unless the file is a preliminary one, or certainly absent afterwards, the run has begun and is not discarded.
        """
        self.confirm()
        path, begun = self.path / name, self._begun
        preliminary = name in _PRELIMINARY or name.startswith(f"{PLUGINS}/")
        new = preliminary and is_missing(path)
        self._begun |= not preliminary
        try:
            yield path
        except BaseException:
            with contextlib.suppress(StorageError):
                self._begun = begun or (self._begun and not is_missing(path))
            raise
        finally:  # the file may exist even after an error
            if new:
                self._traces.remember(path)

    def append_to(self, name: str) -> Path:
        """Return the path of a file to append to, made if absent.

        Raises:
            StorageError: If it is not a regular file, or cannot be written.
        """
        with self._writing(name) as path, writing(path):
            open_to_append(path).close()
        return path

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run atomically; StorageError if that fails."""
        with self._writing(name) as path:
            write_text(path, text)

    def keep_plugins(self, sources: Mapping[str, bytes]) -> None:
        """Write copies of plugins into the folder ``plugins``; one that is there stays. StorageError if that fails."""
        folder = self.file(PLUGINS)
        if sources:
            self.confirm()
            with writing(folder), contextlib.suppress(FileExistsError):
                self._traces.make_folder(folder)
            if folder.is_symlink() or not folder.is_dir():
                raise StorageError(f"{folder}: is not a folder; remove it")
        for name, source in sources.items():
            if is_missing(folder / name):
                with self._writing(f"{PLUGINS}/{name}") as path:
                    write_bytes(path, source)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run atomically; StorageError if that fails."""
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def metrics(self) -> MetricsFile:
        """Return the metrics of the run."""
        return MetricsFile(self.file("metrics.csv"), lambda: self.append_to("metrics.csv"))

    def checkpoint_path(self, kind: str) -> Path:
        """Return the path of the checkpoint ``last``, ``previous`` or ``best``."""
        return self.checkpoints / f"{kind}.npz"

    def save(self, kind: str, checkpoint: Checkpoint) -> None:
        """Save the checkpoint ``last`` (the one before becomes ``previous``) or ``best``."""
        previous = self.checkpoint_path("previous") if kind == "last" else None
        with self._writing(f"checkpoints/{kind}.npz") as path:
            save_checkpoint(path, checkpoint, previous)

    def save_snapshots(self, snapshots: Checkpoint) -> None:
        """Save the snapshots of the training so far as ``snapshots.npz``; StorageError if that fails."""
        with self._writing(SNAPSHOTS) as path:
            save_checkpoint(path, snapshots)

    def load_snapshots(self) -> Checkpoint | None:
        """Load the snapshots; None if there are none, CheckpointError if they cannot be read."""
        return self._load(SNAPSHOTS)

    def save_start(self, start: Checkpoint) -> None:
        """Save the arrays that the training starts from as ``start.npz``; StorageError if that fails."""
        with self._writing(START) as path:
            save_checkpoint(path, start)

    def load_start(self) -> Checkpoint | None:
        """Load what the training starts from; None if it starts afresh, CheckpointError if it cannot be read."""
        return self._load(START)

    def _load(self, name: str) -> Checkpoint | None:
        path = self.file(name)
        return None if is_missing(path) else load_checkpoint(path)

    def load(self, kind: str) -> Checkpoint:
        """Load the checkpoint ``last``, ``previous`` or ``best``; CheckpointError if it is damaged."""
        return load_checkpoint(self.checkpoint_path(kind))

    def newest_checkpoint(
        self, check: Callable[[CheckpointFile], object] = lambda file: None
    ) -> tuple[Checkpoint, list[str]]:
        """Load the newest checkpoint that is whole, and set damaged newer ones aside.

        The best checkpoint, if older, is as good as any to resume from. ``check`` is that of `load_checkpoint`.

        Returns:
            The checkpoint, and a warning for each damaged one.

        Raises:
            CheckpointError: If there is none, or one cannot be read or is refused by ``check``.
        """
        faults: list[str] = []
        warnings: list[str] = []
        for kind in _KINDS:
            path = self.checkpoint_path(kind)
            if is_missing(path):
                continue
            try:
                return load_checkpoint(path, check), warnings
            except DamagedError as error:
                faults.append(str(error))
                names = (f"{kind}.corrupt{number}.npz" for number in ("", *map("-{}".format, range(2, 100))))
                aside, done = next(filter(is_missing, map(path.with_name, names)), path), ""
                with contextlib.suppress(OSError):
                    os.replace(path, aside)
                    done = f"set aside as {aside.name}, "
                warnings.append(f"{error}; {done}going back to the one before")
        reason = faults[0] if faults else f"{self.checkpoints}: no checkpoint to resume from"
        raise CheckpointError(f"{reason}; start a new run instead")

    def last_step(self) -> int:
        """Return the step of the checkpoint ``last``; 0 if unknown."""
        with contextlib.suppress(CheckpointError), open_checkpoint(self.checkpoint_path("last")) as file:
            step = file.meta.get("step")
            return step if isinstance(step, int) else 0
        return 0

    def is_unsaved(self) -> bool:
        """Return True if the run never had a checkpoint (even a damaged one) or a result; StorageError if unknown."""
        with reading(self.checkpoints):
            names = os.listdir(self.checkpoints)
        return is_missing(self.file("result.json")) and not any(re.fullmatch(r"[^.].*\.npz", name) for name in names)

    def close(self) -> None:
        """Release the lock of the run directory."""
        self._hold.release()

    def discard(self) -> bool:
        """Remove what this process made of the directory, if it is a new run without any result.

        Only files unchanged since this process wrote them are removed, and folders that are then empty. Nothing is
        removed if the directory may belong to another process by now, or if its config was changed: that run can be
        resumed.

        Returns:
            True if the run was discarded.
        """
        if not self._new or self._begun:
            return False
        try:
            if self._hold.taken:
                self.confirm()
                self._traces.remove_files(self.file(_CONFIG))
                with contextlib.suppress(OSError):
                    self._hold.remove()
        except (OSError, StorageError):
            return False
        else:
            self._traces.remove_folders()
            return True
        finally:
            self.close()


class RunElsewhere(RunDirectory):
    """The directory of a run that another rank writes; nothing is written here."""

    def confirm(self) -> None:
        """Do nothing: the other rank confirms."""

    def append_to(self, name: str) -> Path:
        """Return the path of the file, to which nothing is appended here."""
        return self.file(name)

    def write_text(self, name: str, text: str) -> None:
        """Do nothing."""

    def keep_plugins(self, sources: Mapping[str, bytes]) -> None:
        """Do nothing."""

    def metrics(self) -> MetricsFile:
        """Return metrics that are not stored."""
        return NoMetrics(self.file("metrics.csv"))

    def save(self, kind: str, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def save_snapshots(self, snapshots: Checkpoint) -> None:
        """Do nothing."""

    def save_start(self, start: Checkpoint) -> None:
        """Do nothing."""

    def discard(self) -> bool:
        """Return False: the other rank discards a directory without results."""
        return False
