"""What a run directory holds, and who may write to it."""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnlite.errors import CheckpointError, ConfigError, DamagedError, StorageError
from cnnlite.runs.checkpoint import Checkpoint, CheckpointFile, load_checkpoint, save_checkpoint
from cnnlite.runs.hold import Hold
from cnnlite.runs.locate import no_run
from cnnlite.runs.metrics import MetricsFile, NoMetrics
from cnnlite.utils.files import (
    check_writable,
    is_missing,
    is_special,
    is_temporary,
    open_to_append,
    remove_temporary,
    unreadable,
    unwritable,
    write_text,
)
from cnnlite.utils.hints import Argument

_CONFIG = "config.yaml"
_PRELIMINARY = (_CONFIG, "environment.json", "log.txt")
"""What a run writes before it comes to anything."""
_KINDS = ("last", "previous", "best")


class RunDirectory:
    """A directory that belongs to one run, held by one process at a time.

    ``config.yaml``, ``environment.json``, ``metrics.csv``, ``log.txt``, ``result.json`` and in ``checkpoints``
    ``last.npz``, the one before it as ``previous.npz``, and ``best.npz``.
    """

    def __init__(self, path: Path, made: Sequence[Path] = (), new: bool = False):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._made = list(made)
        """Folders that this process made, from the outermost on."""
        self._wrote: dict[Path, os.stat_result] = {}
        """Preliminary files as this process wrote them."""
        self._new, self._begun = new, False
        self._hold = Hold(path)

    @classmethod
    def create(cls, name: str, base: Path = Path("runs")) -> "RunDirectory":
        """Make and lock ``base/name``, or ``base/name-2`` and so on: whichever does not exist yet."""
        for number in itertools.count(1):
            path = base / (name if number == 1 else f"{name}-{number}")
            if is_missing(path):
                with contextlib.suppress(FileExistsError):  # another process was faster: take the next number
                    return cls._make(path)
        raise AssertionError  # count() does not end

    @classmethod
    def create_at(cls, path: Path) -> "RunDirectory":
        """Make and lock exactly ``path``, which may exist if it is an empty folder; ConfigError otherwise."""
        if is_missing(path):
            with contextlib.suppress(FileExistsError):
                return cls._make(path)
        run = cls(path, new=True)
        run._refuse_if_in_use()
        run._prepare()
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Lock an existing run to go on with it; ConfigError if it is none or another process has it."""
        run = cls(path)
        if is_missing(run.checkpoints):
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
        run = cls(path, new=True)
        try:
            for folder in reversed([path, *itertools.takewhile(is_missing, path.parents)]):
                try:
                    run._make_folder(folder)
                except FileExistsError:  # another process was faster
                    if folder == path:
                        raise
        except OSError as error:
            run._remove_folders()
            if isinstance(error, FileExistsError):
                raise
            reason = f"{path.parent} is not a folder" if isinstance(error, NotADirectoryError) else error.strerror
            raise StorageError(f"{path}: cannot make the run directory: {reason or error}") from error
        run._prepare()
        return run

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir()
        self._made.append(folder)

    def _refuse_if_in_use(self) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: is not a folder; name another {Argument('run_dir')}")
        try:
            bare = self._is_bare()
        except OSError as error:
            raise unreadable(self.path, error) from error
        if not bare:
            resume, other = Argument("resume", str(self.path)), Argument("run_dir")
            raise ConfigError(f"{self.path}: is not empty; continue that run with {resume}, or name another {other}")

    def _is_bare(self) -> bool:
        """Tell whether nothing is here, or what a process leaves that is killed before it has written its config."""
        names = os.listdir(self.path)
        if not all(is_temporary(name) or name in (".lock", "checkpoints", "environment.json") for name in names):
            return False
        return self.checkpoints.name not in names or all(map(is_temporary, os.listdir(self.checkpoints)))

    def _prepare(self) -> None:
        """Take the lock, and find out now rather than at the first save whether files can be written here."""
        try:
            if not self._hold.take():
                raise ConfigError(f"{self.path}: another process is training in this run directory; name another one")
            with contextlib.suppress(FileExistsError):
                self._make_folder(self.checkpoints)
            check_writable(self.checkpoints)
            remove_temporary(self.path)
            remove_temporary(self.checkpoints)
        except BaseException as error:
            if not self.discard():
                self.close()
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error
            raise

    def confirm(self) -> None:
        """Raise LostRunError if this path leads by now to another directory than the one that is locked, or nowhere."""
        self._hold.confirm()

    def file(self, name: str) -> Path:
        """Path of a file in the run directory, to read it."""
        return self.path / name

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Path of a file that the block writes; LostRunError as from `confirm`.

        The run has come to something after it, unless nothing is there for certain.
        """
        self.confirm()
        path, begun = self.path / name, self._begun
        self._begun |= name not in _PRELIMINARY
        try:
            yield path
        except BaseException:
            with contextlib.suppress(StorageError):
                self._begun = begun or (self._begun and not is_missing(path))
            raise

    def append_to(self, name: str) -> Path:
        """Path of a file that is about to be appended to, which is there; StorageError if it is not a regular one."""
        with self._writing(name) as path:
            try:
                new = is_missing(path)
                open_to_append(path).close()
                if new:
                    self._remember(path)
            except OSError as error:
                raise unwritable(path, error) from error
        return path

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run in one piece; StorageError if that cannot be."""
        with self._writing(name) as path:
            new = is_missing(path)
            try:
                write_text(path, text)
            finally:  # the file may be there even so
                if new:
                    self._remember(path)

    def _remember(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # what is not remembered stays
            self._wrote[path] = os.lstat(path)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run in one piece; StorageError if that cannot be."""
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def metrics(self) -> MetricsFile:
        """The figures of the run."""
        return MetricsFile(self.file("metrics.csv"), lambda: self.append_to("metrics.csv"))

    def checkpoint_path(self, kind: str) -> Path:
        """Path of the checkpoint ``last``, ``previous`` or ``best``."""
        return self.checkpoints / f"{kind}.npz"

    def save(self, kind: str, checkpoint: Checkpoint) -> None:
        """Save the checkpoint ``last`` (the one before becomes ``previous``) or ``best``."""
        previous = self.checkpoint_path("previous") if kind == "last" else None
        with self._writing(f"checkpoints/{kind}.npz") as path:
            save_checkpoint(path, checkpoint, previous)

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

    def is_unsaved(self) -> bool:
        """Tell whether there never was a checkpoint, damaged ones included, nor a result; StorageError if unknown."""
        try:
            names = os.listdir(self.checkpoints)
        except OSError as error:
            raise unreadable(self.checkpoints, error) from error
        return is_missing(self.file("result.json")) and not any(re.fullmatch(r"[^.].*\.npz", name) for name in names)

    def close(self) -> None:
        """Let other processes have the run directory."""
        self._hold.release()

    def discard(self) -> bool:
        """Remove again what this process made of the directory, if it is a new run that has come to nothing.

        Tells whether it did. Only files that are as this process wrote them go, and folders that are empty then; none
        if the directory may be another's by now, or its config is: that can be gone on with.
        """
        if not self._new or self._begun:
            return False
        try:
            if self._hold.taken:
                self.confirm()
                self._remove_files()
        except (OSError, StorageError):
            return False
        else:
            self._remove_folders()
            return True
        finally:
            self.close()

    def _remove_files(self) -> None:
        """Remove the config, or OSError; then what else there is."""
        config = self.file(_CONFIG)
        if not is_missing(config):
            self._remove(config)
        for path in self._wrote:
            with contextlib.suppress(OSError):
                self._remove(path)
        with contextlib.suppress(OSError):
            self._hold.remove()

    def _remove(self, path: Path) -> None:
        now, then = os.lstat(path), self._wrote.get(path)
        grown = path.name == "log.txt"
        if then is None or not os.path.samestat(now, then) or not (grown or now.st_mtime_ns == then.st_mtime_ns):
            raise FileExistsError(path)
        path.unlink()

    def _remove_folders(self) -> None:
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # somebody else's by now
                folder.rmdir()


class RunElsewhere(RunDirectory):
    """The directory of a run that another rank writes."""

    def confirm(self) -> None:
        """Leave it to the other rank."""

    def append_to(self, name: str) -> Path:
        """Path of a file that nothing is appended to here."""
        return self.file(name)

    def write_text(self, name: str, text: str) -> None:
        """Do nothing."""

    def metrics(self) -> MetricsFile:
        """Figures that are kept nowhere."""
        return NoMetrics(self.file("metrics.csv"))

    def save(self, kind: str, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def discard(self) -> bool:
        """Leave it to the other rank to discard a directory without results."""
        return False
