"""Diagnosis for `cnnlite doctor`: machine, installed packages, and integrity of the datasets."""

import importlib.util
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cnnlite.data import sources
from cnnlite.data.datasets.cifar import CIFAR10, CIFAR100, Cifar
from cnnlite.data.download.cifar import ARCHIVES, is_complete
from cnnlite.errors import DataError
from cnnlite.runs.environment import versions
from cnnlite.runtime import cgroups, engine, machine, processes
from cnnlite.utils.hints import Download
from cnnlite.utils.text import size_text

EXTRAS = {
    "plot": "matplotlib",
    "images": "PIL",
    "onnx": "onnx",
    "mpi": "mpi4py",
    "safetensors": "safetensors",
    "tensorboard": "tensorboardX",
}
"""Extras of cnnlite, and the module that each needs."""


def examine(root: Path) -> Iterator[tuple[str, str]]:
    """Yield findings one by one, each as name and text; datasets are looked for in ``root``."""
    yield "CPU", f"{machine.cpu_name()}{', ' * bool(machine.vectors())}{machine.vectors()}"
    kind = {"fork": "processes", "spawn": "processes that are spawned", "threads": "threads"}[processes.way()]
    yield (
        "cores",
        f"{engine.available_cores()} to use; a training has as many workers ({kind}), or one if that is faster",
    )
    yield "limits", _limits()
    yield "BLAS", machine.without_blas() or f"{machine.blas_name()}, kernel {machine.blas_kernel()}"
    peak = machine.gemm_peak()
    yield "pins", _pins(peak)
    yield "GEMM peak", f"{peak:,.0f} GFLOP/s (float32, threads {engine.threads()})"
    yield "memory", f"{machine.memory_bandwidth():,.0f} GB/s read and written by a copy"
    yield "versions", ", ".join(f"{name} {version}" for name, version in _versions().items())
    for extra, module in EXTRAS.items():
        yield f"extra {extra}", f"{module} {'present' if importlib.util.find_spec(module) else 'absent'}"
    for cifar in (CIFAR10, CIFAR100):
        yield f"dataset {cifar.name}", _dataset(cifar, root)


def _limits() -> str:
    """Describe the memory and processor limits that control groups set for this process."""
    memory, processors = cgroups.memory_limit(), cgroups.processors()
    found = [f"{size_text(memory)} of memory"] if memory else []
    found += [f"the time of {processors:.3g} cores"] if processors else []
    return f"{' and '.join(found)}, set by a control group" if found else "none set by a control group"


def _pins(peak: float) -> str:
    """Describe the environment variables that pin the kernel of OpenBLAS, and their cost."""
    settings = [f"{name}={os.environ[name]}" for name in machine.PINS if os.environ.get(name)]
    if not settings:
        return "none, OpenBLAS chooses by the processor"
    unpinned = machine.unpinned_gemm_peak()
    if unpinned is None:
        cost = "what that costs could not be measured"
    else:
        cost = f"{peak:,.0f} GFLOP/s with, {unpinned:,.0f} without: {unpinned / peak:.2f} times as fast"
    return f"{', '.join(settings)}; {cost}"


def _versions() -> dict[str, str]:
    found = versions()
    for package in ("click", "PyYAML", "tqdm"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def _dataset(cifar: Cifar, root: Path) -> str:
    """Describe the state of a dataset in ``root``, by its checksums, or by reading it if its version has none."""
    archive = ARCHIVES[cifar.name]
    try:
        for folder in (root / archive.folder, root):
            if is_complete(folder, archive):
                return f"{folder}: complete and verified"
        if not any((root / version.folder).is_dir() or (root / version.test).is_file() for version in cifar.versions):
            return f"not in {root}; {Download(cifar.name, str(root))} gets it"
        dataset = sources[cifar.name]().load(root)
    except (DataError, OSError) as error:
        return str(error)
    count = len(dataset.train) + len(dataset.test)
    return f"{root}: can be used, {count:,} images, but not with the checksums of the published python version"
