"""Expected errors, caused or met by users, each with its exit code.

Any other exception is a bug in cnnlite (exit code 1).
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from cnnlite.utils.printable import one_line


class CnnliteError(Exception):
    """Base of all expected errors; the message is one or two lines with a hint."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """A problem in a config: where it is and what to do about it."""

    path: str
    """Place in the YAML, such as ``model[4].conv2d.kernel_size``; empty for the whole file."""
    message: str
    file: str = ""
    line: int = 0
    """Line in the file, counted from 1; 0 if unknown, as for an override from the command line."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return one_line(": ".join(part for part in (place, self.path, self.message) if part))


class ConfigError(CnnliteError):
    """A config cannot be read, or describes something that cannot be built; holds all problems at once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[Problem]):
        if isinstance(problems, str):
            problems = [Problem("", line) for line in problems.split("\n")]
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PluginError(ConfigError):
    """A config of a run names plugins, whose files only a user can name; ``needed`` are those that are missing."""

    def __init__(self, problems: str | Sequence[Problem], needed: Sequence[str] = ()):
        super().__init__(problems)
        self.needed = list(needed)


class DataError(CnnliteError):
    """A dataset is missing, damaged or not what the config says."""

    exit_code = 3


class CheckpointError(CnnliteError):
    """A checkpoint is damaged, foreign, or does not fit the network."""

    exit_code = 3


class DamagedError(CheckpointError):
    """A checkpoint file has the wrong bytes, so that it may be set aside in a search for one to resume from."""


class AccuracyError(CnnliteError):
    """A network is less accurate than required."""

    exit_code = 3


class DivergedError(CnnliteError):
    """The loss or a gradient is not finite."""

    exit_code = 4


class StorageError(CnnliteError):
    """A file cannot be written (disk full, no permission), or memory is exhausted."""

    exit_code = 5


class LostRunError(StorageError):
    """A run directory is no longer where it was, so that writing on would write into another one."""


class OptionError(ValueError):
    """A constructor refuses one of its options; whoever builds from a config makes a `Problem` of it."""

    def __init__(self, message: str, *option: str | int):
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in option)[1:]
        super().__init__(message if message.startswith(place) else f"{place}: {message}")
        self.message, self.option = message, option
        """Take the message, and the steps to the option: its name, then keys and indices inside of it."""


def no_more_threads(error: BaseException) -> bool:
    """Return True for Python's error when the system allows no more threads."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def cannot_load(error: BaseException) -> bool:
    """Return True if a library is installed but cannot be loaded, as where there is too little memory for it."""
    return type(error) is ImportError and "cannot import name" not in str(error)


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error: its own, that of `StorageError` for errors of the system, or 1."""
    if isinstance(error, OSError | MemoryError) or no_more_threads(error) or cannot_load(error):
        return StorageError.exit_code
    return int(getattr(error, "exit_code", 1))


def require(what: object, module: str, extra: str) -> None:
    """Raise `missing_extra` for ``what`` unless the ``module`` that an extra brings is installed."""
    if importlib.util.find_spec(module) is None:
        raise missing_extra(what, extra)


def missing_extra(what: object, extra: str) -> ConfigError:
    """Make the error for ``what`` needing an optional part of cnnlite that is not installed."""
    return ConfigError(f'{what} needs more than is installed: pip install "cnnlite[{extra}]"')
