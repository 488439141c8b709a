"""YAML becomes settings, with defaults, checks, and a rendering that reads back as the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnlite.config.construct import construct
from cnnlite.config.load import (
    Config,
    config_from_data,
    load_config,
    render,
)
from cnnlite.config.problem_list import Problems
from cnnlite.config.settings import Interval, interval, steps_between
from cnnlite.config.yaml_reader import read_yaml
from cnnlite.data import sources, transforms
from cnnlite.data.datasets.shapes import Shapes
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.losses import losses
from cnnlite.nn.network import Network
from cnnlite.optim import optimizers
from cnnlite.optim.schedules import schedules
from tests.support.config_parts import FULL, SHORT, faults, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "full.yaml"
    path.write_text(FULL)
    return path


def test_reads_a_full_config(file: Path) -> None:
    config = load_config(file)
    assert config.name == "full"
    assert config.seed == 3
    assert isinstance(config.data.dataset, Shapes)
    assert [type(transform).__name__ for transform in config.data.augment] == ["RandomFlip", "RandomCrop"]
    assert isinstance(config.model, Sequential)
    assert [layer.path for layer in config.model.layers][:2] == ["model[0].conv2d", "model[1].batch_norm"]
    assert config.train.optimizer.path == "train.optimizer.sgd"
    assert (config.train.epochs, config.train.iterations, config.train.batch_size) == (3.0, None, 16)
    assert config.train.validate_every == 500
    assert config.train.checkpoint_every == "1 epoch"


def test_left_out_settings_have_the_documented_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNLITE_DATA", raising=False)
    config = load(tmp_path / "short.yaml", SHORT)
    assert config.resolved["data"] == {
        "dataset": {"shapes": {"train_images": 6000, "test_images": 1000, "seed": 0}},
        "root": "data",
        "normalize": "per_channel",
        "sampling": "shuffled",
        "augment": [],
        "mix": None,
        "validation": "default",
        "center_crop": None,
        "drop_last": False,
    }
    train = config.resolved["train"]
    assert train["loss"] == {"cross_entropy": {"label_smoothing": 0.0, "class_weights": None}}
    assert list(train["schedule"]) == ["constant"]
    assert (train["batch_size"], train["clip_norm"]) == (64, None)
    assert train["validate_every"] == train["checkpoint_every"] == "1 epoch"
    assert (train["tta"], train["monitor"]) == ("none", "accuracy")
    assert config.resolved["seed"] == 0


def test_the_environment_names_the_default_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLITE_DATA", "/elsewhere")
    assert load(tmp_path / "a.yaml", SHORT).data.root == "/elsewhere"


def test_the_resolved_config_gives_the_same_config_as_data_json_and_yaml(file: Path, tmp_path: Path) -> None:
    config = load_config(file)
    again = config_from_data(json.loads(json.dumps(config.resolved)), "full")
    assert again.resolved == config.resolved
    assert again.name == "full"
    (tmp_path / "resolved.yaml").write_text(render(config), encoding="utf-8")
    third = load_config(tmp_path / "resolved.yaml")
    assert third.resolved == config.resolved
    assert render(third) == render(config)
    before, after = (Network(c.model, (8, 8, 3), seed=1, classes=10) for c in (config, third))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    assert np.array_equal(before.forward(x, training=False), after.forward(x, training=False))


TRAPS = st.sampled_from(["08", "1e-3", "on", "null", "0o7", "1_0", "~", ".inf", "<<", "=", "- a", "#", "\x85"])

TEXTS = st.text(max_size=6) | st.text("ab \n\t'", min_size=100, max_size=300) | TRAPS


@settings(max_examples=300, deadline=None)
@example(["\x85", "a\u2028b", "\ufeff", "08", "1e-3", " a", "a: b"])
@given(st.recursive(TEXTS, st.lists, max_leaves=5))
def test_rendered_text_reads_back_as_the_same_text(value: Any) -> None:
    config = Config(None, None, None, resolved={"value": value})  # type: ignore[arg-type]
    if any(character in json.dumps(value) for character in ("\\ud", "\\u0000")):
        return
    assert read_yaml(render(config)).data == {"value": value}


def test_defaults_of_everything_registered_can_be_written_in_a_config() -> None:
    for registry in (layers, losses, optimizers, schedules, sources, transforms):
        for name in registry:
            problems = Problems()
            construct(registry.base, name, (), problems)
            # All that may be wrong with a bare name is that options are missing: every default is a valid value.
            assert all("is missing" in problem.message or "give" in problem.message for problem in problems.found), [
                str(problem) for problem in problems.found
            ]


def test_every_mistake_is_found_at_once(tmp_path: Path) -> None:
    text = """\
