"""The page: what it holds for runs of all kinds, and that it fetches nothing and believes nothing."""

import base64
import builtins
import dataclasses
import importlib.util
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, Images
from cnnlite.errors import ConfigError, StorageError
from cnnlite.runs.restore import load_data
from cnnlite.tools.report import charts
from cnnlite.tools.report import record as records
from cnnlite.tools.report.build import report_page, write_report
from cnnlite.tools.report.record import Record, read_record
from tests.support.report_runs import made_up, trained
from tests.support.small_runs import tiny

pytest.importorskip("matplotlib")


class Reader(HTMLParser):
    """Headings, addresses, images without a description, and whether every element is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.nameless = 0
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.nameless += tag == "img" and len(given.get("alt") or "") < 10
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def nothing(_: str) -> None:
    pass


def test_the_page_holds_everything_fetches_nothing_and_comes_with_its_pictures(run: Record, report: Path) -> None:
    html = (report / "index.html").read_text(encoding="utf-8")
    page = Reader(html)
    assert page.open == []
    assert page.headings == [
        "What the curves say",
        "Curves",
        "Class by class",
        "The most confident mistakes",
        "How far to trust its confidence",
        "What the first layer looks for",
        "From edges to concepts",
        "Where it looks",
        "How it was made",
    ]
    assert page.nameless == 0
    assert len(page.addresses) > 15
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "<script" not in html
    assert not re.search(r"url\(|@import", html)
    assert f"<b>{run.result['test_accuracy']:.1%}</b>test accuracy" in html
    assert "are of the validation images" in html
    names = {path.name for path in report.iterdir()}
    assert {"index.html", "loss.svg", "accuracy.svg", "confusion.svg", "mistakes.png", "filters.png"} <= names
    for path in report.iterdir():
        content = path.read_bytes()
        if path.name not in ("index.html", "mistakes.png"):  # the page shows each mistake by itself
            assert base64.b64encode(content).decode() in html
        assert content.startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".html": b"<!doctype"}[path.suffix])


def test_charts_follow_the_choice_of_light_or_dark_keep_text_as_text_and_come_out_the_same(
    run: Record, report: Path
) -> None:
    chart = (report / "loss.svg").read_text(encoding="utf-8")
    assert "@media (prefers-color-scheme:dark)" in chart
    assert ">validation<" in chart
    assert "fill: #1f2328" in chart
    assert '[style*="fill: #1f2328"]' in chart
    assert charts.curve_chart(run, "loss").svg() == chart


def test_the_chart_of_learning_rates_has_a_curve_through_the_rows_of_the_metrics(
    tmp_path: Path, dataset: Dataset
) -> None:
    first = {"match": "weight$", "optimizer": {"sgd": {"lr": 0.1}}, "schedule": "linear"}
    optimizer = {"composite": {"members": [first, {"match": ".", "optimizer": {"sgd": {"lr": 0.3}}}]}}
    found = trained(tmp_path / "run", tiny(optimizer=optimizer, validate_every=2), dataset)
    curves = {str(line.get_label()): line.get_xydata() for line in charts.lr_chart(found).axes.get_lines()}
    assert list(curves) == ["schedule of weight$", "schedule of .", "when validated"]
    weights, others, rows = ({tuple(point) for point in np.round(points, 6)} for points in curves.values())
    assert len(rows) > 5
    assert rows <= weights
    assert not rows <= others


def test_names_and_configs_are_shown_as_text_whatever_they_hold(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "a&b", '"quoted"', "$x^2$", "猫", *"fghij")
    rng = np.random.default_rng(0)
    train, test = (Images(rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 10, n)) for n in (40, 12))
    dataset = Dataset("mine", train, test, test, classes, "digest")
    folder = tmp_path / "<i>run"
    record = trained(folder, tiny(epochs=1, batch_size=20), dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "load_data", lambda *_: dataset)
        html = report_page(record, None, nothing).html()
    assert "<script" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "猫" in html
    assert Reader(html).open == []


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 2)])
def test_tiny_and_grey_images_without_validation_and_without_convolution(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    train, test = (Images(rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, 3, n)) for n in (30, 9))
    dataset = Dataset("mine", train, None, test, ("a", "b", "c"), "digest")
    data = {**tiny(epochs=1).resolved, "model": ["flatten", {"linear": {"out_features": 3}}]}
    data["data"] = {**data["data"], "dataset": "arrays", "augment": []}  # whose shape only the files tell
    record = trained(tmp_path / "run", config_from_data(data), dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "load_data", lambda *_: dataset)
        html = report_page(record, None, nothing).html()
    assert "are of the test images, after their test" in html
    assert "feature maps: the network has no layer" in html
    assert ("channels, which are not colours" in html) == (shape[-1] == 2)


def test_without_its_dataset_an_interrupted_run_still_has_curves_and_filters(
    run: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(tiny())
    other = Dataset(data.name, data.train, data.validation, data.test, data.classes, "another digest")
    monkeypatch.setattr(records, "load_data", lambda *_: other)
    told: list[str] = []
    html = report_page(dataclasses.replace(run, result={}), None, told.append).html()
    assert Reader(html).headings == [
        "What the curves say",
        "Curves",
        "What the first layer looks for",
        "How it was made",
    ]
    assert "not those that the run was trained on" in html
    assert "<b>-</b>test accuracy" in html
    assert "<b>unfinished</b>status" in html
    (left_out,) = told
    assert left_out.startswith("left out: class by class, mistakes, calibration, feature maps")
    assert "not those that the run was trained on" in left_out


def test_without_checkpoint_and_rows_the_page_says_what_is_left_out(tmp_path: Path) -> None:
    html = report_page(made_up(tmp_path / "run", status=None), None, nothing).html()
    assert Reader(html).headings == ["What the curves say", "How it was made"]
    assert "no checkpoint yet" in html
    assert "metrics.csv has no row yet" in html


def test_the_config_is_called_by_its_name_which_is_no_file(tmp_path: Path) -> None:
    html = report_page(made_up(tmp_path / "run", train_loss=[1.0]), None, nothing).html()
    assert f"A report on the run {tmp_path / 'run'}, trained from the config tiny</p>" in html


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_fifo_in_the_place_of_the_page_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    record = made_up(tmp_path / "run", train_loss=[1.0])
    os.mkfifo(tmp_path / "index.html")
    for force in (False, True):
        with pytest.raises(ConfigError, match="is not a regular file; name another place"):
            write_report(record, tmp_path, say=nothing, force=force)


@pytest.mark.long
def test_all_that_a_report_would_replace_is_asked_for_and_nothing_written_before(tmp_path: Path) -> None:
    record = made_up(tmp_path / "run", train_loss=[1.0, 0.5])
    write_report(record, tmp_path / "made", say=nothing)
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert len(names) > 2
    for name in names:
        folder = tmp_path / f"beside {name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(
            ConfigError, match=f"{name}: exists already; name another place, or replace it with force=True"
        ):
            write_report(record, folder, say=nothing)
        assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, "mine")]
        write_report(record, folder, say=nothing, force=True)
        assert sorted(path.name for path in folder.iterdir()) == names


def test_a_report_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made_up(tmp_path / "run", train_loss=[1.0, 0.5])
    write_report(record, tmp_path / "made", say=nothing)
    old = {path: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    (tmp_path / "run" / "metrics.csv").write_text("step,epoch,train_loss\n1,1,3\n2,2,2\n3,3,1\n")
    replace, calls = os.replace, []

    def fail_at_the_last(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == len(old):
            raise OSError(28, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(os, "replace", fail_at_the_last)
    with pytest.raises(StorageError, match=r"made/.*: cannot write: No space left"):
        write_report(read_record(tmp_path / "run"), tmp_path / "made", say=nothing, force=True)
    assert {path: path.read_bytes() for path in (tmp_path / "made").iterdir()} == old


def test_the_usual_folder_of_a_report_is_not_followed_elsewhere(tmp_path: Path) -> None:
    record = made_up(tmp_path / "run", train_loss=[1.0])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="report: is a link; name the folder that it leads to with out"):
        write_report(record, tmp_path / "run" / "report", say=nothing)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("out", ["mine.png", "mine.svg", "mine.html", "index.html"])
def test_whatever_is_there_is_replaced_only_when_told_to(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "other"):
        made_up(tmp_path / name, train_loss=[1.0])
    monkeypatch.chdir(tmp_path)
    command = ["report", "run", "--out", "."] if out == "index.html" else ["compare", "run", "other", "--out", out]
    Path(out).write_text("mine")
    refused = CliRunner().invoke(cli, command)
    assert (refused.exit_code, Path(out).read_text()) == (2, "mine")
    assert refused.stderr == f"error: {out}: exists already; name another place, or replace it with --force\n"
    done = CliRunner().invoke(cli, [*command, "--force"])
    assert (done.exit_code, Path(out).stat().st_size > 1000) == (0, True), done.output
    ours = Path(out).read_bytes()
    again = CliRunner().invoke(cli, command)  # what cnnlite made, somebody may have changed since
    assert (again.exit_code, Path(out).read_bytes()) == (2, ours)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    record = made_up(tmp_path / "run", train_loss=[1.0])
    with pytest.raises(StorageError, match="cannot write"):
        write_report(record, tmp_path / "run" / "metrics.csv" / "report", say=nothing)


@pytest.mark.parametrize("command", [["report", "run"], ["compare", "run", "other", "--out", "curves.png"]])
def test_without_matplotlib_one_line_says_what_to_install(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "other"):
        made_up(tmp_path / name, train_loss=[1.0])
    monkeypatch.chdir(tmp_path)
    find, imported = importlib.util.find_spec, builtins.__import__

    def no_import(name: str, *arguments: Any, **options: Any) -> Any:
        assert name.split(".")[0] != "matplotlib"
        return imported(name, *arguments, **options)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    monkeypatch.setattr(builtins, "__import__", no_import)
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert 'pip install "cnnlite[plot]"' in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]


def test_explain_and_compare_from_end_to_end(run: Record, tmp_path: Path) -> None:
    name = str(run.path)
    explained = CliRunner().invoke(cli, ["explain", name])
    assert explained.exit_code == 0
    assert "try: cnnlite train --config" in explained.stdout
    assert "not looked for" not in explained.stdout
    told = json.loads(CliRunner().invoke(cli, ["explain", name, "--json"]).stdout)
    assert told["run"] == run.name
    assert all(found["text"] for found in told["findings"])
    other = shutil.copytree(run.path, tmp_path / "other")
    compared = json.loads(CliRunner().invoke(cli, ["compare", name, str(other), "--json"]).stdout)
    assert compared["entries"][0]["test_accuracy"] == run.result["test_accuracy"]
    assert CliRunner().invoke(cli, ["explain", "--rules"]).stdout.startswith("no_rows: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "missing"], "missing: no such run"),
        (["explain", "."], "is not a run directory"),
        (["explain"], "--rules"),
        (["compare", "one"], "at least two runs"),
        (["compare", "one", "two"], "one: no such run"),
        (["compare", "one", "two", "--out", "curves.pdf"], ".html, .png or .svg"),
    ],
)
def test_wrong_usage_is_answered_with_what_to_do(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
