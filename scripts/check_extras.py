#!/usr/bin/env python3
"""Check each extra alone: its command works, and commands of other extras name the missing one and exit with 2.

Makes a virtual environment for each, from nothing but ``pip install ".[EXTRA]"``, and one without any.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """\
data: {dataset: {shapes: {train_images: 60, test_images: 20}}, validation: 20}
model: [{conv2d: {out_channels: 4, kernel_size: 3, stride: 4}}, relu, flatten, {linear: {out_features: 10}}]
train: {iterations: 4, batch_size: 10, optimizer: {sgd: {lr: 0.01}}}
"""
PICTURE = b"P6 32 32 255\n" + bytes(range(256)) * 12
"""A portable pixmap: made without the extra that reads it."""
TRAIN = ["cnnlite", "train", "-q", "-c", "own.yaml", "--run-dir"]
COMMANDS = {
    "images": ["cnnlite", "predict", "run/checkpoints/best.npz", "cat.ppm"],
    "plot": ["cnnlite", "report", "run"],
    "onnx": ["cnnlite", "export", "run/checkpoints/best.npz", "run.onnx"],
    "safetensors": ["cnnlite", "export", "run/checkpoints/best.npz", "run.safetensors"],
    "tensorboard": [*TRAIN, "shown", "--tensorboard"],
    "mpi": [*TRAIN, "shared"],
}
"""Command that needs each extra; the last runs in two processes."""
PACKAGES = {
    "images": "PIL",
    "plot": "matplotlib",
    "onnx": "onnx",
    "safetensors": "safetensors",
    "tensorboard": "tensorboardX",
    "mpi": "mpi4py",
}
"""Module that each extra brings; matplotlib brings Pillow too."""
COMPARISON = ["cnnlite", "compare", "run", "run-2", "--out", "runs.png"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Check all extras; exit with 1 and the output of the first failure."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    if extras.keys() != COMMANDS.keys():
        sys.exit(f"scripts/check_extras.py knows {sorted(COMMANDS)}, but pyproject.toml has {sorted(extras)}")
    for extra in ["", *COMMANDS]:
        with tempfile.TemporaryDirectory() as folder:
            check(extra, Path(folder))


def check(extra: str, folder: Path) -> None:
    """Install cnnlite with one extra, or none, and run the commands of all extras."""
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", str(environment))
    python = str(next(environment.glob("[bS]*/python*")))  # bin, or Scripts on Windows
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", target)
    (folder / "own.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "cat.ppm").write_bytes(PICTURE)
    programs = Path(python).parent
    for run in "run", "run-2":
        call(*TRAIN, run, folder=folder, programs=programs)
    for needed, command in [*COMMANDS.items(), ("plot", COMPARISON)]:
        alone = needed != "mpi"
        finds = f"import importlib.util; print(importlib.util.find_spec('{PACKAGES[needed]}') is not None)"
        if needed == extra or call(python, "-c", finds, folder=folder) == "True\n":
            told = call(*([] if alone else ["mpiexec", "-n", "2"]), *command, folder=folder, programs=programs)
            good = alone or json.loads((folder / "shared/environment.json").read_bytes())["ranks"] == 2
        else:
            variables = {} if alone else {"PMI_SIZE": "2", "PMI_RANK": "0"}  # as a launcher sets them
            told = call(*command, folder=folder, programs=programs, code=2, variables=variables)
            good = told.count("\n") == 1 and f'pip install "cnnlite[{needed}]"' in told
        if not good:
            sys.exit(f"{' '.join(command)}, with {extra or 'no extra'}, said:\n{told}")
    print(f"{extra or 'no extra'}: as it should be", flush=True)


def call(
    *command: str,
    folder: Path = ROOT,
    programs: Path | None = None,
    code: int = 0,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run a command, looked up in ``programs`` first, and return its output; exit if its code is not ``code``."""
    found = shutil.which(command[0], path=programs) or command[0]
    path = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    done = subprocess.run(  # noqa: S603 - ours
        [found, *command[1:]],
        cwd=folder,
        env={**os.environ, "PATH": path, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=600,
        check=False,
    )
    if done.returncode != code:
        sys.exit(f"{' '.join(command)} ended with {done.returncode} instead of {code}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
