"""The race trains the same network as PyTorch does: the same losses, step by step; skipped where PyTorch is missing."""

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest

from cnnlite.config.load import Config, config_from_data, load_config

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the script."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("race_vs_torch")


def narrow(**train: Any) -> Config:
    """The recipe on drawn shapes with few channels; its whitening rests after two of five steps."""
    resolved = copy.deepcopy(load_config("speedrun-94").resolved)
    resolved["data"] |= {"dataset": {"shapes": {"train_images": 100, "test_images": 60}}}
    for entry in resolved["model"]:
        if isinstance(entry, dict) and "conv2d" in entry:
            entry["conv2d"]["out_channels"] //= 8
    resolved["model"][0]["whitening_conv2d"]["images"] = 20
    resolved["train"]["optimizer"]["composite"]["members"][0]["epochs"] = 0.4
    resolved["train"] |= {"epochs": 1, "batch_size": 20, **train}
    return config_from_data(resolved, "narrow")


@pytest.mark.parametrize("variant", ["default", "channels_last"])
def test_both_make_the_same_training(variant: str, script: Any) -> None:
    race = script.race(narrow(), None, variant, None, 1)
    ours, theirs = race.losses
    assert race.steps == len(ours) == len(theirs) == 5
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert abs(ours[0] - ours[-1]) > 0.02
    assert race.accuracies[0] == pytest.approx(race.accuracies[1], abs=0.04)
    lines = list(race.describe())
    assert lines[0].startswith("cnnlite: 5 steps in ")
    assert lines[2].startswith("PyTorch / cnnlite: ")


@pytest.mark.parametrize(
    ("option", "value"), [("nesterov", False), ("normalize_weights", False), ("weight_decay", 0.1)]
)
def test_an_optimizer_without_a_twin_is_refused(option: str, value: object, script: Any) -> None:
    with pytest.raises(TypeError, match="not for AdamW"):
        script.race(narrow(optimizer={"adamw": {"lr": 0.01}}), None, "default", 1, 1)
    optimizer = narrow().resolved["train"]["optimizer"]
    optimizer["composite"]["members"][-1]["optimizer"]["muon"][option] = value
    with pytest.raises(TypeError, match="a twin for muon with nesterov"):
        script.race(narrow(optimizer=optimizer), None, "default", 1, 1)
