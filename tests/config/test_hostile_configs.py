"""Whatever a config holds, it is built, or refused with an error that can be read."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite.config.load import (
    config_from_data,
    load_config,
    render,
)
from cnnlite.config.yaml_reader import read_yaml
from cnnlite.data import sources, transforms
from cnnlite.errors import ConfigError
from cnnlite.nn.layers import layers
from cnnlite.nn.losses import losses
from cnnlite.nn.network import Network
from cnnlite.optim import optimizers
from cnnlite.optim.schedules import schedules
from tests.support.config_parts import FULL, SHORT, faults, load


def test_nesting_is_refused_or_built_without_exhausting_the_stack(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        return SHORT.replace("[flatten,", "[" * depth + "flatten" + "]" * (depth - 1) + ",")

    deepest = max(depth for depth in range(56, 68) if _loads(tmp_path / "a.yaml", nested(depth)))
    assert 55 < deepest < 65
    config = load(tmp_path / "a.yaml", nested(deepest))
    assert load(tmp_path / "b.yaml", render(config)).resolved == config.resolved
    network = Network(config.model, (4, 4, 3), seed=0, classes=10)
    assert network.forward(np.zeros((1, 4, 4, 3), np.float32), training=False).shape == (1, 10)
    for text in (
        nested(1000),
        SHORT.replace("[flatten,", "[" + "{residual: {body: " * 300 + "relu" + "}}" * 300 + ","),
    ):
        assert "levels deep" in faults(tmp_path / "a.yaml", text)[0]


def test_a_config_whose_rendering_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    text = SHORT.replace("[flatten,", "[" + "batch_norm, " * 6000 + "flatten,")
    assert "more than 20,000 values, defaults included" in faults(tmp_path / "a.yaml", text)[0]


def _loads(path: Path, text: str) -> bool:
    try:
        load(path, text)
    except ConfigError:
        return False
    return True


WORDS = [name for registry in (layers, losses, optimizers, schedules, sources, transforms) for name in registry]
WORDS += ["model", "data", "train", "lr", "epochs", "augment", "a.yaml", "1 epoch", "same", "none", "match", "("]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2, 0.5, 1.0, 10**20, 10**400, -(10**400), math.inf, math.nan])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(WORDS)
)

KEYS = st.sampled_from(WORDS) | st.text(max_size=3) | st.integers(0, 3)

ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


PLAIN = read_yaml(FULL).data


def _places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(place for key, value in inner for place in _places(value, (*at, key)))]


def _changed(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = data.copy()
    copy[place[0]] = _changed(data[place[0]], place[1:], value)
    return copy


@settings(max_examples=250, deadline=None)
@given(st.lists(ANYTHING, max_size=3), st.randoms(use_true_random=False), st.booleans())
def test_any_data_is_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], choose: random.Random, from_file: bool
) -> None:
    data: Any = PLAIN
    for value in values:
        data = _changed(data, choose.choice(_places(data)), value)
    try:
        if from_file:
            path = tmp_path_factory.getbasetemp() / "any.yaml"
            path.write_text(yaml.safe_dump(data), encoding="utf-8")
            config = load_config(path)
        else:
            config = config_from_data(data)
    except ConfigError as caught:
        problems = caught.problems
    else:
        problems = []
    if problems:
        assert all(len(str(problem)) < 700 for problem in problems)
    else:
        assert config_from_data(config.resolved).resolved == config.resolved
