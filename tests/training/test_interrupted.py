"""Runs that were stopped or killed at any step end with the same bits as one that was not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Dataset, mixings
from cnnlite.errors import CheckpointError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.training.evaluation import evaluate_checkpoint
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag, Stopped
from tests.support.small_runs import STEPS_PER_EPOCH, assert_same_run, figures, state, tiny
from tests.support.training_parts import KilledError, StopAt, resume, start


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("whole")
    start(tiny(), path, dataset)
    return path


@pytest.mark.parametrize("moment", range(2, 28))
def test_a_stopped_run_goes_on_with_the_same_bits(moment: int, whole: Path, tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(Stopped):
        start(tiny(), tmp_path, dataset, StopAt(moment))
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    resume(tiny(), tmp_path, dataset)
    assert_same_run(tmp_path, whole)


def test_a_run_stopped_again_and_again_goes_on_with_the_same_bits(
    whole: Path, tmp_path: Path, dataset: Dataset
) -> None:
    sessions = 0
    with pytest.raises(Stopped):
        start(tiny(), tmp_path, dataset, StopAt(3))
    while True:
        sessions += 1
        try:
            resume(tiny(), tmp_path, dataset, StopAt(3))
        except Stopped:
            continue
        break
    assert sessions > 5
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("moment", range(6, 28, 3))
def test_a_killed_run_goes_on_from_its_last_checkpoint_with_the_same_bits(
    moment: int, whole: Path, tmp_path: Path, dataset: Dataset
) -> None:
    with pytest.raises(KilledError):
        start(tiny(), tmp_path, dataset, StopAt(moment, kill=True))
    assert not (tmp_path / "result.json").exists()
    resume(tiny(), tmp_path, dataset)
    assert_same_run(tmp_path, whole)


def test_the_moments_above_reach_from_the_first_step_to_the_test(tmp_path: Path, dataset: Dataset) -> None:
    class Counting(StopFlag):
        count = 0

        def check(self) -> None:
            self.count += 1

    stop = Counting()
    start(tiny(), tmp_path, dataset, stop)
    assert stop.count == 3 * STEPS_PER_EPOCH + 5 + 1 == 27  # steps, validations at 5, 10, 15, 20 and 21, test


def test_a_run_that_is_stopped_before_its_first_step_saves_nothing(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(Stopped):
        start(tiny(), tmp_path, dataset, StopAt(1))
    assert not list(tmp_path.glob("checkpoints/*.npz"))
    assert not (tmp_path / "result.json").exists()


def test_a_run_directory_holds_what_the_run_came_to(whole: Path, dataset: Dataset) -> None:
    rows, result = figures(whole)
    assert [row["step"] for row in rows] == ["5", "10", "15", "20", "21"]
    best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
    assert result["best_validation_accuracy"] == float(best["validation_accuracy"])
    assert result["best_step"] == int(best["step"])
    assert result["status"] == "complete"
    assert (result["steps"], result["epochs"], result["config"], result["seed"]) == (21, 3, "tiny", 0)
    assert result["parameters"] == 54 * 3 + 6 + 12 + 150 * 10 + 10
    assert state(whole, "last")[1]["step"] == 21
    assert state(whole, "best")[1]["step"] == result["best_step"]
    assert state(whole, "previous")[1]["step"] == 20
    found, _, warnings = evaluate_checkpoint(whole / "checkpoints/best.npz", "test")
    assert (found.accuracy, found.loss) == (result["test_accuracy"], result["test_loss"])
    assert warnings == []
    validated, _, _ = evaluate_checkpoint(whole / "checkpoints/best.npz", "validation")
    assert validated.accuracy == result["best_validation_accuracy"]


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_run_with_mixed_images_goes_on_with_the_same_bits(mix: str, tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(epochs=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, mix=mixings[mix]()))
    start(config, tmp_path / "whole", dataset)
    with pytest.raises(Stopped):
        start(config, tmp_path / "stopped", dataset, StopAt(4))
    resume(config, tmp_path / "stopped", dataset)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    start(tiny(epochs=1), tmp_path / "plain", dataset)
    assert figures(tmp_path / "plain")[0][0]["train_loss"] != figures(tmp_path / "whole")[0][0]["train_loss"]


def test_everything_trained_stays_float32(whole: Path) -> None:
    arrays, _ = state(whole, "last")
    assert {array.dtype for name, array in arrays.items() if name != "step"} == {np.dtype(np.float32)}


def test_a_checkpoint_of_another_network_is_refused(whole: Path, tmp_path: Path, dataset: Dataset) -> None:
    checkpoint = load_checkpoint(whole / "checkpoints/last.npz")
    del checkpoint.arrays["param/6.bias"]
    run = RunDirectory.create_at(tmp_path)
    with pytest.raises(CheckpointError, match=r"6\.bias"):
        train(tiny(), run, dataset=dataset, reporter=Reporter(), stop=StopFlag(), resume=checkpoint)
    run.close()
