"""Folders that configs, options and variables name: of one's home with ``~``, and found from wherever one is."""

import json
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

import cnnlite
from cnnlite.cli import cli
from cnnlite.config.load import config_from_data, load_config, settled
from cnnlite.data import default_root
from cnnlite.errors import ConfigError
from cnnlite.utils.files import place
from tests.support.folders import fill
from tests.support.small_runs import TINY

pytestmark = pytest.mark.usefixtures("here")
FOLDER = ["-o", "data.dataset={folder: {size: 16, cache: cache}}", "-o", "model.6.linear.out_features=3"]
FOLDER += ["-o", "train.batch_size=8", "-o", "data.validation=default"]
CLASSES = ("ant", "bee", "cow")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, outside of the current folder, with pictures in it."""
    home = tmp_path_factory.mktemp("home")
    fill(home / "pics", 20, CLASSES)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    return home


def test_a_tilde_is_the_home_and_an_unknown_one_is_refused_with_the_way_out(home: Path) -> None:
    assert place("~") == str(home)
    assert place("~/pics") == str(home / "pics")
    assert place("a/~/b") == "a/~/b"
    assert place("./~") == "./~"
    with pytest.raises(ValueError, match=r"the home folder ~nobody-here is not known; .* is written \./~nobody-here/x"):
        place("~nobody-here/x")


def test_no_option_variable_or_config_makes_a_folder_called_tilde(
    home: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["-c", "tiny.yaml", "-q", *FOLDER, "--epochs", "1"]
    ways = {
        "data.root": ["-o", "data.root=~/pics", "-o", "data.dataset.folder.cache=~/cache"],
        "--data": ["--data=~/pics", "-o", "data.dataset.folder.cache=~/cache2"],
    }
    for name, way in ways.items():
        done = run("train", *small, *way, f"--run-dir=~/{name}")
        assert done.exit_code == 0, done.output
        assert (home / name / "result.json").exists()
        kept = yaml.safe_load((home / name / "config.yaml").read_text(encoding="utf-8"))["data"]
        assert kept["root"] == str(home / "pics")
    assert {path.name for path in home.iterdir()} == {"pics", "cache", "cache2", *ways}
    for command in (
        ["eval", "~/--data"],
        ["explain", "~/--data"],
        ["train", "--resume=~/--data", "--epochs=2", "-q"],
        ["export", "~/--data/checkpoints/best.npz", "~/net.onnx"],
        ["configs", "copy", "small", "~/mine.yaml"],
        ["validate", "~/mine.yaml"],
    ):
        done = run(*command)
        assert done.exit_code == 0, (command, done.output)
    assert (home / "net.onnx").exists()
    monkeypatch.setenv("CNNLITE_DATA", "~/pics")
    assert default_root() == home / "pics"
    made = cnnlite.train("~/mine.yaml", overrides=["data.dataset=shapes"], run_dir="~/api", epochs=0.01, quiet=True)
    assert made.run == home / "api"
    assert cnnlite.load("~/api").classes
    (home / "model.yaml").write_text("[flatten, {linear: {out_features: 10}}]")
    data = {**yaml.safe_load(TINY), "model": "~/model.yaml"}
    assert len(load_config(data).resolved["model"]) == 2
    assert os.listdir(here) == ["tiny.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "data.root=~nobody-here/x"],
        ["-o", "data.dataset={folder: {size: 16, cache: ~nobody-here/x}}"],
        ["--data=~nobody-here/x"],
        ["--run-dir=~nobody-here/x"],
        ["-o", "model=~nobody-here/x.yaml"],
    ],
)
def test_an_unknown_home_is_one_line(arguments: list[str], here: Path) -> None:
    done = run("train", "-c", "tiny.yaml", *arguments)
    assert (done.exit_code, "the home folder ~nobody-here is not known" in done.stderr) == (2, True), done.stderr
    assert os.listdir(here) == ["tiny.yaml"]


def test_an_unknown_home_in_the_variable_or_a_program_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nobody-here"):
        cnnlite.load("~nobody-here/x")
    monkeypatch.setenv("CNNLITE_DATA", "~nobody-here/x")
    with pytest.raises(ConfigError, match="CNNLITE_DATA: the home folder"):
        default_root()
    refused = run("validate", "tiny.yaml")
    assert (refused.exit_code, "CNNLITE_DATA: the home folder" in refused.stderr) == (2, True)


@pytest.mark.long
def test_a_run_finds_its_data_wherever_it_is_gone_on_with(
    home: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, other = here / "project", here / "somewhere/else"
    fill(project / "pics", 20, CLASSES)
    other.mkdir(parents=True)
    monkeypatch.chdir(project)
    small = ["-c", "../tiny.yaml", *FOLDER, "--data", "pics"]
    done = run("train", "-q", *small, "--epochs", "1", "--run-dir", "run")
    assert done.exit_code == 0, done.output
    cached = sorted(path.name for path in (project / "cache").iterdir())
    accuracy = json.loads((project / "run/result.json").read_text())["test_accuracy"]
    for folder, name in ((other, "../../project/run"), (project, "run"), (project / "run", "."), (here, "project/run")):
        monkeypatch.chdir(folder)
        found = run("eval", name, "--json")
        assert (found.exit_code, json.loads(found.stdout)["accuracy"]) == (0, accuracy), found.output
        for command in (["explain", name], ["report", name, "--out", str(home / "page"), "--force"]):
            done = run(*command)
            assert (done.exit_code, "left out: class by class" in done.stderr) == (0, False), done.output
        done = run("export", name, str(home / "net.onnx"), "--force")
        assert (done.exit_code, "noise" in done.stdout) == (0, False), done.output
    epochs = 2
    for folder, name, more in (
        (other, "../../project/run", []),
        (other, "../../project/run", ["--data", "../../project/pics"]),
        (project, "run", []),
        (here, "project/run", ["--data", "project/pics"]),
        (other, "../../project/run", []),
    ):
        monkeypatch.chdir(folder)
        done = run("train", "--resume", name, "--epochs", str(epochs), *more)
        assert done.exit_code == 0, (folder, more, done.output)
        assert "data.root" not in done.stderr
        epochs += 1
    assert sorted(path.name for path in (project / "cache").iterdir()) == cached
    assert sorted(os.listdir(other)) == []


def test_data_that_moved_are_found_again_for_good_once_they_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(here / "pics", 20, CLASSES)
    small = ["-c", "tiny.yaml", *FOLDER, "--data", "pics"]
    assert run("train", "-q", *small, "--epochs", "1", "--run-dir", "run").exit_code == 0
    (here / "deep").mkdir()
    (here / "pics").rename(here / "deep/moved")
    (here / "cache").rename(here / "deep/cache")
    monkeypatch.chdir(here / "deep")
    lost = run("train", "--resume", "../run", "--epochs", "2")
    assert (lost.exit_code, "--data" in lost.stderr) == (3, True), lost.output
    places = ["--data", "moved", "-o", "data.dataset.folder.cache=cache"]
    assert run("train", "--resume", "../run", "--epochs", "2", *places).exit_code == 0
    monkeypatch.chdir(here)
    again = run("train", "--resume", "run", "--epochs", "3")
    assert again.exit_code == 0, again.output
    assert not (here / "cache").exists()


def test_a_place_through_names_that_are_no_text_stays_as_it_was_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from_data(yaml.safe_load(TINY))
    assert settled(config).data.root == str(here / "data") == settled(config).resolved["data"]["root"]
    monkeypatch.setattr(os.path, "abspath", lambda path: f"/gr\udcc3\udcb6\udcc3\udc9fe/{path}")
    assert settled(config).data.root == "data"
