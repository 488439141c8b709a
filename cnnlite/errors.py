"""Every error a user can cause or meet, each with its exit code.

Whatever is not one of these is a bug of ours (exit code 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cnnlite.utils.printable import one_line


class CnnliteError(Exception):
    """Base of all expected errors; the message is one or two lines with a hint."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config: where it stands and what to do about it."""

    path: str
    """Place in the YAML, such as ``model[4].conv2d.kernel_size``; empty for the whole file."""
    message: str
    file: str = ""
    line: int = 0
    """Line in the file, counted from 1; 0 if unknown (an override from the command line)."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return one_line(": ".join(part for part in (place, self.path, self.message) if part))


class ConfigError(CnnliteError):
    """A config cannot be read, or describes something that cannot be built; all problems at once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[Problem]):
        if isinstance(problems, str):
            problems = [Problem("", line) for line in problems.split("\n")]
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


class DataError(CnnliteError):
    """A dataset is missing, damaged or not what the config says."""

    exit_code = 3


class CheckpointError(CnnliteError):
    """A checkpoint is damaged, foreign, or does not fit the network."""

    exit_code = 3


class DamagedError(CheckpointError):
    """The bytes of a checkpoint are not those of one: whoever looks for one to go on from may set it aside."""


class AccuracyError(CnnliteError):
    """A network is less accurate than was asked for."""

    exit_code = 3


class DivergedError(CnnliteError):
    """The loss or a gradient is not finite."""

    exit_code = 4


class StorageError(CnnliteError):
    """A file cannot be written (disk full, no permission), or memory is exhausted."""

    exit_code = 5


class LostRunError(StorageError):
    """The directory of a run is no longer where it was: writing on would write into another one."""


def no_more_threads(error: BaseException) -> bool:
    """Recognize what Python raises where the system lets no more threads be started."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def exit_code(error: BaseException) -> int:
    """What a process ends with because of an error: its own code, that of `StorageError` for the system's, or 1."""
    if isinstance(error, OSError | MemoryError) or no_more_threads(error):
        return StorageError.exit_code
    return int(getattr(error, "exit_code", 1))


def missing_extra(what: object, extra: str) -> ConfigError:
    """Make the error for ``what`` needing an optional part of cnnlite that is not installed."""
    return ConfigError(f'{what} needs more than is installed: pip install "cnnlite[{extra}]"')