seed: -1
data:
  dataset: cifar11
  normalise: per_pixel
  augment:
    - random_flop
    - random_crop:
      padding: 4
model:
  - conv2d: {out_channels: 0, kernel_size: 3}
  - relu: {slope: 1}
  - linear: {out_features: ten}
  - dropout: {p: 1.5}
train:
  epochs: 08
  lr: 0.1
  batch_size: 2.5
  batch_size: 3
  optimizer: {sgd: {lr: "0.1"}}
  loss: {cross_entropy: {label_smoothing: .nan}}
  schedule: cosin
momentum: 0.9
"""
    found = faults(tmp_path / "a.yaml", text)
    for expected in (
        "a.yaml:1: seed: must be at least 0, not -1",
        "a.yaml:3: data.dataset: unknown dataset 'cifar11'; did you mean 'cifar10'?",
        "a.yaml:4: data.normalise: unknown option; did you mean 'normalize'?",
        "a.yaml:6: data.augment[0]: unknown augmentation 'random_flop'; did you mean",
        "a.yaml:7: data.augment[1]: expected an augmentation (its name, or {name: {option: value}}), got a mapping with"
        " random_crop, padding; indent padding below random_crop",
        "a.yaml:10: model[0].conv2d.out_channels: out_channels must be at least 1, not 0",
        "a.yaml:11: model[1].relu.slope: unknown option; there are none here",
        "a.yaml:12: model[2].linear.out_features: expected a whole number, got the text 'ten'",
        "a.yaml:13: model[3].dropout",
        "a.yaml:15: train.epochs: 08 starts with 0",
        "a.yaml:16: train.lr: unknown option; it belongs at train.optimizer, among the options of adam, adamw, muon,",
        "a.yaml:17: train.batch_size: expected a whole number, got 2.5",
        "a.yaml:18: train: the key 'batch_size' stands here twice, first in line 17",
        "a.yaml:19: train.optimizer.sgd.lr: expected a number, got the text '0.1'; write it without quotes",
        "a.yaml:20: train.loss.cross_entropy.label_smoothing: expected a finite number, got nan",
        "a.yaml:21: train.schedule: unknown schedule 'cosin'; did you mean 'cosine'?",
        "a.yaml:22: momentum: unknown option; it belongs at train.optimizer",
    ):
        assert any(line.startswith(expected) for line in found), expected
    assert len(found) == 17
    lines = [int(line.split(":")[1]) for line in found]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lr: 1e-1", "lr: -0.1", "optimizer.sgd.lr: "),
        ("lr: 1e-1", "lr: 0", "optimizer.sgd.lr: "),
        ("lr: 1e-1", "lr: true", "optimizer.sgd.lr: expected a number, got true"),
        ("lr: 1e-1", "lr: null", "optimizer.sgd.lr: expected a number, got nothing (null)"),
        ("lr: 1e-1", "lr: '1e-1'", "optimizer.sgd.lr: expected a number, got the text '1e-1'; write it without quotes"),
        ("lr: 1e-1", "lr: .inf", "optimizer.sgd.lr: expected a finite number"),
        ("lr: 1e-1", "lr: 1e400", "optimizer.sgd.lr: 1e400 is too large"),
        ("lr: 1e-1, ", "", "optimizer.sgd: the option 'lr' is missing; add lr: a number"),
        ("match: bias", "match: '('", "optimizer.sgd.groups[0]: match: '(' is not a regular expression"),
        ("match: bias", r"match: '(bias)\1'", "can be used: groupref is not known here"),
        ("match: bias", "match: 'a{99999999999}'", "can be used: the repetition number is too large"),
        ("epochs: 3", "epochs: 1.7e308", "train.epochs: must be at most 1e12, not 1.7e+308"),
        ("warmup_epochs: 2", "warmup_epochs: 1.7e308", "warmup_epochs 1.7e+308 is not in [0, 1e+09]"),
        ("{cosine: {warmup_epochs: 2}}", "{step: {every: 1e-308}}", "train.schedule.step: give either milestones"),
        ("dataset: shapes", "dataset: {shapes: {train_images: 1000001}}", "must be at most 1,000,000"),
        ("lr: 0.2", "lr: .nan", "optimizer.sgd.groups[0].lr: expected a finite number"),
        ("lr: 0.2", "nestrov: 1", "sgd.groups[0]: unknown option 'nestrov'; did you mean 'nesterov'?"),
        ("batch_size: 16", "batch_size: 0", "train.batch_size: must be above 0, not 0"),
        ("batch_size: 16", "batch_size: -1", "train.batch_size: must be above 0, not -1"),
        ("batch_size: 16", "batch_size: 2.5", "train.batch_size: expected a whole number, got 2.5"),
        ("batch_size: 16", "batch_size: true", "train.batch_size: expected a whole number, got true"),
        ("batch_size: 16", "batch_size: 1" + 5000 * "0", "does not fit in 64 bits (5001 characters)"),
        ("epochs: 3", "epochs: 0", "train.epochs: must be above 0"),
        ("epochs: 3", "epochs: 2026-01-01", "train.epochs: expected a number or null, got the text '2026-01-01'"),
        ("epochs: 3", "epochs: 3\n  iterations: 4", "train.iterations: there are epochs too"),
        ("epochs: 3", "clip_norm: 3", "train: expected one of epochs and iterations, got neither"),
        ("epochs: 3", "epochs: 3\n  clip_norm: 0", "train.clip_norm: must be above 0, not 0"),
        ("seed: 3", "seed: 1.5", "seed: expected a whole number"),
        ("seed: 3", "batch_size: 3", "batch_size: unknown option; it belongs at train.batch_size"),
        ("seed: 3", "augment: []", "augment: unknown option; it belongs at data.augment"),
        ("epochs: 3", "epochs: 3\n  seed: 3", "train.seed: unknown option; it belongs at the top, beside 'model'"),
        ("validate_every: 500", "validate_every: 0", "train.validate_every: expected a number of steps"),
        ("validate_every: 500", "validate_every: often", "or text such as '1 epoch', above 0, got the text 'often'"),
        ("validate_every: 500", "validate_every: 1.5", "train.validate_every: expected a number of steps"),
        ("dataset: shapes", "dataset: shapes\n  validation: 1.5", "data.validation: fraction 1.5 is not in (0, 1)"),
        ("dataset: shapes", "dataset: shapes\n  validation: 0", "data.validation: must be at least 1 image, not 0"),
        (
            "dataset: shapes",
            "dataset: shapes\n  validation: nine",
            "data.validation: expected default or none, a number of images",
        ),
        ("dataset: shapes", "dataset: shapes\n  validation: null", "data.validation: expected default or none"),
        ("dataset: shapes", "dataset: shapes\n  center_crop: 0", "data.center_crop: must be above 0, not 0"),
        ("dataset: shapes", "dataset: shapes\n  center_crop: 33", "data.center_crop: cannot take the centre 33x33 of"),
        ("dataset: shapes", "root: x", "data: the option 'dataset' is missing; add dataset: a dataset (its name"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in FULL
    found = faults(tmp_path / "a.yaml", FULL.replace(old, new, 1))
    assert len(found) == 1
    assert words in found[0]
    assert found[0].startswith("a.yaml:")
    assert len(found[0]) < 250


@pytest.mark.parametrize("text", ["0.25", "500", "none", "default"])
def test_validation_is_a_fraction_a_count_or_a_word(tmp_path: Path, text: str) -> None:
    config = load(tmp_path / "a.yaml", SHORT, f"data.validation={text}")
    assert str(config.data.validation) == text
    assert type(config.resolved["data"]["validation"]) is type(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a.yaml:1: the file is empty; a config has the keys model, data, train, seed"),
        ("# nothing", "the file is empty"),
        ("- relu\n", "got a list; a list of layers belongs below the key 'model'"),
        ("train", "a.yaml:1: expected the keys model, data, train, seed, plugins, got the text 'train'"),
        ("!!python/none x", "the tag"),
        ("{}", "the option 'model' is missing"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, words: str) -> None:
    assert words in faults(tmp_path / "a.yaml", text)[0]


@pytest.mark.parametrize(
    ("value", "steps", "written"),
    [
        (500, 500, 500),
        ("500 steps", 500, 500),
        ("1 step", 1, 1),
        ("1 epoch", 40, "1 epoch"),
        ("2 epochs", 80, "2 epochs"),
        ("0.5 epochs", 20, "0.5 epochs"),
        ("0.001 epochs", 1, "0.001 epochs"),
        ("0.000000001 epochs", 1, "0.000000001 epochs"),
        ("10 epochs", 400, "10 epochs"),
    ],
)
def test_intervals(value: Any, steps: int, written: Any) -> None:
    assert steps_between(value, 40) == steps
    assert type(steps_between(value, 40)) is int
    assert interval(value) == interval(written) == written


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 10**15, True, 1.5, None, [1]),
        *("", "epoch", "0 epochs", "0.0 epochs", "-1 epochs", "1 epoch\n", "\u0663 epochs", "1.5 steps", "0 steps"),
    ],
)
def test_bad_intervals(value: Any) -> None:
    problems = Problems()
    construct(Interval, value, (), problems)
    assert "expected a number of steps, or text such as '1 epoch'" in problems.found[0].message
