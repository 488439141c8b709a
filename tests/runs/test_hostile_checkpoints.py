"""Checkpoints that are whole, with the right checksum, but written by an unfriendly hand."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import render
from cnnlite.errors import CheckpointError, DamagedError
from cnnlite.nn.layers.base import Layer
from cnnlite.runs.checkpoint import Checkpoint, CheckpointFile, load_checkpoint, save_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import check_run, load_data, load_network
from cnnlite.tools.predict import Model
from cnnlite.tools.report.record import load_trained, read_record
from cnnlite.training.evaluation import evaluate_checkpoint
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from tests.support.small_runs import tiny


@contextlib.contextmanager
def unfit(words: str) -> Iterator[None]:
    """Expect a refusal with these words of a file that is whole."""
    with pytest.raises(CheckpointError, match=words) as caught:
        yield
    assert not isinstance(caught.value, DamagedError)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = RunDirectory.create_at(tmp_path_factory.mktemp("trained"))
    config = tiny(epochs=1)
    train(config, run, dataset=load_data(config), reporter=Reporter(quiet=True), stop=StopFlag())
    run.write_text("config.yaml", render(config))
    run.close()
    return run.path


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


NONSENSE: dict[str, Any] = {
    "a list": [1],
    "text": "32",
    "a number": 7,
    "nothing": None,
    "deep": deep(600),
    "numbers as text": {"digest": [], "step": "3", "loss": {"total": "1", "count": "2"}},
}
FACTS = {
    "eval": ("config", "classes", "in_shape", "dataset"),
    "predict": ("config", "classes", "in_shape"),
    "resume": ("config", "classes", "in_shape", "dataset", "progress", "versions"),
}


@pytest.mark.parametrize("kind", NONSENSE)
@pytest.mark.parametrize("command", FACTS)
def test_nonsense_in_place_of_a_fact_ends_in_a_line(
    command: str, kind: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = load_checkpoint(trained / "checkpoints/last.npz")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    path = run / "checkpoints" / "last.npz"
    arguments = {
        "eval": ["eval", str(path)],
        "predict": ["predict", str(path), "a.png"],
        "resume": ["train", "--quiet", "--resume", "run", "--epochs", "2"],
    }[command]
    for fact in FACTS[command]:
        meta = dict(checkpoint.meta)
        if kind == "nothing":
            del meta[fact]
        else:
            meta[fact] = NONSENSE[kind]
        save_checkpoint(path, Checkpoint(checkpoint.arrays, meta))
        done = CliRunner().invoke(cli, arguments)
        if (fact, kind, done.exit_code) == ("dataset", "numbers as text", 0):
            continue  # only a warning that the images are others
        assert done.exit_code == 3, (fact, done.output)
        assert len(done.output.splitlines()) <= 2
        assert path.exists()  # whole, so not set aside


@pytest.mark.parametrize(
    "read",
    [
        evaluate_checkpoint,
        load_network,
        Model.load,
        lambda path, _="": load_checkpoint(path, check_run(path)),
        lambda path, _="": load_trained(read_record(path.parent.parent)),
    ],
    ids=["eval", "export", "predict", "resume", "report"],
)
def test_arrays_that_do_not_fit_are_not_read(
    read: Callable[..., Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(trained / "checkpoints/best.npz")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    path = tmp_path / "checkpoints" / "best.npz"
    checkpoint.arrays["param/0.weight"] = np.zeros((5, 5), np.float32)
    save_checkpoint(path, checkpoint)
    monkeypatch.delattr(CheckpointFile, "read")
    with unfit(r"0\.weight has shape"):
        read(path, "test") if read is evaluate_checkpoint else read(path)


def test_state_of_another_optimizer_is_refused_before_it_is_read(trained: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained / "checkpoints/last.npz")
    checkpoint.arrays["optimizer/moment/0.weight"] = np.zeros(3, np.float32)
    path = tmp_path / "a.npz"
    save_checkpoint(path, checkpoint)
    with unfit(r"moment/0\.weight is not in the optimizer"):
        load_checkpoint(path, check_run(path))
    load_network(path)  # which needs none of it


def test_a_network_with_more_parameters_than_the_file_is_not_built(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(trained / "checkpoints/last.npz")
    checkpoint.meta["config"]["model"][-1]["linear"]["out_features"] = 10**6
    path = tmp_path / "a.npz"
    save_checkpoint(path, checkpoint)
    monkeypatch.delattr(Layer, "allocate")
    with unfit(r"numbers for .* parameters"):
        load_network(path)


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\x03\x04")
    os.truncate(path, 50 * 10**9)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
