"""Limits of memory and processor time that Linux's control groups set this process: containers, clusters, services."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NO_LIMIT = 2**60
"""Bytes that no machine has; version 1 writes nearly 2^63 where there is no limit."""
_OCTAL = re.compile(r"\\([0-7]{3})")
"""Escapes of spaces and the like in mountinfo."""


def memory_limit(root: Path = Path("/")) -> int | None:
    """Memory limit in bytes: the least of this process's control groups and those above them; None without one.

    Beyond ``memory.high`` processes are not killed, but slowed down until they are of no use. ``root`` holds the
    system's files.
    """
    limits = []
    for folder in _folders("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limits += [int(word) for word in _read(folder / name).split() if word.isdecimal()]
    return min((limit for limit in limits if 0 < limit < _NO_LIMIT), default=None)


def processors(root: Path = Path("/")) -> float | None:
    """Processor limit in seconds a second: the least of this process's control groups and those above; None without."""
    quotas = []
    for folder in _folders("cpu", root):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        pair = _read(folder / "cpu.max").split() or [word for name in names for word in _read(folder / name).split()]
        with contextlib.suppress(ValueError):  # "max", or something missing
            quota, period = map(int, pair)
            quotas += [quota / period] if quota > 0 and period > 0 else []
    return min(quotas, default=None)


def _read(path: Path) -> str:
    """Read a small file; empty if it cannot be read, as where a controller is not in use, or not on Linux."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """Iterate over the folders of this process's control groups for a controller: its own, then each above it."""
    groups: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        names, _, path = line.partition(":")[2].partition(":")
        groups.update(dict.fromkeys(names.split(","), path))
    for line in _read(root / "proc/self/mountinfo").splitlines():
        about, _, source = line.partition(" - ")
        kind, options = source.partition(" ")[0], source.rpartition(" ")[2]
        name = controller if kind == "cgroup" else ""  # all controllers of version 2 are in one tree
        if kind not in ("cgroup", "cgroup2") or name not in groups or (name and name not in options.split(",")):
            continue
        _, _, _, top, place, *_ = map(_unescaped, about.split(" "))
        # Inside a container the mount may begin in the middle of the tree, and the path be one of outside.
        group = PurePosixPath(groups[name])
        inside = group.relative_to(top) if group.is_relative_to(top) and ".." not in group.parts else PurePosixPath()
        for part in (inside, *inside.parents):
            yield root / place.lstrip("/") / part


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
