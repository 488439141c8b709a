"""Runs made for these tests: of figures that were made up, and one that was trained."""

import json
from pathlib import Path
from typing import Any

from cnnlite.config.load import Config, render
from cnnlite.data import Dataset
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.metrics_file import MetricsFile
from cnnlite.tools.report.record import Record, read_record
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from tests.support.small_runs import tiny


def made_up(
    folder: Path,
    *,
    status: str | None = "complete",
    config: Config | None = None,
    steps: int = 10,
    train_accuracy: list[float] | None = None,
    **columns: list[float],
) -> Record:
    """A run with these columns in its metrics, ``steps`` to a row and to an epoch."""
    columns |= {"train_accuracy": train_accuracy} if train_accuracy else {}
    count = len(next(iter(columns.values()), []))
    if config is None:
        config = tiny(epochs=max(count, 1))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(render(config), encoding="utf-8")
    metrics = MetricsFile(folder / "metrics.csv")
    for index in range(count):
        row = {name: values[index] for name, values in columns.items()}
        metrics.append({"step": (index + 1) * steps, "epoch": index + 1, "seconds": 10.0 * index, "lr": 0.01} | row)
    if status is not None:
        result = {"config": "tiny", "status": status, "steps": count * steps, "test_accuracy": 0.5, "parameters": 99}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return read_record(folder)


def trained(folder: Path, config: Config, dataset: Dataset) -> Record:
    """A run that was trained, with all its files."""
    run = RunDirectory.create_at(folder)
    run.write_text("config.yaml", render(config))
    train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=StopFlag())
    run.close()
    return read_record(folder)


def changed(data: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The plain data of a config with some of its parts in the place of the old ones."""
    return {**data, **parts}
