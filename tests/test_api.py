"""`import cnnlite` for programs: cheap, and with the same results as the commands."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import cnnlite
from cnnlite.errors import CheckpointError, CnnliteError, ConfigError, DataError
from cnnlite.runs.restore import load_data
from cnnlite.runtime import engine
from cnnlite.training.evaluation import evaluate_checkpoint
from tests.project.test_packaging import run_python
from tests.support.small_runs import TINY, assert_same_run, figures, tiny, trained

CONFIG = yaml.safe_load(TINY)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_importing_it_loads_neither_numpy_nor_any_room(here: Path) -> None:
    code = (
        "import sys, cnnlite; print([m for m in sys.modules if m.startswith(('numpy', 'cnnlite.', 'click', 'yaml'))]);"
        "from cnnlite import load; print('numpy' in sys.modules, load.__module__)"
    )
    done = run_python("-c", code, folder=here)
    assert done.stdout.splitlines() == ["[]", "True cnnlite.api"]


def test_it_offers_these_names_and_no_others() -> None:
    assert sorted(cnnlite.__all__) == ["__version__", "load", "train"]
    assert all(hasattr(cnnlite, name) for name in cnnlite.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = cnnlite.trian  # type: ignore[attr-defined]


def test_training_is_that_of_the_command(here: Path) -> None:
    data = copy.deepcopy(CONFIG)
    found = cnnlite.train(data, epochs=2, seed=5, run_dir="here", workers=1, quiet=True)
    assert data == CONFIG
    assert found.run == Path("here")
    assert found.checkpoint.is_file()
    (here / "config.yaml").write_text(TINY)
    command = ["train", "-c", "config.yaml", "--epochs", "2", "--seed", "5", "--run-dir", "there", "-q"]
    assert run_python("-m", "cnnlite", *command, folder=here).returncode == 0
    assert_same_run(Path("here"), Path("there"))
    assert figures(Path("here"))[1]["test_accuracy"] == found.test_accuracy
    assert json.loads(Path("here/result.json").read_text()).keys() == vars(found).keys() - {"run"}


def test_files_and_bundled_names_are_configs_too(here: Path) -> None:
    (here / "mine.yaml").write_text(TINY)
    first = cnnlite.train(here / "mine.yaml", overrides=["train.epochs=1"], quiet=True)
    assert first.run == Path("runs/mine")
    small = ["data.dataset.shapes.train_images=60", "data.dataset.shapes.test_images=20", "train.epochs=0.1"]
    assert cnnlite.train("quickstart", overrides=small, quiet=True).run == Path("runs/quickstart")


def test_a_budget_decides_how_many_steps_there_are() -> None:
    with pytest.raises(ConfigError, match="not even a step and the test fit into it"):
        cnnlite.train(CONFIG, budget=1e-6, quiet=True)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"budget": 0}, "not a number of seconds above 0"),
        ({"budget": float("nan")}, "not a number of seconds above 0"),
        ({"budget": 60, "epochs": 1}, "budget decides the number of epochs: leave out epochs"),
        ({"budget": 60, "resume": "runs/small"}, "a resumed run keeps its number of steps: leave out budget"),
        ({"run_dir": "other", "resume": "runs/small"}, "resume goes on in its own directory: leave out run_dir"),
    ],
)
def test_arguments_that_cannot_be_are_refused(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cnnlite.train(CONFIG, **wishes)
    assert not Path("runs").exists()


def test_figures_for_tensorboard_are_written_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"cnnlite\[tensorboard\]"):
        cnnlite.train(CONFIG, tensorboard=True, quiet=True)


def test_a_run_can_be_resumed() -> None:
    cnnlite.train(CONFIG, epochs=1, run_dir="run", quiet=True)
    assert cnnlite.train(resume="run", epochs=2, quiet=True).epochs == 2


def test_a_loaded_checkpoint_predicts(here: Path) -> None:
    path = trained(here / "run", tiny(epochs=1))
    images = load_data(tiny()).test
    for given in (path, str(path)):
        model = cnnlite.load(given)
        probabilities = model.predict(images.images)
        accuracy = (probabilities.argmax(axis=1) == images.labels).mean()
        assert accuracy == evaluate_checkpoint(path, "test")[0].accuracy
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert len(model.classes) == probabilities.shape[1]


def test_threads_are_one_per_core_unless_told() -> None:
    for threads, expected in ((3, 3), (None, engine.available_cores())):
        with pytest.raises(CheckpointError):
            cnnlite.load("missing.npz", workers=threads)
        assert engine.threads() == expected
        with pytest.raises(ConfigError):
            cnnlite.train("missing.yaml", workers=threads)
        assert engine.threads() == expected


def test_errors_are_those_of_the_command() -> None:
    with pytest.raises(ConfigError, match=r"train\.epoch: unknown option; did you mean 'epochs'"):
        cnnlite.train({**CONFIG, "train": {**CONFIG["train"], "epoch": 3}})
    with pytest.raises(ConfigError, match="nothing to train"):
        cnnlite.train()
    with pytest.raises(DataError, match="download-cifar"):
        cnnlite.train(CONFIG, overrides=["data.dataset=cifar10"], data="nowhere")
    assert not Path("runs").exists()


def test_errors_advise_what_to_write_in_python() -> None:
    cnnlite.train(CONFIG, epochs=1, run_dir="my run", quiet=True)
    hints = {
        r"give config \(see `cnnlite configs list`\) or resume": {},
        "continue that run with resume='my run', or name another run_dir": {"config": CONFIG, "run_dir": "my run"},
        "leave out config and overrides, or start a new run without resume": {"config": "small", "resume": "my run"},
        "resume takes a run": {"resume": "my run/log.txt"},
        "^seed=x: seed: expected": {"config": CONFIG, "overrides": ["seed=x"]},
        r"name its folder with data, or get it with `cnnlite download-cifar` \(cifar10 into nowhere\)": {
            "config": "small",
            "data": "nowhere",
        },
    }
    for hint, wishes in hints.items():
        with pytest.raises(CnnliteError, match=hint):
            cnnlite.train(**wishes, quiet=True)


def test_an_interrupt_in_a_notebook_ends_training_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnlite.nn.network import Network

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Network, "backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cnnlite.train(CONFIG, quiet=True)
    assert not Path("runs").exists()


def test_fewer_threads_than_asked_for_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "set_threads", lambda count: "only 1 of 2 threads")
    trained = cnnlite.train(CONFIG, epochs=1, quiet=True)
    assert capsys.readouterr().err == "warning: only 1 of 2 threads\n"
    with pytest.warns(RuntimeWarning, match="only 1 of 2 threads"):
        cnnlite.load(trained.checkpoint)
