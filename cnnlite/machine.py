"""What this machine is and how fast it multiplies: what `bench`, `doctor` and the first lines of `train` speak of."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnnlite import engine

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Environment variables that decide how OpenBLAS computes, whatever the processor could do."""
_BEFORE_AVX512 = frozenset(("Generic", "Prescott", "Core2", "Penryn", "Nehalem", "Sandybridge", "Haswell", "Zen"))


def cpu_name() -> str:
    """The processor's name, as the operating system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas_kernel() -> str:
    """The name of the kernel family that NumPy's OpenBLAS chose, such as SkylakeX; ``unknown`` with another BLAS."""
    with contextlib.suppress(OSError, AttributeError, KeyError):
        library = ctypes.CDLL(sys.modules["numpy._core._multiarray_umath"].__file__)
        function = library.scipy_openblas_get_corename64_
        function.restype = ctypes.c_char_p
        return str(function().decode())
    return "unknown"


def has_avx512() -> bool:
    """Whether the processor has AVX-512, as NumPy found."""
    features = getattr(sys.modules.get("numpy._core._multiarray_umath"), "__cpu_features__", {})
    return bool(features.get("AVX512F") or features.get("X86_V4"))


def pinned() -> str | None:
    """One line if an environment variable holds matrix products below what the processor can do; else None."""
    kernel, setting = blas_kernel(), os.environ.get("OPENBLAS_CORETYPE")
    if setting and has_avx512() and kernel in _BEFORE_AVX512:
        return (
            f"OPENBLAS_CORETYPE={setting} pins matrix products to the {kernel} kernel, but this processor has AVX-512: "
            "without the variable they may be up to twice as fast"
        )
    return None


def gemm_peak() -> float:
    """The greatest speed of float32 matrix products seen on all threads at once, in GFLOP/s."""
    size, rounds = 768, 4
    left = np.ones((size, size), np.float32)
    out = np.empty((engine.threads(), size, size), np.float32)

    def multiply(index: int) -> None:
        for _ in range(rounds):
            np.matmul(left, left, out=out[index])

    seconds = _least_seconds(lambda: engine.run(multiply, len(out)))
    return 2 * size**3 * rounds * len(out) / seconds / 1e9


def memory_bandwidth() -> float:
    """Bytes read and written per second by a copy far larger than the caches, on all threads, in GB/s."""
    source = np.ones(32 * 2**20, np.float32)
    target = np.empty_like(source)
    pieces = engine.even(source.size, 4 * engine.threads())

    def copy(index: int) -> None:
        start, stop = pieces[index]
        np.copyto(target[start:stop], source[start:stop])

    return 2 * source.nbytes / _least_seconds(lambda: engine.run(copy, len(pieces))) / 1e9


def _least_seconds(work: Callable[[], None], repeats: int = 7) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def unpinned_gemm_peak() -> float:
    """`gemm_peak` in a process of its own, without the variables of `PINS`."""
    code = f"from cnnlite import engine, machine; engine.set_threads({engine.threads()}); print(machine.gemm_peak())"
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    done = subprocess.run(  # noqa: S603 (our own interpreter and code)
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return float(done.stdout)


def peak_memory_bytes() -> int:
    """The most physical memory that this process has had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
