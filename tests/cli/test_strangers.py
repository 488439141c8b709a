"""Wishes in a checkpoint or a run from elsewhere: paths to write to, which nobody here asked for."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.data.datasets import cache_file
from cnnlite.data.datasets.folder import Folder
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnnlite.runtime import machine
from tests.support.folders import fill

CONFIG = """\
data: {dataset: {folder: {size: 8, test_fraction: 0.25}}, root: pictures, validation: 0.3}
model: [flatten, {linear: {out_features: 2}}]
train: {epochs: 1, batch_size: 4, optimizer: {sgd: {lr: 0.1}}}
"""
COMMANDS = {
    "eval": ["eval", "mine.npz"],
    "export": ["export", "mine.npz", "out.onnx"],
    "predict": ["predict", "mine.npz", "pictures/ant"],
    "report": ["report", "run", "--out", "out"],
    "explain": ["explain", "run"],
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures, without the cache of its own; checkpoint and config name another one, which does not exist."""
    folder = tmp_path_factory.mktemp("trained")
    fill(folder / "pictures", 8)
    (folder / "config.yaml").write_text(CONFIG)
    before = Path.cwd()
    os.chdir(folder)
    done = run("train", "-q", "-c", "config.yaml", "--run-dir", "run")
    os.chdir(before)
    assert done.exit_code == 0, done.output
    shutil.rmtree(folder / "pictures" / ".cnnlite")
    for path in folder.glob("run/checkpoints/*.npz"):
        checkpoint = load_checkpoint(path)
        checkpoint.meta["config"]["data"]["dataset"]["folder"]["cache"] = "elsewhere/cache"
        save_checkpoint(path, checkpoint)
    text = (folder / "run" / "config.yaml").read_text()
    (folder / "run" / "config.yaml").write_text(text.replace("cache: null", "cache: elsewhere/cache"))
    shutil.copy(folder / "run" / "checkpoints" / "best.npz", folder / "mine.npz")
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("cached", ["elsewhere/cache", None])
def test_nothing_is_written_where_a_checkpoint_says(command: str, cached: str | None, here: Path) -> None:
    pytest.importorskip("onnx" if command == "export" else "matplotlib")
    for path in [*here.glob("run/checkpoints/*.npz"), here / "mine.npz"]:
        checkpoint = load_checkpoint(path)
        checkpoint.meta["config"]["data"]["dataset"]["folder"]["cache"] = cached
        save_checkpoint(path, checkpoint)
    before = files(here)
    done = run(*COMMANDS[command])
    assert done.exit_code == 0, done.output
    assert "noise" not in done.output
    assert "not those" not in done.output
    after = files(here)
    made = {path for path in after.keys() - before.keys() if "/out" not in path}
    assert (made, {path: after[path] for path in before}) == (set(), before)
    assert not (here / "elsewhere").exists()
    assert not (here / "pictures" / ".cnnlite").exists()
    assert not list((here.parent / "temporary").glob("*cnnlite*"))
    lines = (line.rpartition("/")[2] for line in done.stderr.splitlines())
    told = [line for line in lines if "pictures" in line and "reading" in line]
    assert told == ([] if command == "predict" else ["pictures: reading 16 pictures, for this time only"])


@pytest.mark.parametrize("command", ["eval", "export", "predict"])
@pytest.mark.parametrize("change", [{"size": 9}, {"channels": 1}, {"center_crop": 4}], ids=str)
def test_a_checkpoint_whose_config_has_other_images_is_refused(
    change: dict[str, int], command: str, here: Path
) -> None:
    checkpoint = load_checkpoint(here / "mine.npz")
    data = checkpoint.meta["config"]["data"]
    (data if "center_crop" in change else data["dataset"]["folder"]).update(change)
    save_checkpoint(here / "mine.npz", checkpoint)
    done = run(*COMMANDS[command])
    assert done.exit_code == 3, done.output
    assert "in_shape (8, 8, 3) is not that of the images of its config" in done.stderr


def test_an_evaluation_without_a_cache_has_the_figures_of_one_with_it(here: Path) -> None:
    found = [json.loads(run("eval", "mine.npz", "--json").stdout)]
    assert run("train", "-q", "-c", "run/config.yaml", "--run-dir", "again").exit_code == 0
    assert len(list(Path("elsewhere/cache").glob("*.images"))) == 1
    done = run("eval", "mine.npz", "--json")
    assert done.stderr == ""  # what the training keeps is read, wherever it is
    found.append(json.loads(done.stdout))
    assert found[0] == found[1]


def test_resuming_is_training_and_keeps_the_cache_where_the_config_of_the_run_says(here: Path) -> None:
    done = run("train", "-q", "--resume", "run", "--epochs", "2")
    assert done.exit_code == 0, done.output
    assert re.search("reading 16 pictures, once, into .*/elsewhere/cache/", done.stderr)
    assert len(list(Path("elsewhere/cache").glob("*.images"))) == 1


