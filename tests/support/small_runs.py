"""A config so small that a whole training run fits into a test, and ways to compare what runs leave behind."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cnnlite.config.load import Config, config_from_data
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.predictions import PREDICTIONS, read_predictions
from cnnlite.runs.restore import load_data
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array

STEPS_PER_EPOCH = 7
TINY = """\
data: {dataset: {shapes: {train_images: 126, test_images: 40}}, validation: 20, augment: [random_flip, random_crop]}
model:
  - conv2d: {out_channels: 6, kernel_size: 3, stride: 2}
  - batch_norm
  - relu
  - max_pool2d: {kernel_size: 3, stride: 3}
  - dropout: {p: 0.2}
  - flatten
  - linear: {out_features: 10}
train:
  epochs: 3
  batch_size: 16
  optimizer: {adam: {lr: 0.003, weight_decay: 0.001}}
  schedule: {cosine: {warmup_steps: 3}}
  validate_every: 5
  checkpoint_every: 4
"""
STUCK = """
import time
from pathlib import Path
from cnnlite.cli import main
from cnnlite.nn.network import Network
forward = Network.forward
def slow(self, x, *, training, step=0):
    if step == 9:
        Path("stuck").touch()
        while True:
            time.sleep(0.01)
    return forward(self, x, training=training, step=step)
Network.forward = slow
main()
"""
"""Program of a training whose step 9 never ends, as it says by a file."""


def tiny(**train: Any) -> Config:
    """The config above, with some settings of its part ``train`` changed."""
    data = yaml.safe_load(TINY)
    data["train"].update(train)
    return config_from_data(data, "tiny")


def trained(folder: Path, config: Config) -> Path:
    """Train in the empty ``folder``; returns the best checkpoint."""
    run = RunDirectory.create_at(folder)
    train(config, run, dataset=load_data(config), reporter=Reporter(quiet=True), stop=StopFlag())
    run.close()
    return run.checkpoint_path("best")


def figures(run: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Content of metrics.csv and result.json, without the times."""
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["images_per_second"]
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    del result["train_seconds"]
    return rows, result


def state(run: Path, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and facts of a checkpoint, without the times."""
    checkpoint = load_checkpoint(run / "checkpoints" / f"{kind}.npz")
    del checkpoint.meta["progress"]["seconds"]
    return checkpoint.arrays, checkpoint.meta


def assert_same_run(one: Path, other: Path) -> None:
    """Check that two finished runs agree in every bit but the times."""
    assert figures(one) == figures(other)
    assert read_predictions(one / PREDICTIONS) == read_predictions(other / PREDICTIONS)
    for kind in ("last", "best"):
        (arrays, facts), (other_arrays, other_facts) = state(one, kind), state(other, kind)
        assert facts == other_facts
        assert arrays.keys() == other_arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(array, other_arrays[name]), name
