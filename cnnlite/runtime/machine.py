"""Facts about this machine and measures of its speed, for `bench`, `doctor` and the first lines of `train`."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.runtime import cgroups, engine

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Environment variables that decide how OpenBLAS computes, whatever the processor could do."""
_PROBES = 10
_CORENAME_FUNCTIONS = (
    "scipy_openblas_get_corename64_",  # in the wheels of NumPy
    "openblas_get_corename64_",
    "openblas_get_corename",
)
_KERNELS = {"AVX-512": {"skylakex", "cooperlake", "sapphirerapids"}, "AVX2": {"haswell", "zen"}}
"""OpenBLAS's kernels for x86-64, by the vector instructions they use, the widest first; all others use older ones."""


def memory() -> int:
    """Memory in bytes that this process may use: the machine's, or less if a control group or a limit says so."""
    limits = [sys.maxsize]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limits.append(cgroups.memory_limit() or sys.maxsize)
    if sys.platform != "win32":
        import resource

        for name in ("RLIMIT_AS", "RLIMIT_DATA"):
            with contextlib.suppress(AttributeError, ValueError):  # some systems have no such limit
                limits.append(resource.getrlimit(getattr(resource, name))[0])
    return min(limit for limit in limits if limit > 0)


def _cpuinfo(key: str) -> str:
    """Read the first value of a key in Linux's description of the processor, or an empty string."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def cpu_name() -> str:
    """Name of the processor, as the operating system tells it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def vectors() -> str:
    """Widest vector instructions of an x86-64 processor that OpenBLAS has kernels for; empty if there are none."""
    flags = set(_cpuinfo("flags").split())
    if not flags:  # NumPy knows too, but not what NPY_DISABLE_CPU_FEATURES hides
        features = getattr(sys.modules["numpy._core._multiarray_umath"], "__cpu_features__", {})
        flags = {name.lower().replace("fma3", "fma") for name, present in features.items() if present}
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        return "AVX-512"
    return "AVX2" if {"avx2", "fma"} <= flags else ""


def blas_name() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    blas = _blas()
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".rstrip() if blas else "none"


def _blas() -> dict[str, Any]:
    """Read what NumPy tells of the BLAS that it was built with; nothing if it was built without one."""
    build: Any = np.show_config(mode="dicts")
    blas: dict[str, Any] = build.get("Build Dependencies", {}).get("blas", {})
    return blas if blas.get("found") else {}


def without_blas() -> str | None:
    """Message of one line if NumPy has no BLAS, and computes matrix products in plain loops; else None."""
    if _blas():
        return None
    return (
        "NumPy was built without a BLAS, so that matrix products, most of a training, take 50 times as long: install a "
        "wheel of it (pip install --force-reinstall --only-binary=numpy numpy), or build it where there is OpenBLAS"
    )


def cpu_features() -> str:
    """Instruction sets that NumPy's own loops use, beyond those of any such processor."""
    build: Any = np.show_config(mode="dicts")
    return " ".join(build.get("SIMD Extensions", {}).get("found", []))


def blas_kernel() -> str:
    """Name of the kernels that NumPy's OpenBLAS chose, such as SkylakeX; ``unknown`` with another BLAS."""
    with contextlib.suppress(OSError, KeyError):
        library = ctypes.CDLL(sys.modules["numpy._core._multiarray_umath"].__file__)
        for name in _CORENAME_FUNCTIONS:
            if function := getattr(library, name, None):
                function.restype = ctypes.c_char_p
                return str(function().decode())
    return "unknown"


def slowed() -> str | None:
    """Message of one line if matrix products are slower than they could be, for either reason below; else None."""
    return without_blas() or pinned()


def pinned() -> str | None:
    """Message of one line if OPENBLAS_CORETYPE holds matrix products below what the processor can do; else None."""
    kernel, setting, best = blas_kernel(), os.environ.get("OPENBLAS_CORETYPE"), vectors()
    if not setting or not best or kernel == "unknown":
        return None
    families = list(_KERNELS)
    if any(kernel.lower() in _KERNELS[family] for family in families[: families.index(best) + 1]):
        return None
    return (
        f"OPENBLAS_CORETYPE={setting} pins matrix products to the {kernel} kernel, but this processor has {best}: "
        "without the variable they may be up to twice as fast (`cnnlite doctor` measures it)"
    )


def gemm_peak(threads: int | None = None) -> float:
    """Measure the peak speed of float32 matrix products, on all threads or on so many at once, in GFLOP/s."""
    size, rounds = 768, 4
    before = engine.threads()
    engine.set_threads(threads or before)
    left = np.ones((size, size), np.float32)
    out = np.empty((engine.threads(), size, size), np.float32)

    def multiply(index: int) -> None:
        for _ in range(rounds):
            np.matmul(left, left, out=out[index])

    seconds = _least_seconds(lambda: engine.run(multiply, len(out)))
    engine.set_threads(before)
    return 2 * size**3 * rounds * len(out) / seconds / 1e9


def memory_bandwidth() -> float:
    """Measure the speed of a copy far larger than most caches, on all threads: bytes read plus written, in GB/s."""
    source = np.ones(32 * 2**20, np.float32)
    target = np.empty_like(source)
    pieces = engine.even(source.size, 4 * engine.threads())

    def copy(index: int) -> None:
        start, stop = pieces[index]
        np.copyto(target[start:stop], source[start:stop])

    return 2 * source.nbytes / _least_seconds(lambda: engine.run(copy, len(pieces))) / 1e9


def _least_seconds(work: Callable[[], None]) -> float:
    """Measure the least time that ``work`` takes, in several calls."""
    return min(timeit.repeat(work, number=1, repeat=_PROBES))


def without_pins() -> dict[str, str]:
    """Environment for a child process whose OpenBLAS chooses kernels by the processor alone."""
    return {name: value for name, value in os.environ.items() if name not in PINS}


def unpinned_gemm_peak() -> float | None:
    """Measure `gemm_peak` in a process of its own, without the variables of `PINS`; None if that fails."""
    package = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.insert(0, {package!r}); from cnnlite.runtime import engine, machine; "
        f"engine.set_threads({engine.threads()}); print(machine.gemm_peak())"
    )
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", code],
            env=without_pins(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return float(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def peak_memory_bytes() -> int:
    """Peak physical memory of this process; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux it may be that of the parent process
    return most if sys.platform == "darwin" else most * 1024


def proportional_memory_bytes() -> int:
    """Physical memory of this process, with its part of what it shares; 0 if the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak_memory() -> None:
    """Reset `peak_memory_bytes` to current use; does nothing where the system cannot."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
