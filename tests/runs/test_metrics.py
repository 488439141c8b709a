import csv
from pathlib import Path

import numpy as np
import pytest

from cnnlite.errors import StorageError
from cnnlite.runs.metrics import COLUMNS, ConfusionMatrix, Mean, MetricsFile, hits


def row(step: int) -> dict[str, float | None]:
    return {"step": step, "epoch": step / 3, "lr": 1e-3, "validation_loss": None}


def test_a_short_last_batch_counts_for_what_it_is() -> None:
    mean = Mean()
    mean.add(4.0, 4)
    mean.add(0.0, 1)
    assert mean.value == 0.8
    assert Mean().value is None


def test_hits_count_right_predictions_and_of_mixed_images_the_share_of_the_predicted_class() -> None:
    logits = np.array([[0.0, 2, 1], [3, 1, 2], [0, 1, 5]], np.float32)
    assert hits(logits, np.array([1, 2, 2])) == 2
    assert hits(logits, np.array([[0, 0.25, 0.75], [0.5, 0.5, 0], [0, 0, 1]], np.float32)) == 1.75


def test_confusion_counts_truth_by_row() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 0, 1]), np.array([0, 2, 2]))
    matrix.add(np.array([1]), np.array([1]))
    assert matrix.counts.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert matrix.accuracy == 0.5
    assert matrix.per_class() == [0.5, 0.5, None]


def test_rows_are_appended_below_one_header(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsFile(path).append(row(1))
    MetricsFile(path).append(row(2))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [r["step"] for r in rows] == ["1", "2"]
    assert rows[0]["lr"] == "0.001"
    assert rows[0]["validation_loss"] == ""
    assert rows[0]["seconds"] == ""


def test_an_unknown_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="surprise"):
        MetricsFile(tmp_path / "m.csv").append({"surprise": 1})


def test_cutting_back_drops_later_rows_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for step in (10, 20, 30):
        file.append(row(step))
    kept = "".join(path.read_text().splitlines(keepends=True)[:3])
    with open(path, "a") as raw:
        raw.write("40,1.3")
    file.cut_back(20)
    assert path.read_text() == kept
    file.append(row(21))
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["step", "10", "20", "21"]


def test_a_torn_row_with_a_small_step_is_dropped_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsFile(path).append(row(10) | {"images_per_second": 1234.5})
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[1][:-1])
    MetricsFile(path).cut_back(10)
    assert path.read_text() == whole


def test_a_torn_header_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epo")
    MetricsFile(path).cut_back(5)
    MetricsFile(path).append(row(6))
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["step", "6"]


def test_cutting_back_nothing_is_nothing(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.csv").cut_back(5)
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        MetricsFile(tmp_path / "missing" / "metrics.csv").append(row(1))
