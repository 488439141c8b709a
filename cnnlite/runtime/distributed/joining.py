"""Joining the ranks of an MPI launcher, if one started this process."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cnnlite import __version__
from cnnlite.errors import ConfigError, exit_code, missing_extra
from cnnlite.runtime.distributed.communicator import Communicator, current, using
from cnnlite.runtime.distributed.mpi import Ranks

_LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}
"""Environment variables by which launchers tell a process the number of ranks, and its own rank."""


@contextmanager
def joined() -> Iterator[Communicator]:
    """Join the ranks that an MPI launcher started, inside the block; without a launcher, be alone.

    An error in the block, here or on another rank, ends the block on all ranks: it is raised on rank 0, the others
    leave with its exit code.

    Raises:
        ConfigError: if MPI is not installed or not that of the launcher, or if versions differ.
    """
    variable = next((name for name in _LAUNCHERS if _number(name) > 1), None)
    if variable is None or current().size > 1:
        yield current()
        return
    ranks = _connect(variable)
    with using(ranks):
        try:
            ranks.check_same({"cnnlite": __version__, "numpy": np.__version__})
            yield ranks
            ranks.messages.leave(None)
        except BaseException as error:
            ranks.messages.leave(error)
            if ranks.first:
                raise
            raise SystemExit(exit_code(error)) from None


def _connect(variable: str) -> Ranks:
    """Import MPI, which initializes it; only rank 0 reports a failure."""
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        with warnings.catch_warnings(action="ignore"):  # of a foreign launcher, which is an error below
            from mpi4py import MPI
    except (ImportError, RuntimeError):  # RuntimeError: there is no library of MPI
        problem = missing_extra(f"training with {variable}={os.environ[variable]}, as one rank of several,", "mpi")
    else:
        if MPI.COMM_WORLD.size > 1:
            return Ranks(MPI)
        library = MPI.Get_library_version().splitlines()[0].strip("\0 ")
        problem = ConfigError(
            f"a launcher started several processes ({variable}={os.environ[variable]}), but the MPI here, {library}, "
            "sees one\nuse the mpiexec of that MPI, or srun --mpi=pmi2; to train alone, unset the variable"
        )
    if _number(_LAUNCHERS[variable]) > 0:
        raise SystemExit(problem.exit_code)
    raise problem


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0
