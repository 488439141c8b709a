"""The README is true: its commands parse, its configs build, its tables list what there is, its layer works."""

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import cnnlite
from cnnlite.cli import cli
from cnnlite.config.load import load_config
from cnnlite.config.options import options_of, to_plain
from cnnlite.data import mixings, sources, transforms
from cnnlite.errors import ConfigError
from cnnlite.nn.layers import layers
from cnnlite.nn.losses import losses
from cnnlite.nn.network import Network
from cnnlite.optim import optimizers
from cnnlite.optim.averaging import averagings
from cnnlite.optim.schedules import schedules
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.utils.registry import Registry
from tests.support.gradcheck import assert_layer_gradients
from tests.support.layer_cases import cases_of
from tests.support.small_runs import TINY

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TOLD_FOR_ALL = {"groups", "warmup_epochs", "warmup_steps"}
"""Options that the text below a table describes once."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


COMMANDS = sorted(
    {*re.findall(r"^cnnlite .*", "\n".join(blocks("sh")), re.MULTILINE), *re.findall(r"`(cnnlite .+?)`", TEXT)}
)


def rows(heading: str) -> dict[str, str]:
    """The rows of the table whose first column has the ``heading``: the name in the first cell, and the rest."""
    table = re.search(rf"^\| {heading} \|.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert table, f"no table of {heading}"
    return dict(re.findall(r"^\| `([\w-]+)` \|(.*)", table[1], re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    node: click.Command = cli
    while isinstance(node, click.Group):
        node = node.commands[words.pop(0)]
    if words:
        node.make_context("cnnlite", words)


def test_every_kind_of_command_is_among_them() -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} == set(cli.commands)


def test_the_table_of_commands_has_all_commands_with_all_their_options() -> None:
    table = rows("command")
    assert table.keys() == cli.commands.keys()
    for name, command in cli.commands.items():
        named = set(re.findall(r"`(--?[a-z-]+)`", table[name]))
        options = [set(option.opts) for option in command.params if isinstance(option, click.Option)]
        assert all(spellings & named for spellings in options if spellings != {"--debug"}), name
        assert named <= set().union(*options), name


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_config_builds(text: str, tmp_path: Path) -> None:
    file = tmp_path / "readme.yaml"
    file.write_text(text, encoding="utf-8")
    Network(load_config(file).model, (32, 32, 3), seed=0, classes=10)


@pytest.mark.parametrize(
    ("heading", "registry"),
    [
        ("layer", layers),
        ("loss", losses),
        ("optimizer", optimizers),
        ("schedule", schedules),
        ("averaging", averagings),
        ("augmentation", transforms),
        ("mixing", mixings),
        ("dataset", sources),
    ],
)
def test_the_tables_have_every_registered_name_with_its_options_and_their_defaults(
    heading: str, registry: Registry[object]
) -> None:
    table = rows(heading)
    assert sorted(table) == list(registry)
    for name, row in table.items():
        written = dict(re.findall(r"`(\w+)(?:=([^`]*))?`", row.split("|")[0]))
        options = {key: option for key, option in options_of(registry[name]).items() if key not in TOLD_FOR_ALL}
        assert written.keys() == options.keys(), name
        for key, option in options.items():
            if option.default is None:
                assert written[key] == "", f"{name}: {key} has no default"
            else:
                assert yaml.safe_load(written[key]) == to_plain(option.default()), f"{name}: {key}"


@pytest.fixture
def config_with_new_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Runs the lines of the layer that the README adds, and nothing else; returns a config that uses it."""
    monkeypatch.setattr(layers, "_classes", dict(layers._classes))
    exec(compile(ast.parse(layer_code()), "README.md", "exec"), {"__name__": "readme"})
    config = tmp_path / "mine.yaml"
    config.write_text(TINY.replace("  - relu\n", "  - channel_scale: {start: 0.5}\n  - relu\n"), encoding="utf-8")
    return config


def layer_code() -> str:
    (code,) = (block for block in blocks("python") if "class " in block)
    return code


def test_the_layer_it_adds_takes_20_lines() -> None:
    lines = [line for line in layer_code().partition("@layers.register")[2].splitlines() if line.strip()]
    assert len(lines) <= 20


@pytest.mark.usefixtures("config_with_new_layer")
def test_the_tests_of_all_layers_find_the_layer_it_adds_and_check_its_gradients() -> None:
    cases = cases_of("channel_scale")
    assert len({case.in_shape for case in cases}) > 2
    for case in cases:
        rng = np.random.default_rng(0)
        assert_layer_gradients(case.layer(), rng.standard_normal((5, *case.in_shape)), rng)


