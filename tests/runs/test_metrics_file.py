import csv
from pathlib import Path

import numpy as np
import pytest

from cnnlite.errors import StorageError
from cnnlite.runs.metrics_file import COLUMNS, OLDEST, MetricsFile
from cnnlite.runs.scores import Mean, hits


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


OLD = ",".join(COLUMNS[:OLDEST]) + "\n10,1,2.5,0.1,2.3,0.1,2.2,0.2,900\n20,2,5,0.1,2.1,0.2,2.1,0.3,950\n"
"""Of a version before the last columns."""


def test_a_file_of_an_older_version_gets_the_columns_that_came_since(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(OLD)
    file = MetricsFile(path)
    assert (file.reaches_beyond(10), file.reaches_beyond(20)) == (True, False)
    file.cut_back(20)
    file.append(row(30) | {"validation_macro_f1": 0.25})
    with open(path, newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS
    assert [r["step"] for r in rows] == ["10", "20", "30"]
    assert [r["images_per_second"] for r in rows] == ["900", "950", ""]
    assert [r["validation_macro_f1"] for r in rows] == ["", "", "0.25"]
    again = path.read_text()
    file.cut_back(30)
    assert path.read_text() == again


def test_a_torn_row_of_an_older_version_is_dropped_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(OLD + "21,2.1,5,0.1,2.1,0.2,2.1,0.3,9")
    MetricsFile(path).cut_back(15)
    missing = "," * (len(COLUMNS) - OLDEST)
    assert path.read_text().splitlines() == [",".join(COLUMNS), OLD.splitlines()[1] + missing]


def test_rows_below_a_foreign_header_are_none_but_are_not_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("a,b\n" + OLD.splitlines()[1] + "\n" + "7" + "," * (len(COLUMNS) - 1) + "\n")
    assert MetricsFile(path).reaches_beyond(0)
    MetricsFile(path).cut_back(100)
    assert path.read_text() == ",".join(COLUMNS) + "\n"
