import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.bundled import bundled_configs, bundled_folder
from cnnlite.config.json_schema import schema
from cnnlite.config.load import Config, config_from_data, load_config
from cnnlite.config.options import options_of
from cnnlite.config.yaml_reader import read_yaml
from cnnlite.errors import ConfigError
from cnnlite.utils.registry import Registry
from tests.support.small_runs import TINY

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: scripts/setup dev")


SCHEMA = schema()


def problems(config: Any) -> list[str]:
    """Places in a config that do not fit the schema."""
    found = jsonschema.Draft7Validator(SCHEMA).iter_errors(config)
    return [".".join(map(str, error.absolute_path)) for error in found]


def test_the_command_prints_a_valid_schema() -> None:
    result = CliRunner().invoke(cli, ["schema"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == schema()
    jsonschema.Draft7Validator.check_schema(printed)


@pytest.mark.parametrize("name", bundled_configs())
def test_bundled_configs_fit_as_written_and_with_every_default(name: str) -> None:
    assert problems(read_yaml(bundled_folder() / name).data) == []
    assert problems(load_config(name).resolved) == []


def test_every_registered_name_is_there_with_its_options_and_words_about_them() -> None:
    definitions = schema()["definitions"]
    for registry in Registry.by_base.values():
        (mapping,) = (choice for choice in definitions[registry.kind]["anyOf"] if "properties" in choice)
        assert list(mapping["properties"]) == list(registry)
        for name, entry in mapping["properties"].items():
            assert list(entry["properties"]) == list(options_of(registry[name])), name
            assert entry["description"], name
    assert list(schema()["properties"]) == list(options_of(Config))
    stride = definitions["layer"]["anyOf"][1]["properties"]["conv2d"]["properties"]["stride"]
    assert (stride["description"], stride["default"]) == ("pixels from one window to the next.", 1)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.0", {"conv2d": {"out_channels": 6, "kernel_size": 3, "padding": "sama"}}),
        ("model.0", {"conv2d": {"out_channels": 6, "kernel_size": 3, "strid": 2}}),
        ("model.0", {"conv2d": {"out_channels": 6}}),
        ("model.0", {"conv2d": None}),
        ("model.0", {"conv2d": {"out_channels": 6, "kernel_size": [3, 3, 3]}}),
        ("model.0", "conv2d"),
        ("model.0", "relo"),
        ("model.0", {"relu": None, "tanh": None}),
        ("model.0", {"relu": {"slope": 1}}),
        ("model.0", {"residual": {"body": ["relo"]}}),
        ("model", "vgg11"),
        ("train.optimizer", {"sgd": {"lr": "0.1"}}),
        ("train.optimizer", {"sgd": {"lr": 0.1, "betas": [0.9, 0.99]}}),
        ("train.optimizer", "sgd"),
        ("train.schedule", "cosin"),
        ("train.validate_every", "1 epok"),
        ("train.validate_every", 0),
        ("train.batch_size", 0),
        ("train.batch_size", 2.5),
        ("train.epoch", 3),
        ("data.dataset", "cifar11"),
        ("data.augment.0", "random_flop"),
        ("data.validation", "some"),
        ("seed", -1),
        ("lr", 0.1),
    ],
)
def test_what_cnnlite_refuses_is_marked_where_it_stands(place: str, value: Any) -> None:
    config = yaml.safe_load(TINY)
    assert problems(config) == []
    *way, last = place.split(".")
    node = config
    for step in way:
        node = node[int(step)] if step.isdecimal() else node[step]
    node[int(last) if last.isdecimal() else last] = value
    with pytest.raises(ConfigError):
        config_from_data(config)
    assert problems(config) in ([place], [".".join(way)])  # an unknown key is a fault of what holds it


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model", "models/vgg11.yaml"),
        ("model", {"sequential": {"layers": ["flatten", {"linear": {"out_features": 10}}]}}),
        ("model", [["flatten"], {"linear": {"out_features": 10}}]),
        ("model", ["flatten", {"relu": None}, {"linear": {"out_features": 10}}]),
        ("seed", 3),
    ],
)
def test_what_cnnlite_takes_fits(place: str, value: Any, tmp_path: Path) -> None:
    config = yaml.safe_load(TINY)
    config[place] = value
    assert problems(config) == []
    if not isinstance(value, str):
        config_from_data(config)
