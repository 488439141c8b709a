import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.runs.predictions import predictions_text
from cnnlite.tools.report.compare import compare
from cnnlite.tools.report.record import Record
from cnnlite.tools.report.side_by_side import write_comparison
from tests.support.report_runs import made_up
from tests.support.small_runs import tiny


def test_runs_stand_side_by_side_with_what_they_differ_in(tmp_path: Path) -> None:
    one = made_up(tmp_path / "one", validation_accuracy=[0.5, 0.7, 0.6], config=tiny(epochs=3))
    two = made_up(tmp_path / "two", train_accuracy=[0.5], status=None, config=tiny(epochs=3, batch_size=8))
    found = compare([one, two])
    assert found.differences == {"train.batch_size": {"one": 16, "two": 8}}
    first, second = found.entries
    assert (first.best_validation_accuracy, first.test_accuracy, first.steps, first.seconds) == (0.7, 0.5, 30, 20)
    assert (second.best_validation_accuracy, second.test_accuracy, second.status) == (None, None, "unfinished")
    text = found.describe()
    assert "train.batch_size: 16 (one), 8 (two)" in text
    assert "70.0%" in text


def test_options_that_one_run_does_not_have_are_none(tmp_path: Path) -> None:
    groups = {"adam": {"lr": 0.003, "weight_decay": 0.001, "groups": [{"match": "bias$", "lr": 0.1}]}}
    one = made_up(tmp_path / "one", train_loss=[1.0])
    two = made_up(tmp_path / "two", train_loss=[1.0], config=tiny(epochs=1, optimizer=groups))
    found = compare([one, two])
    assert found.differences["train.optimizer.adam.groups[0].lr"] == {"two": 0.1}
    assert "train.optimizer.adam.groups[0].lr: none (one), 0.1 (two)" in found.describe()


def test_another_choice_is_one_difference_without_the_defaults(tmp_path: Path) -> None:
    data = tiny(epochs=1).resolved
    data["train"] |= {"schedule": {"linear": {"warmup_epochs": 2}}, "optimizer": {"sgd": {"lr": 0.1}}}
    data["data"] |= {"augment": ["random_flip", {"random_crop": {"padding": 2}}, "cutout"], "mix": "mixup"}
    data["data"]["augment"][2] = {"cutout": {"size": 8}}
    one = made_up(tmp_path / "one", train_loss=[1.0])
    two = made_up(tmp_path / "two", train_loss=[1.0], config=config_from_data(data))
    third = config_from_data({**data, "train": {**data["train"], "schedule": "constant"}})
    three = made_up(tmp_path / "three", train_loss=[1.0], config=third)
    lines = compare([one, two, three]).describe().splitlines()
    assert lines[-4:] == [
        "data.augment: [random_flip, random_crop] (one), "
        "[random_flip, {random_crop: {padding: 2}}, {cutout: {size: 8}}] (two, three)",
        "data.mix: null (one), mixup (two, three)",
        "train.optimizer: {adam: {lr: 0.003, weight_decay: 0.001}} (one), {sgd: {lr: 0.1}} (two, three)",
        "train.schedule: {cosine: {warmup_steps: 3}} (one), {linear: {warmup_epochs: 2.0}} (two), constant (three)",
    ]


def test_models_of_other_layers_are_outlined(tmp_path: Path) -> None:
    data = tiny(epochs=1).resolved
    other = config_from_data({**data, "model": ["flatten", {"linear": {"out_features": 10}}]})
    one, two = made_up(tmp_path / "one", train_loss=[1.0]), made_up(tmp_path / "two", train_loss=[1.0], config=other)
    assert compare([one, two]).differences == {
        "model": {
            "one": "1 conv2d, 1 batch_norm, 1 relu, 1 max_pool2d, 1 dropout, 1 flatten, 1 linear",
            "two": "1 flatten, 1 linear",
        }
    }


def test_an_option_of_a_layer_is_a_difference_of_its_own(tmp_path: Path) -> None:
    data = tiny(epochs=1).resolved
    data["model"][4] = {"dropout": {"p": 0.3}}
    one = made_up(tmp_path / "one", train_loss=[1.0])
    two = made_up(tmp_path / "two", train_loss=[1.0], config=config_from_data(data))
    assert compare([one, two]).differences == {"model[4].dropout.p": {"one": 0.2, "two": 0.3}}


def test_seeds_of_one_config_are_summed_up(tmp_path: Path) -> None:
    records = []
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        config = config_from_data({**tiny(epochs=1).resolved, "seed": seed})
        records.append(made_up(tmp_path / f"s{seed}", validation_accuracy=[accuracy], config=config))
    found = compare(records)
    assert found.differences == {}
    (group,) = found.groups
    assert group.validation == pytest.approx((0.6, 0.1))
    assert group.test == pytest.approx((0.5, 0))
    assert "3 seeds of one config (s0, s1, s2): validation 60.0% +- 10.0, test 50.0% +- 0.0" in found.describe()
    assert "configs are the same" in found.describe()
    assert compare([records[0], records[0]]).groups == []


def test_a_figure_that_all_seeds_have_is_summed_up_and_stands_in_the_table(tmp_path: Path) -> None:
    records = []
    for seed, figure in enumerate((0.25, 0.35)):
        config = config_from_data({**tiny(epochs=1).resolved, "seed": seed})
        record = made_up(tmp_path / f"s{seed}", validation_accuracy=[0.9], config=config)
        records.append(
            replace(record, result={**record.result, "test_macro_f1": figure, "best_validation_accuracy": 0.7})
        )
    found = compare(records)
    assert found.groups[0].macro_f1 == pytest.approx((0.3, 0.1 / 2**0.5))
    assert "validation 70.0% +- 0.0, test 50.0% +- 0.0, macro F1 30.0% +- 7.1" in found.describe()
    assert [row[-2] for row in found.rows()] == ["macro F1", "25.0%", "35.0%"]


