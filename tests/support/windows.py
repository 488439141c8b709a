"""A Python that looks like that of Windows, as far as cnnlite can tell: what there is, and what its files refuse.

``pretend()`` changes this process for good, so it is for processes of their own. What cnnlite builds on (NumPy, Click,
pathlib, ...) stays as it is: how that works on Windows is not for us to test.
"""

import contextlib
import fcntl
import importlib
import os
import pathlib
import pkgutil
import shutil
import signal
import sys
import types
from collections.abc import Callable, Collection
from typing import Any

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty")
"""Modules of the standard library that Windows does not have."""
SIGNALS = (
    *("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
    *("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGXFSZ"),
)
OF_OS = {
    "O_NOFOLLOW",
    "O_NONBLOCK",
    "chown",
    "fork",
    "getloadavg",
    "geteuid",
    "getuid",
    "killpg",
    "mkfifo",
    "register_at_fork",
    "sched_getaffinity",
    "setsid",
    "statvfs",
    "sysconf",
    "uname",
}
"""What the module os has elsewhere only."""


class Disguised:
    """A module with other values for some names, and without some others."""

    def __init__(self, module: types.ModuleType, without: Collection[str] = (), **values: Any):
        self._module, self._without, self._values = module, without, values

    def __getattr__(self, name: str) -> Any:
        if name in self._without:
            raise AttributeError(f"Windows has no {self._module.__name__}.{name}")
        return self._values[name] if name in self._values else getattr(self._module, name)


def pretend() -> None:
    """Make this process look like one on Windows."""
    for needed in ("numpy", "click.testing", "yaml", "tqdm", "subprocess", "tempfile", "zipfile", "urllib.request"):
        importlib.import_module(needed)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = _msvcrt()
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in SIGNALS:
        delattr(signal, name)
    for function in ("replace", "rename", "remove", "unlink"):
        setattr(os, function, _refusing(getattr(os, function), new_must_not_exist=function == "rename"))
    import cnnlite

    for found in pkgutil.walk_packages(cnnlite.__path__, "cnnlite."):
        if found.name != "cnnlite.__main__":
            importlib.import_module(found.name)
    _name_memory()
    replaced = {
        os: Disguised(os, OF_OS, name="nt", open=_open),
        sys: Disguised(sys, platform="win32"),
        pathlib.Path: _path,
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("cnnlite"):
            for key, value in list(vars(module).items()):
                if value is os or value is sys or (name == "cnnlite.runtime.machine" and value is pathlib.Path):
                    setattr(module, key, replaced[value])


def _name_memory() -> None:
    """Let memory have names, by which no other process finds it: spawned workers, which are not disguised, fail."""
    from cnnlite.runtime import handover

    class Named(handover.Memory):
        def __new__(cls, descriptor: int, size: int, access: int, tagname: str) -> "Named":
            return super().__new__(cls, -1, size)

    setattr(handover, "Memory", Named)  # noqa: B010 (mypy)


def _path(name: str) -> pathlib.Path:
    """A path, where there is no /proc and no /sys."""
    return pathlib.Path(f"/nowhere{name}" if name.startswith(("/proc", "/sys")) else name)


def _open(path: Any, flags: int, *more: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, flags, *more)


def _msvcrt() -> types.ModuleType:
    """The module by which Windows locks files; a lock that another holds is a PermissionError."""
    module: Any = types.ModuleType("msvcrt")
    module.LK_NBLCK = 2

    def locking(descriptor: int, mode: int, count: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module.locking = locking
    return module  # type: ignore[no-any-return]


def _refusing(function: Callable[..., None], *, new_must_not_exist: bool) -> Callable[..., None]:
    """The function, which refuses to move, replace or delete what this process has open or mapped."""

    def checked(*paths: Any, **options: Any) -> None:
        if new_must_not_exist and os.path.lexists(paths[1]):
            raise FileExistsError(17, "Cannot create a file when that file already exists", str(paths[1]))
        for path in paths:
            real = os.path.realpath(path)
            if any(name == real or name.startswith(real + os.sep) for name in _in_use()):
                raise PermissionError(13, "The file is being used by another process", str(path))
        function(*paths, **options)

    return checked


def _in_use() -> set[str]:
    """Names of the files that this process has open or mapped."""
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        names |= {line.rstrip("\n").split(maxsplit=5)[-1] for line in maps}
    return names
