"""Early stopping: where it ends a run, and that an interrupted run ends there too."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest

from cnnlite.config.load import Config, config_from_data
from cnnlite.config.settings import Monitor
from cnnlite.data import Dataset, Images
from cnnlite.errors import ConfigError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.results import Progress
from cnnlite.runs.scores import Figures
from cnnlite.training.evaluation import Evaluation
from cnnlite.training.launch import checked_data
from cnnlite.training.loop import Training, train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag, Stopped
from tests.support.small_runs import assert_same_run, figures, tiny
from tests.support.training_parts import StopAt, resume, start

ACCURACIES = {2: 0.1, 4: 0.3, 6: 0.3, 8: 0.2, 10: 0.5, 12: 0.4, 14: 0.5, 16: 0.4, 18: 0.9}
"""On the validation images, by step: three validations in a row are not better than the one at step 10."""

LOSSES: dict[int, float] = {}
"""The same, where they are not 1."""

F1S = {4: 0.2, 6: 0.3, 12: 0.25}


def patient(patience: int | None) -> Config:
    return tiny(validate_every=2, checkpoint_every=3, patience=patience)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations come out as in the table above."""
    evaluation = Training.evaluation_of

    def scripted(self: Training, images: Images, *arguments: Any) -> Evaluation:
        found = evaluation(self, images, *arguments)
        step = self.progress.step
        return dataclasses.replace(
            found,
            accuracy=ACCURACIES.get(step, 0.0),
            loss=LOSSES.get(step, 1.0),
            macro_f1=F1S.get(step, 0.0),
            balanced_accuracy=1 - ACCURACIES.get(step, 0.0),
        )

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
    del kept["best_macro_f1"], kept["best_balanced_accuracy"]
    progress = Progress.from_meta(kept)
    assert not progress.is_better(of(0.5, 0.1))
    assert progress.is_better(of(0.6, 9.0))
    assert not progress.is_better(of(0.4, 0.0))


def of(accuracy: float, loss: float) -> Figures:
    return Figures(accuracy=accuracy, loss=loss, macro_f1=0.5, balanced_accuracy=0.5)


def test_the_first_validation_is_the_best_so_far_whatever_is_monitored() -> None:
    for monitor in get_args(Monitor):
        progress = Progress(step=5)
        assert progress.is_better(of(0.0, 99.0), monitor)
        progress.take_best(of(0.0, 99.0))
        assert not progress.is_better(of(0.0, 99.0), monitor)
        assert progress.is_better(of(0.0, 98.0), monitor)


@pytest.mark.parametrize(
    ("monitor", "steps", "best"),
    [("accuracy", 16, 10), ("macro_f1", 12, 6), ("loss", 14, 8), ("balanced_accuracy", 8, 2)],
)
def test_the_figure_that_is_monitored_says_which_is_the_best_and_when_to_stop(
    monitor: str, steps: int, best: int, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, 8, 0.5)
    config = tiny(validate_every=2, checkpoint_every=3, patience=3, monitor=monitor)
    result = start(config, tmp_path / "whole", dataset)
    assert (result.steps, result.best_step, result.best_validation_accuracy) == (steps, best, ACCURACIES[best])
    assert load_checkpoint(tmp_path / "whole/checkpoints/best.npz").meta["step"] == best
    with pytest.raises(Stopped):
        start(config, tmp_path / "stopped", dataset, StopAt(9))
    resume(config, tmp_path / "stopped", dataset)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_the_figure_that_is_monitored_is_in_the_row_and_its_line(tmp_path: Path, dataset: Dataset) -> None:
    run = RunDirectory.create_at(tmp_path)
    reporter = Reporter(quiet=True)
    reporter.open_log(run.append_to("log.txt"))
    config = tiny(validate_every=2, iterations=6, epochs=None, monitor="macro_f1")
    train(config, run, dataset=dataset, reporter=reporter, stop=StopFlag())
    run.close()
    assert [row["validation_macro_f1"] for row in figures(tmp_path)[0]] == ["0", "0.2", "0.3"]
    assert "accuracy 30.00%, macro F1 20.00% (best)" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    start(tiny(validate_every=2, iterations=6, epochs=None), tmp_path / "plain", dataset)
    assert figures(tmp_path / "plain")[0][1]["validation_balanced_accuracy"] == "0.7"


@pytest.mark.parametrize("moment", [3, 9, 14, 20, 24])
def test_an_interrupted_run_ends_where_it_would_have(moment: int, tmp_path: Path, dataset: Dataset) -> None:
    start(patient(3), tmp_path / "whole", dataset)
    with pytest.raises(Stopped):
        start(patient(3), tmp_path / "stopped", dataset, StopAt(moment))
    resume(patient(3), tmp_path / "stopped", dataset)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("option", [{"patience": 3}, {"monitor": "loss"}])
def test_it_is_refused_where_nothing_is_validated(option: dict[str, Any]) -> None:
    config = tiny(**option)
    data = {**config.resolved, "data": {**config.resolved["data"], "validation": "none"}}
    with pytest.raises(ConfigError, match=rf"train\.{next(iter(option))}: there are no validation images"):
        checked_data(config_from_data(data), lambda _: False)


def test_validations_since_the_best_are_counted_from_the_steps_alone() -> None:
    assert Progress(step=12, evaluated=12).stale(5) == 0
    assert Progress(step=12, evaluated=10, best_step=5, best_accuracy=0.5).stale(5) == 1
    assert Progress(step=21, evaluated=21, best_step=20, best_accuracy=0.5).stale(5) == 0
