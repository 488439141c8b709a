import dataclasses
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.errors import CnnliteError
from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.network import Network
from cnnlite.optim import Optimizer
from cnnlite.runs.restore import load_data
from cnnlite.tools.verify_resume import verify
from cnnlite.utils.signals import StopFlag, Stopped
from tests.support.small_runs import TINY, tiny


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def verified(**train: Any) -> str:
    return verify(tiny(**train), load_data(tiny()), 8, StopFlag())


def test_interrupted_runs_end_with_the_same_bits_and_leave_nothing(temporary: Path) -> None:
    text = verified()
    assert "8 steps, stopped" in text
    assert "same bits" in text
    assert os.listdir(temporary) == []


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}, "schedule": "one_cycle"},
        {"optimizer": {"adamw": {"lr": 0.01}}, "clip_norm": 0.1, "averaging": {"lookahead": {"steps": 3}}},
        {"batch_size": 106, "schedule": {"step": {"every": 1}}, "averaging": {"ema": {"decay": 0.9}}},
    ],
)
def test_other_optimizers_schedules_and_sizes_resume_too(train: dict[str, Any]) -> None:
    assert "same bits" in verified(**train)


def test_without_validation_the_runs_agree_too() -> None:
    config = config_from_data({**tiny().resolved, "data": {**tiny().resolved["data"], "validation": "none"}})
    assert "same bits" in verify(config, load_data(config), 5, StopFlag())


def test_state_that_is_not_saved_is_noticed(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    state = Optimizer.state
    monkeypatch.setattr(Optimizer, "state", lambda self: {n: a for n, a in state(self).items() if n[0] == "m"})
    with pytest.raises(CnnliteError, match=r"stopped and resumed.* param/0\.bias .*metrics\.csv"):
        verified()
    assert os.listdir(temporary) == []


def test_draws_that_depend_on_the_past_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Dropout, x: Any, context: Context) -> Any:
        self.calls = getattr(self, "calls", 0) + 1  # type: ignore[attr-defined]
        return before(self, x, dataclasses.replace(context, step=self.calls))  # type: ignore[attr-defined]

    before = Dropout.forward
    monkeypatch.setattr(Dropout, "forward", forward)
    with pytest.raises(CnnliteError, match="other bits in"):
        verified()


def test_a_signal_of_the_user_ends_it(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    stop, forward, calls = StopFlag(), Network.forward, []

    def interrupted(self: Network, x: Any, *, training: bool, step: int = 0) -> Any:
        calls.append(step)
        if len(calls) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        assert len(calls) < 25, "it went on"
        return forward(self, x, training=training, step=step)

    monkeypatch.setattr(Network, "forward", interrupted)
    ctrl_c = signal.getsignal(signal.SIGINT)
    with stop.installed(), pytest.raises(Stopped):
        verify(tiny(), load_data(tiny()), 8, stop)
    signal.signal(signal.SIGINT, ctrl_c)  # ignored by then, as a command would end here
    assert os.listdir(temporary) == []


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["verify-resume", *arguments])


def test_the_command_prints_one_line_and_has_exit_codes(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(temporary)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    result = command("tiny.yaml", "-o", "train.epochs=50", "--steps", "3", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("tiny.yaml: 3 steps, stopped ")
    assert len(result.output.splitlines()) == 1
    missing = command("tiny.yaml", "-o", "data.dataset=cifar10", "--data", "nowhere")
    assert (missing.exit_code, "nowhere" in missing.stderr) == (3, True)
    assert command("tiny.yaml", "--steps", "1").exit_code == 2

    draw = np.random.default_rng()
    forward = Network.forward
    monkeypatch.setattr(Network, "forward", lambda *a, **k: forward(*a, **k) + draw.normal(scale=1e-3))
    different = command("tiny.yaml")
    assert different.exit_code == 1
    assert "other bits" in different.stderr
    assert os.listdir() == ["tiny.yaml"]


def test_the_short_run_has_no_batch_of_one_that_the_whole_has_not() -> None:
    flat = ["flatten", {"linear": {"out_features": 4}}, "batch_norm", {"linear": {"out_features": 10}}]
    config = config_from_data({**tiny(batch_size=2).resolved, "model": flat})
    assert "same bits" in verify(config, load_data(config), 4, StopFlag())
