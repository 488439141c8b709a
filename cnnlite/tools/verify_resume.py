"""Verification of resuming: interrupts a short run again and again, and compares it with an uninterrupted one."""

import contextlib
import csv
import dataclasses
import json
import math
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnlite.config.load import Config, config_from_data
from cnnlite.data import Dataset
from cnnlite.errors import CheckpointError, CnnliteError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.warm_start import read_start
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag, Stopped

_FEW = 64
"""Number of images that are enough to validate and test with here."""


def verify(config: Config, dataset: Dataset, steps: int, stop: StopFlag) -> str:
    """Train for ``steps`` steps, once without and then with interruptions, and compare every bit.

    The runs have the config's model, data, optimizer and schedule, but two epochs of as few images as that takes, and
    frequent validations and checkpoints. They are made in a temporary folder.

    Returns:
        A sentence that says what was verified.

    Raises:
        CnnliteError: If the runs end with different bits.
    """
    config, dataset = _shortened(config, dataset, steps)
    start = read_start(config, dataset)
    saved = None if start is None else start.checkpoint()
    with tempfile.TemporaryDirectory(prefix="cnnlite-") as folder:
        whole, stopped, killed = (Path(folder) / name for name in ("whole", "stopped", "killed"))
        for path in (whole, stopped, killed):
            with contextlib.closing(RunDirectory.create_at(path)) as run:
                if saved is not None:
                    run.save_start(saved)
        _session(config, whole, dataset, stop)
        stops = _repeatedly(config, stopped, dataset, stop, kill=False)
        kills = _repeatedly(config, killed, dataset, stop, kill=True)
        found = {name: differences(whole, other) for name, other in (("stopped", stopped), ("killed", killed))}
        arrays = load_checkpoint(whole / "checkpoints" / "last.npz").arrays
    for how, names in found.items():
        if names:
            raise CnnliteError(
                f"{config.name}: {how} and resumed, the run ends with other bits in {', '.join(names)}; "
                "is there a layer, loss or optimizer that keeps something the checkpoint does not hold?"
            )
    numbers = sum(array.size for array in arrays.values())
    return (
        f"{steps} steps, stopped {stops} times, killed {kills} times and resumed each time, end with the same bits: "
        f"{len(arrays)} arrays of {numbers:,} numbers, metrics and result"
    )


def differences(one: Path, other: Path) -> list[str]:
    """Compare the files of two finished runs, times aside; return the names of parts that differ in any bit."""
    found = []
    for kind in ("last", "best"):
        checkpoints = [load_checkpoint(run / "checkpoints" / f"{kind}.npz") for run in (one, other)]
        for checkpoint in checkpoints:
            checkpoint.meta["progress"].pop("seconds")
        first, second = (checkpoint.arrays for checkpoint in checkpoints)
        for name in sorted(first.keys() | second.keys()):
            a, b = first.get(name), second.get(name)
            if a is None or b is None or (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
                found.append(f"{name} ({kind})")
        if checkpoints[0].meta != checkpoints[1].meta:
            found.append(f"the facts of {kind}.npz")
    if _rows(one) != _rows(other):
        found.append("metrics.csv")
    if _result(one) != _result(other):
        found.append("result.json")
    return found


def _rows(run: Path) -> list[dict[str, Any]]:
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]


def _result(run: Path) -> dict[str, Any]:
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return {key: result[key] for key in result if key != "train_seconds"}


def _shortened(config: Config, dataset: Dataset, steps: int) -> tuple[Config, Dataset]:
    """Return a config and dataset of two short epochs, each ending in a short batch."""
    data = json.loads(json.dumps(config.resolved))
    data["train"] |= {"epochs": None, "iterations": steps, "validate_every": 3, "checkpoint_every": 2}
    size = config.train.batch_size
    missing = size // 2 if size > 2 else 0  # a batch of one may be too small for the network
    count = min(len(dataset.train), size * max(2, math.ceil(steps / 2)) - missing)
    held_out = dataset.validation and dataset.validation.take(slice(_FEW))
    few = dataclasses.replace(
        dataset, train=dataset.train.take(slice(count)), validation=held_out, test=dataset.test.take(slice(_FEW))
    )
    return config_from_data(data, config.name), few


class _Killed(BaseException):
    """Ends a session without a chance to save."""


class _Interruption(StopFlag):
    """Ends a session after ``patience`` checks of the loop, and whenever the user asks."""

    def __init__(self, user: StopFlag, patience: int, kill: bool):
        super().__init__()
        self._user = user
        self._patience = patience
        self._kill = kill

    def check(self) -> None:
        self._user.check()
        self._patience -= 1
        if self._patience < 0:
            raise _Killed if self._kill else Stopped(signal.SIGINT)

    @contextlib.contextmanager
    def deferred(self, promise: str = "") -> Iterator[None]:
        with self._user.deferred():
            yield


def _repeatedly(config: Config, path: Path, dataset: Dataset, user: StopFlag, kill: bool) -> int:
    """Train in as many sessions as it takes; return how many were interrupted."""
    interrupted, patience, before = 0, 1, -1
    while True:
        try:
            _session(config, path, dataset, _Interruption(user, patience, kill))
            return interrupted
        except (Stopped, _Killed):
            user.check()
        interrupted += 1
        reached = _reached(path)
        if reached <= before:  # a session has to reach the next checkpoint
            patience += 1
        before = reached


def _reached(path: Path) -> int:
    with contextlib.suppress(CheckpointError):
        meta = load_checkpoint(path / "checkpoints" / "last.npz").meta
        return int(meta["step"]) + int(meta["progress"]["evaluated"])
    return -1


def _session(config: Config, path: Path, dataset: Dataset, stop: StopFlag) -> None:
    with contextlib.closing(RunDirectory.open(path)) as run:
        checkpoint = None if run.is_unsaved() else run.newest_checkpoint()[0]
        train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=stop, resume=checkpoint)