def test_the_layer_it_adds_is_validated_summarised_and_gradient_checked(config_with_new_layer: Path) -> None:
    assert run("validate", config_with_new_layer)
    table = run("summary", config_with_new_layer)
    (row,) = (line for line in table.splitlines() if "channel_scale" in line)
    assert re.search(r"\b15 x 15 x 6\b.*\b6\b", row), row
    checked = run("gradcheck", config_with_new_layer)
    assert re.search(r"^2 +channel_scale .* weight", checked, re.MULTILINE)
    assert "all gradients are right" in checked
    wrong = config_with_new_layer.read_text(encoding="utf-8").replace("start: 0.5", "begin: 0.5")
    config_with_new_layer.write_text(wrong, encoding="utf-8")
    with pytest.raises(ConfigError, match="begin"):
        load_config(config_with_new_layer)


def test_the_layer_it_adds_is_trained_from_yaml_saved_and_loaded(config_with_new_layer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("train", "--config", config_with_new_layer, "--epochs", 1, "--run-dir", folder, "--threads", 1, "--quiet")
    best = folder / "checkpoints" / "best.npz"
    weights = load_checkpoint(best).arrays["param/2.weight"]
    assert weights.shape == (6,)
    assert not np.any(weights == 0.5)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    found = json.loads(run("eval", best, "--json", "--threads", 1))
    assert (found["accuracy"], found["loss"]) == (result["test_accuracy"], result["test_loss"])


def test_the_program_that_checks_and_trains_the_layer_it_adds_works(
    config_with_new_layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(config_with_new_layer.parent)
    (code,) = (block for block in blocks("python") if "gradcheck" in block)
    exec(compile(code.replace('"mine.yaml")\n', '"mine.yaml", epochs=0.3, quiet=True)\n'), "README.md", "exec"), {})
    assert capsys.readouterr().out == "[]\n"
    assert Path("runs/mine/result.json").exists()


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_dataset_that_contributing_shows_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "_classes", dict(sources._classes))
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
    config = tmp_path / "stripes.yaml"
    data = "{shapes: {train_images: 126, test_images: 40}}, validation: 20"
    text = TINY.replace(data, "{stripes: {count: 100}}").replace("out_features: 10", "out_features: 2")
    config.write_text(text, encoding="utf-8")
    trained = cnnlite.train(config, epochs=20, overrides=["data.augment=[]"], run_dir=tmp_path / "run", quiet=True)
    assert trained.test_accuracy is not None
    assert trained.test_accuracy > 0.9


def test_its_table_of_speeds_is_that_of_the_benchmarks() -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    measured = text.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    found = [[cell.strip(" *") for cell in row.split("|")] for row in re.findall(r"^\| ([\w-]+ \| .*)", measured, re.M)]
    table = {name: f" {batch} | {ours} | {theirs} | {ratio} |" for name, batch, ours, theirs, _, ratio, *_ in found[1:]}
    assert len(table) > 3
    assert rows("network") == table, "docs/benchmarks.md was measured again: copy its figures"


def test_its_table_of_extras_has_all_that_users_may_want() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rows("extra").keys() == project["optional-dependencies"].keys() - {"dev"}
    assert TEXT.count('"cnnlite[') == 1


def test_its_program_for_onnx_files_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxruntime", "PIL"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    trained = cnnlite.train("tiny.yaml", epochs=1, run_dir="run", quiet=True)
    assert CliRunner().invoke(cli, ["export", "run", "small.onnx"]).exit_code == 0
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(picture).save("cat.png")
    (code,) = (block for block in blocks("python") if "import onnxruntime" in block)
    exec(compile(code.replace("cat.jpg", "cat.png"), "README.md", "exec"), {})
    model = cnnlite.load(trained.run)
    assert capsys.readouterr().out == f"{model.classes[model.predict(picture[np.newaxis])[0].argmax()]}\n"


def test_the_program_it_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks("python") if "cnnlite.load(" in block)
    names: dict[str, Any] = {"images": np.zeros((2, 32, 32, 3), np.uint8)}
    exec(compile(code.replace("epochs=1", "epochs=0.01"), "README.md", "exec"), names)
    assert names["probabilities"].shape == (2, 10)
    assert len(names["names"]) == 2
