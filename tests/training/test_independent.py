"""Checkpoints of the recipe speedrun-94 mean the same to PyTorch: one more forward pass, from the file's arrays alone.

To check a checkpoint of full size on all test images, name it in CNNLITE_SPEEDRUN_CHECKPOINT; -s shows the figures.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.data import Images
from cnnlite.runs import restore
from cnnlite.training import evaluation
from cnnlite.utils.types import Array
from tests.support.training_parts import start
from tests.training.test_recipe import narrow

PART = 500
"""Test images for the short test."""
BATCH = 250
FULL_SIZE = os.environ.get("CNNLITE_SPEEDRUN_CHECKPOINT", "")


class Reader:
    """The forward pass of a checkpoint in PyTorch, for the layers of the recipe; of cnnlite it knows the file only."""

    def __init__(self, torch: Any, path: Path):
        self.torch, self.F = torch, torch.nn.functional
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: torch.tensor(file[name]) for name in file.files if not name.startswith("optimizer/")}
            self.config = json.loads(file["meta"].tobytes())["config"]

    def logits(self, images: Array, views: str) -> Array:
        """Logits (N, classes) of uint8 images (N, H, W, C), on average over their views."""
        x = self.torch.tensor(images).permute(0, 3, 1, 2).float()
        with self.torch.no_grad():
            found = self.sides(x, views != "none")
            if views == "mirror_translate":
                padded = self.F.pad(x, (1, 1, 1, 1), mode="reflect")
                down, up = padded[..., :32, :32], padded[..., 2:34, 2:34]
                found = found / 2 + (self.sides(down, True) + self.sides(up, True)) / 4
        result: Array = found.numpy()
        return result

    def sides(self, x: Any, both: bool) -> Any:
        return (self.network(x) + self.network(x.flip(3))) / 2 if both else self.network(x)

    def network(self, x: Any) -> Any:
        mean, std = (self.arrays[f"normalize/{name}"].reshape(1, 3, 1, 1) for name in ("mean", "std"))
        x = (x - mean) / std
        for index, entry in enumerate(self.config["model"]):
            [(kind, options)] = entry.items() if isinstance(entry, dict) else [(entry, {})]
            x = getattr(self, kind)(x, index, options)
        return x

    def whitening_conv2d(self, x: Any, index: int, _: Any) -> Any:
        weight = self.arrays[f"buffer/{index}.weight"].permute(3, 2, 0, 1)
        return self.F.conv2d(x, weight, self.arrays[f"param/{index}.bias"])

    def conv2d(self, x: Any, index: int, options: dict[str, Any]) -> Any:
        assert (options["padding"], options["stride"], options["bias"]) == ("same", 1, False)
        return self.F.conv2d(x, self.arrays[f"param/{index}.weight"].permute(3, 2, 0, 1), padding="same")

    def gelu(self, x: Any, *_: Any) -> Any:
        return self.F.gelu(x, approximate="tanh")

    def max_pool2d(self, x: Any, _: int, options: dict[str, Any]) -> Any:
        assert (options["padding"], options["stride"]) == (0, None)
        return self.F.max_pool2d(x, options["kernel_size"])

    def batch_norm(self, x: Any, index: int, options: dict[str, Any]) -> Any:
        mean, variance = (self.arrays[f"buffer/{index}.running_{name}"] for name in ("mean", "var"))
        return self.F.batch_norm(x, mean, variance, bias=self.arrays[f"param/{index}.beta"], eps=options["eps"])

    def flatten(self, x: Any, *_: Any) -> Any:
        return x.permute(0, 2, 3, 1).flatten(1)

    def linear(self, x: Any, index: int, _: Any) -> Any:
        return x @ self.arrays[f"param/{index}.weight"]

    def scale(self, x: Any, _: int, options: dict[str, Any]) -> Any:
        return x * options["factor"]


def compare(torch: Any, cifar10: Path, path: Path, images: Images, views: str) -> str:
    """Check that `cnnlite eval`, the logits behind it, and PyTorch agree about the test images; returns the figures."""
    result = CliRunner().invoke(cli, ["eval", str(path), "--data", str(cifar10), "--tta", views, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    reader, (_, _, network, normalizer, _) = Reader(torch, path), restore.load_network(path)
    pairs = []
    for first in range(0, len(images), BATCH):
        part = images.images[first : first + BATCH]
        pairs.append((reader.logits(part, views), evaluation.mean_logits(network, part, normalizer, views)))  # type: ignore[arg-type]
    theirs, ours = (np.concatenate(side) for side in zip(*pairs, strict=True))
    difference = np.abs(ours - theirs).max() / theirs.std()
    assert difference < 1e-4, f"logits differ by {difference:.1e} of their deviation"
    predicted = theirs.argmax(axis=1)
    assert len(set(predicted.tolist())) > 4, "a network that hardly looks at images shows nothing"
    accuracy = float((predicted == images.labels).mean())
    assert told["images"] == len(images)
    assert told["accuracy"] == accuracy
    smoothing = reader.config["train"]["loss"]["cross_entropy"]["label_smoothing"]
    loss = torch.nn.functional.cross_entropy(
        torch.tensor(theirs), torch.tensor(images.labels), label_smoothing=smoothing
    )
    assert told["loss"] == pytest.approx(float(loss), rel=1e-5)
    return f"{views}: accuracy {accuracy:.2%} by both; logits differ by {difference:.1e} of their standard deviation"


@pytest.fixture(scope="module")
def checkpoint(cifar10: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the recipe, narrow and some steps long, on CIFAR-10; moved away from its run."""
    config = narrow(epochs=None, iterations=8, batch_size=400, tta="none")
    dataset = restore.load_data(config, str(cifar10))
    run = tmp_path_factory.mktemp("run")
    start(config, run, replace(dataset, test=dataset.test.take(slice(0, PART))))
    return (run / "checkpoints/best.npz").rename(tmp_path_factory.mktemp("elsewhere") / "alone.npz")


@pytest.fixture
def part(cifar10: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    """The first of the test images, which are all that `cnnlite eval` sees."""
    config = restore.load_network(checkpoint)[1]
    images = restore.load_data(config, str(cifar10)).test.take(slice(0, PART))
    monkeypatch.setattr(evaluation, "split_of", lambda *_: images)
    return images


@pytest.mark.parametrize("views", ["none", "mirror", "mirror_translate"])
def test_a_checkpoint_of_the_recipe_evaluates_alike_in_torch(
    views: str, checkpoint: Path, part: Images, torch: Any, cifar10: Path
) -> None:
    compare(torch, cifar10, checkpoint, part, views)


@pytest.mark.skipif(not FULL_SIZE, reason="needs a checkpoint: set CNNLITE_SPEEDRUN_CHECKPOINT")
def test_a_checkpoint_of_full_size_evaluates_alike_in_torch(torch: Any, cifar10: Path) -> None:
    path = Path(FULL_SIZE)
    config = restore.load_network(path)[1]
    print(compare(torch, cifar10, path, restore.load_data(config, str(cifar10)).test, config.train.tta))