def test_the_config_of_a_run_without_result_is_unknown_and_written_as_a_dash(tmp_path: Path) -> None:
    one, two = (made_up(tmp_path / name, train_loss=[1.0], status=None) for name in ("one", "two"))
    found = compare([one, two])
    assert [entry["config"] for entry in found.facts()["entries"]] == [None, None]
    assert [row[1] for row in found.rows()] == ["config", "-", "-"]


def test_runs_of_the_same_name_are_called_by_their_paths(tmp_path: Path) -> None:
    one, two = made_up(tmp_path / "a" / "run", train_loss=[1.0]), made_up(tmp_path / "b" / "run", train_loss=[1.0])
    assert [entry.run for entry in compare([one, two]).entries] == [str(one.path), str(two.path)]


@pytest.mark.parametrize("runs", ["a a", "a a/", "a b b/../a", "b a b"])
def test_a_run_named_twice_is_refused(runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        made_up(Path(name), train_loss=[1.0])
    done = CliRunner().invoke(cli, ["compare", *runs.split()])
    twice = runs.split()[-1].rstrip("/")
    assert (done.exit_code, done.output) == (2, f"error: {twice}: named twice; name each run once\n")


def test_curves_go_into_a_page_or_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = made_up(tmp_path / "<one>", validation_accuracy=[0.5, 0.7], validation_loss=[2.0, 1.0])
    two = made_up(tmp_path / "two", train_accuracy=[0.5], train_loss=[3.0])
    found = compare([one, two])
    for name in ("out.html", "out.png", "out.svg"):
        write_comparison(found, [one, two], tmp_path / name)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "two, training" in (tmp_path / "out.svg").read_text(encoding="utf-8")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "&lt;one&gt;" in page
    assert "<one>" not in page


def predicting(folder: Path, right: str, digest: str | None = "same") -> Record:
    """A run that predicted the images of its test rightly (``+``) or not."""
    record = made_up(folder, train_loss=[1.0])
    labels, accuracy = np.zeros(len(right), np.int64), right.count("+") / len(right)
    predictions = np.array([0 if mark == "+" else 1 for mark in right])
    text = predictions_text(["a", "b"], labels, predictions)
    (folder / "predictions.csv").write_text(text, encoding="utf-8")
    return replace(record, result={**record.result, "test_accuracy": accuracy, "test_digest": digest})


def test_runs_on_the_same_test_images_are_said_to_differ_or_not(tmp_path: Path) -> None:
    one = predicting(tmp_path / "one", "+" * 10 + "-" * 10)
    two = predicting(tmp_path / "two", "-" * 1 + "+" * 9 + "+" * 10)
    three = predicting(tmp_path / "three", "+" * 9 + "-" * 1 + "+" * 2 + "-" * 8)
    other = predicting(tmp_path / "other", "+" * 20, digest="of others")
    found = compare([one, other, two, three])
    assert [(pair.first, pair.second, pair.only_first, pair.only_second) for pair in found.paired] == [
        ("one", "two", 1, 10),
        ("one", "three", 1, 2),
    ]
    assert found.paired[0].p == pytest.approx(2 * 12 / 2**11)
    text = found.describe()
    assert (
        "one and two on the same 20 test images: 1 are right only with the first, 10 only with the second; they differ "
        "(McNemar's test, p = 0.012)" in text
    )
    assert "only with the first, 2 only with the second; nothing tells them apart\n" in text
    assert found.facts()["paired"][0]["images"] == 20


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ("++++--", "++++--", "one and two on the same 6 test images: the same ones are right with both"),
        ("+++---", "---+++", "3 only with the second; nothing tells them apart"),
        ("+++++-", "-----+", "1 only with the second; that may be chance (McNemar's test, p = 0.22)"),
    ],
)
def test_runs_that_do_not_differ_are_said_to_be_so_in_words(one: str, two: str, words: str, tmp_path: Path) -> None:
    runs = [predicting(tmp_path / name, right) for name, right in (("one", one), ("two", two))]
    assert f"{words}\n" in compare(runs).describe()


def test_a_clear_difference_is_not_told_with_more_digits_than_it_has(tmp_path: Path) -> None:
    one, two = predicting(tmp_path / "one", "+" * 100 + "-" * 100), predicting(tmp_path / "two", "-" * 100 + "+" * 100)
    assert compare([one, two]).paired[0].p == pytest.approx(math.erfc(0), abs=0.1)
    three = predicting(tmp_path / "three", "+" * 200)
    assert "they differ (McNemar's test, p < 1e-06)" in compare([two, three]).describe()


@pytest.mark.parametrize("damage", ["no file", "of another result", "no digest", "other digests", "fewer"])
def test_runs_without_predictions_of_the_same_images_are_not_compared_so(damage: str, tmp_path: Path) -> None:
    one, two = predicting(tmp_path / "one", "+-+-"), predicting(tmp_path / "two", "++--")
    if damage == "no file":
        (tmp_path / "two/predictions.csv").unlink()
    elif damage == "of another result":
        two = replace(two, result={**two.result, "test_accuracy": 0.75})
    elif damage == "fewer":
        two = predicting(tmp_path / "two", "+-")
    else:
        two = replace(two, result={**two.result, "test_digest": None if damage == "no digest" else "x"})
    assert compare([one, two]).paired == []
    assert "McNemar" not in compare([one, two]).describe()
