"""Whole runs that learn: on drawn shapes, and on the real CIFAR-10 where it is."""

from pathlib import Path

from click.testing import CliRunner

from cnnlite.cli import cli
from tests.support.small_runs import figures


def train(folder: Path, config: str, *options: str) -> float:
    """Run `cnnlite train` and return the test accuracy that it wrote."""
    run = folder / "run"
    done = CliRunner().invoke(cli, ["train", "--config", config, "--run-dir", str(run), "--quiet", *options])
    assert done.exit_code == 0, done.output
    accuracy = figures(run)[1]["test_accuracy"]
    assert isinstance(accuracy, float)
    return accuracy


def test_a_small_network_learns_the_shapes_in_two_epochs(tmp_path: Path) -> None:
    assert train(tmp_path, "quickstart.yaml", "-o", "train.epochs=2") > 0.9


def test_the_seed_s_network_learns_real_photographs_in_400_steps(cifar10: Path, tmp_path: Path) -> None:
    options = ["--data", str(cifar10), "-o", "train.iterations=400", "-o", "train.schedule=constant"]
    assert train(tmp_path, "seed-advanced.yaml", *options) > 0.30
