"""The command: which image it shows, where the page goes, and what it says when something is amiss."""

import json
import re
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.data import Dataset
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnnlite.runs.restore import load_data
from cnnlite.tools.show import build
from tests.support.small_runs import tiny, trained


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["show", *map(str, arguments)], catch_exceptions=False)


def facts(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', page.read_text("utf-8"))
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is empty."""
    monkeypatch.chdir(tmp_path)


def test_a_run_is_shown_with_its_best_checkpoint_and_the_first_test_image(checkpoint: Path, dataset: Dataset) -> None:
    done = run(checkpoint.parent.parent)
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"show\.html: [\d.]+ kB; test image 0 of shapes\n", done.stdout)
    assert done.stderr == f"taking {checkpoint}\n"
    found = facts(Path("show.html"))
    assert (found["title"], found["checkpoint"]) == (checkpoint.parent.parent.name, "best.npz")
    assert found["step"] == load_checkpoint(checkpoint).meta["step"]
    assert found["label"] == found["target"] == dataset.test.labels[0]
    assert found["classes"] == list(dataset.classes)


def test_any_test_image_can_be_shown(checkpoint: Path, dataset: Dataset) -> None:
    assert run(checkpoint, "--index", 39, "--out", "last.html").exit_code == 0
    found = facts(Path("last.html"))
    assert (found["source"], found["label"]) == ("test image 39 of shapes", dataset.test.labels[39])


def test_a_picture_is_read_as_predict_reads_it(checkpoint: Path, dataset: Dataset) -> None:
    image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    image.fromarray(dataset.test.images[5]).save("cat <b>.png")
    assert run(checkpoint, "cat <b>.png").exit_code == 0
    found = facts(Path("show.html"))
    assert (found["source"], found["label"]) == ("cat <b>.png", None)
    predicted = CliRunner().invoke(cli, ["predict", str(checkpoint), "cat <b>.png", "--json"])
    best = json.loads(predicted.stdout)["predictions"][0]["top"][0]["class"]
    assert found["classes"][found["target"]] == best
    image.fromarray(dataset.test.images[5]).resize((200, 90)).save("wide.jpg")
    assert run(checkpoint, "wide.jpg", "--force").exit_code == 0


def test_pictures_are_cropped_as_the_dataset_is(tmp_path: Path) -> None:
    image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    import yaml

    from cnnlite.config.load import config_from_data
    from tests.support.small_runs import TINY

    data = yaml.safe_load(TINY)
    data["data"]["center_crop"] = 24
    data["train"]["epochs"] = 1
    checkpoint = trained(tmp_path / "cropped", config_from_data(data, "cropped"))
    image.fromarray(np.zeros((60, 60, 3), np.uint8)).save("black.png")
    assert run(checkpoint, "black.png").exit_code == 0
    assert facts(Path("show.html"))["nodes"][0]["shape"] == [24, 24, 3]


@pytest.mark.usefixtures("as_typed")
def test_nothing_is_overwritten_without_force(checkpoint: Path) -> None:
    Path("mine.html").write_text("my notes")
    done = run(checkpoint, "--out", "mine.html")
    assert (done.exit_code, Path("mine.html").read_text()) == (2, "my notes")
    assert done.stderr == ("error: mine.html: exists already; name another place, or replace it with --force\n")
    assert run(checkpoint, "--out", "mine.html", "--force").exit_code == 0
    assert facts(Path("mine.html"))["step"]
    Path("folder.html").mkdir()
    done = run(checkpoint, "--out", "folder.html", "--force")
    assert (done.exit_code, done.stderr) == (2, "error: folder.html: is not a regular file; name another place\n")
    done = run(checkpoint, "--out", "nowhere/show.html")
    assert done.exit_code == 5
    assert done.stderr.startswith("error: nowhere/show.html: cannot write: No such file or directory")


def test_a_page_can_be_opened_at_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def first_time(address: str) -> bool:
        opened.append(address)
        return len(opened) == 1

    monkeypatch.setattr(webbrowser, "open", first_time)
    assert run(checkpoint, "--out", "a b.html", "--open").stderr == ""
    done = run(checkpoint, "--out", "c.html", "--open")
    assert (done.exit_code, done.stderr) == (0, "no browser could be started; open c.html yourself\n")
    assert opened == [Path(name).resolve().as_uri() for name in ("a b.html", "c.html")]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--index", "40"], 2, "error: --index 40: there are 40 test images, from 0 on\n"),
        (["--index", "-1"], 2, "-1 is not in the range x>=0"),
        (["missing.png"], 3, "error: missing.png: No such file or directory\n"),
        (["notes.txt"], 3, "error: notes.txt: is not a picture in a format that can be read\n"),
        (["notes.txt", "--index", "3"], 2, "not both"),
        (["notes.txt", "--data", "pictures"], 2, "a picture needs no --data"),
        (["--data", "pictures"], 3, "error: --data pictures: shapes makes its images by code and reads no files"),
        (["--out", "notes.txt"], 2, "error: notes.txt: exists already"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(arguments: list[str], code: int, words: str, checkpoint: Path) -> None:
    pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    Path("notes.txt").write_text("not a picture")
    done = run(checkpoint, *arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert not Path("show.html").exists()


def test_other_or_missing_images_are_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*arguments: object) -> Dataset:
        dataset = load_data(tiny())
        object.__setattr__(dataset, "digest", "of something else")
        return dataset

    monkeypatch.setattr(build, "load_data", other)
    done = run(checkpoint)
    assert (done.exit_code, done.stderr) == (
        3,
        "error: the images of shapes here are not those that the run was trained on\n",
    )

    def missing(*arguments: object) -> Dataset:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(build, "load_data", missing)
    done = run(checkpoint)
    assert done.exit_code == 3
    assert done.stderr.endswith("\nerror: or name a picture file instead\n")


def changed(checkpoint: Path, **meta: Any) -> Path:
    """A copy of a checkpoint with other facts."""
    whole = load_checkpoint(checkpoint)
    path = Path("changed.npz")
    known = {name: value for name, value in {**whole.meta, **meta}.items() if value is not None}
    save_checkpoint(path, Checkpoint(whole.arrays, known))
    return path


@pytest.mark.parametrize("meta", [{"step": None}, {"step": "5"}, {"dataset": None}, {"dataset": "cifar10"}])
def test_checkpoints_that_do_not_say_what_is_needed_are_refused(meta: dict[str, Any], checkpoint: Path) -> None:
    done = run(changed(checkpoint, **meta))
    assert (done.exit_code, done.stderr) == (
        3,
        "error: changed.npz: does not say on what it was trained, and for how long\n",
    )


def test_damaged_checkpoints_are_refused(checkpoint: Path) -> None:
    Path("cut.npz").write_bytes(checkpoint.read_bytes()[:-70])
    done = run("cut.npz")
    assert done.exit_code == 3
    assert done.stderr.startswith("error: cut.npz: is damaged")
    assert run("no such run").exit_code == 2


def test_a_checkpoint_outside_of_a_run_is_named_after_its_file(checkpoint: Path) -> None:
    assert run(changed(checkpoint)).exit_code == 0
    assert facts(Path("show.html"))["title"] == "changed"


def test_the_same_network_gives_the_same_page(checkpoint: Path) -> None:
    for name, threads in (("a.html", 1), ("b.html", 2)):
        assert run(checkpoint, "--out", name, "--threads", threads).exit_code == 0
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()
