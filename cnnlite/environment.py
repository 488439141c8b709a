"""What the figures of a run may depend on, beside its config."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite import __version__, distributed, engine, machine

_VARIABLES = (*machine.PINS, "NPY_DISABLE_CPU_FEATURES")
"""Not the numbers of BLAS threads, which cnnlite sets itself, always to 1."""


def versions() -> dict[str, str]:
    """Collect the versions that a checkpoint names."""
    return {"cnnlite": __version__, "numpy": np.__version__, "python": platform.python_version()}


def environment() -> dict[str, Any]:
    """Collect what the figures of a run may depend on: versions, CPU, BLAS, threads, commit, variables, command."""
    return {
        **versions(),
        "commit": _commit(),
        "blas": machine.blas_name(),
        "blas_kernel": machine.blas_kernel(),
        "platform": platform.platform(),
        "cpu": machine.cpu_name(),
        "cpus": os.cpu_count(),
        "threads": engine.threads(),
        "ranks": distributed.current().size,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "command": sys.argv,
    }


def _commit() -> str | None:
    """Ask git for the commit of this code, marked if files were changed; None where there is no git checkout."""
    folder = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return None
    command = [git, "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip()
