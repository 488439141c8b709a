"""The environment of a run: everything its results may depend on beside the config."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite import __version__
from cnnlite.runtime import distributed, engine, machine

_VARIABLES = (*machine.PINS, "NPY_DISABLE_CPU_FEATURES")
"""Environment variables that are recorded; numbers of BLAS threads are not, as cnnlite always sets them to 1."""


MOST_SESSIONS = 100
"""Largest number of sessions listed, so that the file stays small however often a run is interrupted."""


def versions() -> dict[str, str]:
    """Return the versions that a checkpoint names."""
    return {"cnnlite": __version__, "numpy": np.__version__, "python": platform.python_version()}


def arithmetic() -> dict[str, Any]:
    """Return what decides the last bits of a run, beside config and versions; a checkpoint names that too."""
    return {
        "blas": machine.blas_name(),
        "blas_kernel": machine.blas_kernel(),
        "cpu_features": machine.cpu_features(),
        "ranks": distributed.current().size,
    }


def environment() -> dict[str, Any]:
    """Return what the results of a run may depend on: versions, CPU, BLAS, threads, commit, variables, command."""
    return {
        **versions(),
        **arithmetic(),
        "commit": _commit(),
        "platform": platform.platform(),
        "cpu": machine.cpu_name(),
        "cpus": os.cpu_count(),
        "threads": engine.threads(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "command": sys.argv,
    }


def with_session(before: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Add a session that begins at ``step`` to ``before``, the content of ``environment.json`` (empty at first).

    The result is the environment of the first session, and ``sessions``: the start of each, and what differed from the
    session before it.
    """
    now = environment()
    first = {name: value for name, value in before.items() if name != "sessions"} or now
    listed = before.get("sessions")
    sessions = [session for session in (listed if isinstance(listed, list) else []) if _is_session(session)]
    known = dict(first)
    for session in sessions:
        known |= session["changed"]
    changed = {name: value for name, value in now.items() if known.get(name) != value}
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sessions.append({"step": step, "time": began, "changed": changed})
    while len(sessions) > MOST_SESSIONS:  # merge the two oldest after the first
        sessions[1]["changed"] = sessions.pop(1)["changed"] | sessions[1]["changed"]
    return {**first, "sessions": sessions}


def _is_session(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("changed"), dict)


def _commit() -> str | None:
    """Return the commit of this code, marked if files were changed; None without a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return None
    command = [git, "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip()
