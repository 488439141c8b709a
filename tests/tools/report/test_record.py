import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.runs.restore import load_data
from cnnlite.tools.report import record as records
from cnnlite.tools.report.record import Record, load_seen, load_trained, read_record
from tests.support.report_runs import made_up
from tests.support.small_runs import tiny


def test_a_record_tells_what_the_files_say(tmp_path: Path) -> None:
    record = made_up(tmp_path / "here", train_loss=[2.0, 1.0], config=tiny(epochs=5))
    assert (record.name, record.status, record.steps_per_epoch, record.total_steps) == ("here", "complete", 10, 50)
    assert record.column("train_loss") == ([1, 2], [2, 1])
    assert record.values("validation_loss") == []


def test_iterations_are_known_without_rows(tmp_path: Path) -> None:
    record = made_up(tmp_path, status=None, config=tiny(epochs=None, iterations=70))
    assert (record.status, record.total_steps, record.rows) == ("unfinished", 70, [])


def test_rows_that_a_killed_process_left_unfinished_are_skipped(tmp_path: Path) -> None:
    made_up(tmp_path, train_loss=[2.0, 1.0])
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(metrics.read_text() + "30,3,1\n40,4", encoding="utf-8")
    assert [row["train_loss"] for row in read_record(tmp_path).rows] == [2, 1]


def test_more_columns_are_no_trouble(tmp_path: Path) -> None:
    made_up(tmp_path, train_loss=[2.0])
    (tmp_path / "metrics.csv").write_text("step,epoch,gradient_norm,train_loss\n10,1,inf,2.0\n20,2,3.5,\n")
    record = read_record(tmp_path)
    assert record.column("train_loss") == ([1], [2])
    assert record.column("gradient_norm") == ([2], [3.5])


def test_the_result_of_an_earlier_session_does_not_count(tmp_path: Path) -> None:
    made_up(tmp_path, status="interrupted", train_loss=[2.0, 1.0])
    result = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(result | {"steps": 10}))
    assert read_record(tmp_path).status == "unfinished"


@pytest.mark.parametrize("content", ["", "[]", "{", None])
def test_a_damaged_result_is_no_result(content: str | None, tmp_path: Path) -> None:
    made_up(tmp_path, train_loss=[2.0])
    (tmp_path / "result.json").unlink() if content is None else (tmp_path / "result.json").write_text(content)
    assert read_record(tmp_path).status == "unfinished"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("validates", "status", "split"),
    [
        (True, "complete", "validation"),
        (True, "unfinished", "validation"),
        (False, "complete", "test"),
        (False, "interrupted", "training"),
    ],
)
def test_test_images_are_looked_at_only_after_the_test_and_if_there_are_no_others(
    validates: bool, status: str, split: str, run: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_data(run.config)
    if not validates:
        dataset = dataclasses.replace(dataset, validation=None)
    monkeypatch.setattr(records, "load_data", lambda *_: dataset)
    seen = load_seen(dataclasses.replace(run, result={"status": status}), load_trained(run))
    parts = {"validation": dataset.validation, "test": dataset.test, "training": dataset.train}
    assert seen.split == split
    assert seen.images is parts[split]


def test_a_damaged_best_checkpoint_gives_way_to_the_last(run: Record, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert load_trained(record).file.name == "best.npz"
    (tmp_path / "run" / "checkpoints" / "best.npz").write_bytes(b"PK")
    trained = load_trained(record)
    assert (trained.file.name, trained.step) == ("last.npz", 14)


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_trained(made_up(tmp_path, train_loss=[2.0]))
