"""Early stopping: where it ends a run, and that an interrupted run ends there too."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cnnlite.config.load import Config, config_from_data
from cnnlite.data import Dataset, Images
from cnnlite.errors import ConfigError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.results import Progress
from cnnlite.training.evaluation import Evaluation
from cnnlite.training.launch import checked_data
from cnnlite.training.loop import Training
from cnnlite.utils.signals import Stopped
from tests.support.small_runs import assert_same_run, figures, tiny
from tests.support.training_parts import StopAt, resume, start

ACCURACIES = {2: 0.1, 4: 0.3, 6: 0.3, 8: 0.2, 10: 0.5, 12: 0.4, 14: 0.5, 16: 0.4, 18: 0.9}
"""On the validation images, by step: three validations in a row are not better than the one at step 10."""

LOSSES: dict[int, float] = {}
"""The same, where they are not 1."""


def patient(patience: int | None) -> Config:
    return tiny(validate_every=2, checkpoint_every=3, patience=patience)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations come out as in the table above."""
    evaluation = Training.evaluation_of

    def scripted(self: Training, images: Images, *arguments: Any) -> Evaluation:
        found = evaluation(self, images, *arguments)
        step = self.progress.step
        return dataclasses.replace(found, accuracy=ACCURACIES.get(step, 0.0), loss=LOSSES.get(step, 1.0))

    monkeypatch.setattr(Training, "evaluation_of", scripted)


@pytest.mark.parametrize(
    ("patience", "steps", "best"), [(1, 6, 4), (2, 8, 4), (3, 16, 10), (4, 21, 18), (None, 21, 18)]
)
def test_it_ends_after_so_many_validations_without_a_better_one(
    patience: int | None, steps: int, best: int, tmp_path: Path, dataset: Dataset
) -> None:
    result = start(patient(patience), tmp_path, dataset)
    assert (result.status, result.steps, result.best_step) == ("complete", steps, best)
    assert [int(row["step"]) for row in figures(tmp_path)[0]] == [*range(2, steps + 1, 2)] + [21] * (steps == 21)


@pytest.mark.parametrize(
    ("losses", "steps", "best"), [((0.9, 0.8), 20, 14), ((0.8, 0.8), 16, 10), ((0.8, 0.9), 16, 10)]
)
def test_of_equal_accuracies_the_lower_loss_is_the_better_for_patience_and_for_the_best_checkpoint(
    losses: tuple[float, float],
    steps: int,
    best: int,
    tmp_path: Path,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LOSSES, 10, losses[0])
    monkeypatch.setitem(LOSSES, 14, losses[1])
    monkeypatch.setitem(ACCURACIES, 18, 0.0)
    result = start(patient(3), tmp_path / "whole", dataset)
    assert (result.steps, result.best_step) == (steps, best)
    assert load_checkpoint(tmp_path / "whole/checkpoints/best.npz").meta["step"] == best
    with pytest.raises(Stopped):
        start(patient(3), tmp_path / "stopped", dataset, StopAt(13))
    resume(patient(3), tmp_path / "stopped", dataset)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_a_checkpoint_from_before_losses_were_kept_goes_on_and_keeps_the_first_of_equal_accuracies() -> None:
    kept = dataclasses.asdict(Progress(step=12, evaluated=12, best_step=10, best_accuracy=0.5, best_loss=0.3))
    del kept["best_loss"]
    progress = Progress.from_meta(kept)
    assert not progress.is_better(0.5, 0.1)
    assert progress.is_better(0.6, 9.0)
    assert not progress.is_better(0.4, 0.0)


@pytest.mark.parametrize("moment", [3, 9, 14, 20, 24])
def test_an_interrupted_run_ends_where_it_would_have(moment: int, tmp_path: Path, dataset: Dataset) -> None:
    start(patient(3), tmp_path / "whole", dataset)
    with pytest.raises(Stopped):
        start(patient(3), tmp_path / "stopped", dataset, StopAt(moment))
    resume(patient(3), tmp_path / "stopped", dataset)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_it_is_refused_where_nothing_is_validated() -> None:
    data = {**patient(3).resolved, "data": {**patient(3).resolved["data"], "validation": "none"}}
    with pytest.raises(ConfigError, match=r"train\.patience: there are no validation images"):
        checked_data(config_from_data(data), lambda _: False)


def test_validations_since_the_best_are_counted_from_the_steps_alone() -> None:
    assert Progress(step=12, evaluated=12).stale(5) == 0
    assert Progress(step=12, evaluated=10, best_step=5, best_accuracy=0.5).stale(5) == 1
    assert Progress(step=21, evaluated=21, best_step=20, best_accuracy=0.5).stale(5) == 0