def test_classes_are_compared_before_pictures_are_decoded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnlite.data.datasets.pictures.read_pictures", lambda *_: pytest.fail("decoded"))
    fill(here / "private", 3, ("anna", "bert"))
    before = files(here)
    done = run("eval", "mine.npz", "--data", "private")
    told = "error: private: has other classes than the network was trained on: anna, bert, not ant, bee\n"
    assert (done.exit_code, done.stderr) == (3, told)
    assert files(here) == before


def test_a_full_disk_is_told_from_pictures_that_cannot_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_file, "digest", full)
    done = run("eval", "mine.npz")
    folder = here.parent / "temporary"
    way_out = "the variable TMPDIR names another folder"
    assert done.exit_code == 5
    assert done.stderr.splitlines()[-1] == f"error: {folder}: cannot write: No space left on device; {way_out}"


def test_a_folder_of_pictures_does_not_say_where_its_cache_goes(here: Path) -> None:
    Path("victim").mkdir()
    Path("pictures/.cnnlite").symlink_to(Path("victim").absolute())
    done = run("train", "-q", "-c", "config.yaml")
    assert done.exit_code == 5
    way_out = "-o data.dataset.folder.cache=DIR puts the cache elsewhere"
    assert done.stderr == f"error: pictures/.cnnlite: is a link; {way_out}\n"
    assert not list(Path("victim").iterdir())


@pytest.fixture
def forged(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same where checkpoints of eight numbers want images of 8000 x 8000 pixels."""
    monkeypatch.setattr("cnnlite.data.datasets.pictures.read_pictures", lambda *_: pytest.fail("decoded"))
    for path in [*here.glob("run/checkpoints/*.npz"), here / "mine.npz"]:
        checkpoint = load_checkpoint(path)
        arrays = {name: array for name, array in checkpoint.arrays.items() if name.startswith("normalize/")}
        arrays |= {"param/1.weight": np.ones((3, 2), np.float32), "param/1.bias": np.ones(2, np.float32)}
        meta = checkpoint.meta | {"in_shape": [8000, 8000, 3]}
        meta["config"]["data"]["dataset"]["folder"]["size"] = 8000
        meta["config"]["model"][0] = "global_avg_pool2d"
        save_checkpoint(path, Checkpoint(arrays, meta))
    (here / "run" / "config.yaml").write_text(yaml.safe_dump(meta["config"]))
    return here


@pytest.mark.parametrize("command", ["eval", "explain", "report"])
def test_images_that_a_checkpoint_wants_are_not_decoded_where_the_disk_has_no_room(
    command: str, forged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    done = run(*COMMANDS[command])
    told = "cannot write 16 images of 8000x8000 pixels: they take 3.1 GB, 1.0 GB are free; the variable TMPDIR names"
    assert told in done.output
    if command == "eval":
        assert (done.exit_code, len(done.stderr.splitlines())) == (5, 1)


@pytest.mark.parametrize("command", ["eval", "export", "predict"])
def test_images_that_a_checkpoint_wants_are_refused_where_memory_does_not_hold_one(
    command: str, forged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 7 * 10**8)
    done = run(*COMMANDS[command])
    assert (done.exit_code, len(done.stderr.splitlines())) == (3, 1)
    assert "an image would take 768.0 MB of memory; there are 700.0 MB" in done.stderr


def test_a_cache_is_not_begun_where_the_disk_has_no_room(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3071))
    done = run("train", "-q", "-c", "config.yaml")
    assert done.exit_code == 5
    assert re.search(r"16 images of 8x8 pixels: they take 3.1 kB, .*cache=DIR puts the cache elsewhere\n", done.stderr)
    assert [path.name for path in Path("pictures/.cnnlite").iterdir() if path.suffix != ".lock"] == []


NONSENSE: dict[str, list[Any]] = {
    "classes": [None, 3, ["a"], [["ant"], "bee"]],
    "listing": [None, 3],
    "gone": [None, "x", [1.5], [-1], [10**30], [0]],
    "skipped": [None, 3, [3], [["a"]], [["a", 3]]],
    "skipped_count": [None, "3"],
    "shape": [None, [], [8, 8], [8, 8, -3], [2**40, 2**40, 3], ["a"], 3],
    "train": [None, -1, 1.5, 10**30, "x"],
    "test": [None, 0, True],
    "digest": [None, 3, "x"],
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_in_a_cache_that_came_with_the_pictures_is_no_cache(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Folder(8).load(Path("pictures"))
    path = Folder(8).cache_path(Path("pictures"))
    whole = path.read_bytes()
    for value in [*NONSENSE[name], ...]:
        with open(path, "rb") as file:
            facts = cache_file._facts(file)
        facts.pop(name)
        if value is not ...:
            facts[name] = value
        path.write_bytes(resealed(whole, facts))
        capsys.readouterr()
        assert Folder(8).load(Path("pictures")).digest == first.digest
        assert "reading all pictures again" in capsys.readouterr().err


def resealed(whole: bytes, facts: dict[str, Any]) -> bytes:
    """The file with other facts, whose checksum is right."""
    _, length, magic = cache_file._FOOTER.unpack(whole[-cache_file._FOOTER.size :])
    text = json.dumps(facts).encode()
    body = whole[: -cache_file._FOOTER.size - length]
    return body + text + cache_file._FOOTER.pack(hashlib.sha256(text).digest(), len(text), magic)
