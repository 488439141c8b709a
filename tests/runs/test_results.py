"""The last line of a training gives the figures that it went by."""

import json
from pathlib import Path

import pytest

from cnnlite.config.settings import Monitor
from cnnlite.runs.results import FIGURES, Result, describe_result, read_result
from tests.support.small_runs import tiny, trained


def result(monitor: Monitor = "accuracy", best: float | None = 0.75) -> Result:
    return Result(
        config="tiny",
        seed=0,
        steps=200,
        epochs=2,
        train_seconds=12.3,
        best_step=150,
        best_validation_accuracy=0.8,
        test_accuracy=0.845,
        test_loss=0.5175,
        test_balanced_accuracy=0.825,
        test_macro_f1=0.826,
        parameters=9,
        cnnlite_version="0",
        status="complete",
        monitor=monitor,
        best_validation=best,
    )


@pytest.mark.parametrize(
    ("monitor", "line"),
    [
        ("accuracy", "test accuracy 84.50%  (best step 150 of 200, validation accuracy 80.00%, 12 s)"),
        (
            "macro_f1",
            "test accuracy 84.50%, macro F1 82.60%  (best step 150 of 200, validation macro F1 75.00%, 12 s)",
        ),
        (
            "balanced_accuracy",
            "test accuracy 84.50%, balanced accuracy 82.50%  "
            "(best step 150 of 200, validation balanced accuracy 75.00%, 12 s)",
        ),
        ("loss", "test accuracy 84.50%, loss 0.5175  (best step 150 of 200, validation loss 0.7500, 12 s)"),
    ],
)
def test_the_last_line_gives_the_figure_that_chose_the_best(monitor: Monitor, line: str) -> None:
    assert describe_result(result(monitor)) == line


def test_a_run_without_validation_says_so_by_silence() -> None:
    assert "validation" not in describe_result(result("macro_f1", None))


@pytest.mark.parametrize("monitor", FIGURES)
def test_a_training_leaves_the_figure_that_chose_the_best(monitor: Monitor, tmp_path: Path) -> None:
    trained(tmp_path / "run", tiny(epochs=1, monitor=monitor))
    found = Result(**read_result(tmp_path / "run" / "result.json"))
    assert found.monitor == monitor
    assert found.best_validation is not None
    assert (found.best_validation == found.best_validation_accuracy) == (monitor == "accuracy")


@pytest.mark.parametrize("monitor", ["steps", "", 3, ["loss"], {"loss": 1}])
def test_a_figure_that_there_is_not_is_left_out(monitor: object, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"monitor": monitor, "seed": 3}))
    assert read_result(tmp_path / "result.json") == {"seed": 3}
