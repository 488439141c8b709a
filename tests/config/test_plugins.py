"""Plugins: what is run, when, how often, and what is said of those that cannot be."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config import plugins
from cnnlite.config.json_schema import schema
from cnnlite.config.load import config_from_data, load_config, render
from cnnlite.config.plugins import load, loaded
from cnnlite.errors import ConfigError, PluginError
from cnnlite.nn.layers import layers
from cnnlite.utils.registry import Registry
from tests.support.plugins import CONFIG, LAYER, MARKING, WITH_PLUGIN, forget_plugins
from tests.support.small_runs import TINY

DIGEST = "0" * 64


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("doubled.py", LAYER)
    write("mine.yaml", WITH_PLUGIN)
    return tmp_path


def write(name: str, text: str) -> Path:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def registered() -> dict[str, list[str]]:
    return {registry.kind: list(registry) for registry in Registry.by_base.values()}


def problem(source: Any, *overrides: str, **wishes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides, **wishes)
    return str(caught.value)


def test_a_config_names_what_its_plugins_register() -> None:
    config = load_config("mine.yaml")
    assert [type(layer).__name__ for layer in config.model.layers][2] == "Doubled"  # type: ignore[attr-defined]
    assert config.plugins == config.resolved["plugins"] == {"doubled.py": load(Path("doubled.py")).digest}
    assert config.resolved["model"][2] == {"doubled": {"factor": 2.0}}


def test_options_and_misspelt_names_are_told_as_those_of_cnnlite() -> None:
    assert "model[2].doubled.factr: unknown option; did you mean 'factor'?" in problem(
        "mine.yaml", "model.2.doubled.factr=3"
    )
    assert "unknown layer 'dubled'; did you mean 'doubled'?" in problem("mine.yaml", "model.2=dubled")
    assert load_config("mine.yaml", ["model.2.doubled.factor=3"]).resolved["model"][2] == {"doubled": {"factor": 3.0}}


def test_a_plugin_beside_its_config_is_found_from_any_folder(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert load_config(here / "mine.yaml").plugins.keys() == {"doubled.py"}


def test_a_plugin_of_an_override_is_looked_for_here_first() -> None:
    write("conf/mine.yaml", CONFIG)
    write("conf/doubled.py", LAYER.replace("2.0", "3.0"))
    assert load_config("conf/mine.yaml", ["plugins=[doubled.py]"]).resolved["model"][2] == {"doubled": {"factor": 2.0}}
    forget_plugins()
    Path("doubled.py").unlink()
    assert load_config("conf/mine.yaml", ["plugins=[doubled.py]"]).resolved["model"][2] == {"doubled": {"factor": 3.0}}


def test_an_override_takes_the_place_of_the_list_before_anything_is_run() -> None:
    write("marking.py", MARKING)
    write("mine.yaml", WITH_PLUGIN.replace("doubled.py", "marking.py"))
    for assignment in ("plugins=[doubled.py]", "plugins.0=doubled.py"):
        assert load_config("mine.yaml", ["train.epochs=5", assignment]).plugins.keys() == {"doubled.py"}
        forget_plugins()
    assert "unknown layer 'doubled'" in problem("mine.yaml", "plugins=[]")
    assert not Path("marker").exists()


def test_plugins_that_are_given_come_after_those_of_the_config() -> None:
    write("mine.yaml", CONFIG)
    assert load_config("mine.yaml", plugins=[Path("doubled.py")]).plugins.keys() == {"doubled.py"}
    write("other.py", LAYER.replace("doubled", "other"))
    both = load_config(yaml.safe_load(WITH_PLUGIN), plugins=[Path("other.py")])
    assert list(both.plugins) == ["doubled.py", "other.py"]


def test_an_empty_list_is_none() -> None:
    assert load_config(yaml.safe_load(TINY) | {"plugins": []}).plugins == {}
    assert load_config(yaml.safe_load(TINY)).resolved["plugins"] == {}


def test_a_content_is_run_once() -> None:
    write("marking.py", "import os\nos.mkdir('marker')\n" + LAYER)
    write("copy.py", Path("marking.py").read_text())
    config = load_config(yaml.safe_load(CONFIG) | {"plugins": ["marking.py", "./marking.py", "copy.py"]})
    assert Path("marker").exists()  # which cannot be made twice
    assert list(config.plugins) == ["marking.py", "copy.py"]
    assert len(set(config.plugins.values())) == 1


def test_a_file_that_was_changed_takes_the_place_of_what_it_was() -> None:
    first = load(Path("doubled.py"))
    write("doubled.py", LAYER.replace("2.0", "3.0"))
    second = load(Path("doubled.py"))
    assert first.classes["layer", "doubled"] is not second.classes["layer", "doubled"] is layers["doubled"]
    write("doubled.py", "1 / 0")
    with pytest.raises(ConfigError):
        load(Path("doubled.py"))
    assert second.classes["layer", "doubled"] is layers["doubled"]
    assert loaded({"a.py": first.digest, "b.py": second.digest}) == {"b.py": second}


def test_another_name_for_a_class_of_cnnlite_is_a_plugin_too() -> None:
    write("short.py", "from cnnlite.nn.layers import layers\nlayers.register('mine')(layers['relu'])\n")
    load(Path("short.py"))
    assert layers["mine"] is layers["relu"]
    forget_plugins()
    assert "mine" not in layers
    assert "relu" in layers


def test_nothing_else_of_the_process_changes() -> None:
    path, modules, written = list(sys.path), set(sys.modules), sorted(os.listdir())
    load(Path("doubled.py"))
    assert sys.path == path
    (name,) = set(sys.modules) - modules
    assert name.startswith("_cnnlite_plugin_")
    assert sorted(os.listdir()) == written  # no __pycache__


def test_dataclasses_and_future_annotations_work_in_a_plugin() -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n" + LAYER
    write("doubled.py", text + "\n\n@dataclass\nclass Held:\n    value: int = 0\n")
    assert load_config("mine.yaml").resolved["model"][2] == {"doubled": {"factor": 2.0}}


def test_what_a_plugin_prints_goes_to_stderr() -> None:
    write("doubled.py", "print('hello')\n" + LAYER)
    done = CliRunner().invoke(cli, ["summary", "mine.yaml", "--json"])
    assert (done.exit_code, done.stderr) == (0, "hello\n")
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", ":1: SyntaxError: invalid syntax"),
        ("x = 1\n\ny = x / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("def f():\n    return g\n\nf()\n", ":2: NameError: name 'g' is not defined"),
        ("import nothing_at_all\n", ":1: ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("import sys\nsys.exit(0)\n", ":2: ends the program (SystemExit); a plugin only defines and registers"),
        ("raise SystemExit('bye')\n", ":1: ends the program (SystemExit); a plugin only defines and registers"),
        ("raise ValueError('one\\ntwo')\n", r":1: ValueError: one\ntwo"),
        (LAYER + "raise RuntimeError\n", ":16: RuntimeError"),
        (
            "",
            ': registers nothing that a config could name; a class needs a decorator, such as @layers.register("name")',
        ),
        (
            LAYER.replace('"doubled"', '"conv2d"'),
            ":5: ValueError: layer 'conv2d' is registered already; choose another name",
        ),
        (LAYER + LAYER, ":20: ValueError: layer 'doubled' is registered already; choose another name"),
        (LAYER.replace("Doubled(Layer)", "Doubled"), ":5: TypeError: layer 'doubled' must be a Layer"),
        (LAYER.replace("backward", "backwards"), ":7: layer 'doubled' lacks backward"),
        (
            LAYER.replace(": float", ""),
            ":7: layer 'doubled': the option 'factor' has no annotation, as in factor: float",
        ),
        (
            LAYER.replace(": float", ": complex"),
            ":7: layer 'doubled': options of type <class 'complex'> cannot be written in a config",
        ),
        (LAYER.replace(": float", ": 'flaot'"), ":7: layer 'doubled': name 'flaot' is not defined"),
    ],
)
def test_a_plugin_that_cannot_be_run_is_told_in_a_line_and_leaves_nothing(text: str, message: str) -> None:
    write("doubled.py", text)
    message = f"doubled.py{message}"
    before, modules = registered(), {name for name in sys.modules if "plugin" in name}
    assert problem("mine.yaml") == message
    done = CliRunner().invoke(cli, ["validate", "mine.yaml"])
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")
    assert registered() == before
    assert {name for name in sys.modules if "plugin" in name} == modules
    assert plugins._loaded == {}


def test_an_interrupt_is_passed_on() -> None:
    write("doubled.py", LAYER + "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_config("mine.yaml")
    assert "doubled" not in layers


def test_a_neighbour_cannot_be_imported() -> None:
    write("helper.py", "FACTOR = 2\n")
    write("doubled.py", "import helper\n" + LAYER)
    told = problem("mine.yaml")
    assert told.startswith("doubled.py:1: ModuleNotFoundError: No module named 'helper'")
    assert told.endswith("a plugin is one file: put what it needs of helper.py into it")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["nowhere.py"], "mine.yaml:1: plugins[0]: there is no file 'nowhere.py' in ."),
        (["doubled.py", "nowhere.py"], "mine.yaml:1: plugins[1]: there is no file 'nowhere.py' in ."),
        (["folder.py"], "folder.py: is a directory, not a Python file"),
        (["mine.yaml"], "mine.yaml: is not called like a Python file, such as mine.py"),
        ([3], "mine.yaml:1: plugins[0]: expected text, got 3"),
        ([None], "mine.yaml:1: plugins[0]: expected text, got nothing (null)"),
        (["a\nb.py"], "mine.yaml:1: plugins[0]: holds a control character, which no name of a folder may"),
        ("doubled.py", "mine.yaml:1: plugins: expected a list of Python files, got the text 'doubled.py'"),
        (None, "mine.yaml:1: plugins: expected a list of Python files, got nothing (null)"),
        ({"doubled.py": "3f5a"}, "mine.yaml:1: plugins: doubled.py: '3f5a' is no SHA-256"),
        ({"../doubled.py": DIGEST}, "mine.yaml:1: plugins: '../doubled.py' is not the name of a Python file"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_files_is_refused_in_a_line(value: Any, message: str) -> None:
    Path("folder.py").mkdir()
    write("mine.yaml", f"plugins: {json.dumps(value)}\n{TINY}")
    assert problem("mine.yaml") == message


def test_a_plugin_that_is_given_has_to_be_there() -> None:
    assert problem("mine.yaml", plugins=[Path("double.py")]) == (
        "double.py: cannot be read: No such file or directory; did you mean 'doubled.py'?"
    )
    if hasattr(os, "mkfifo"):
        os.mkfifo("fifo.py")
        assert problem("mine.yaml", plugins=[Path("fifo.py")]).startswith("fifo.py: is not a regular file")


def test_a_huge_file_is_not_read() -> None:
    with open("huge.py", "wb") as file:
        file.truncate(2_000_000)
    assert problem("mine.yaml", plugins=[Path("huge.py")]).startswith("huge.py: has 2,000,000 bytes, more than")


def test_two_plugins_of_one_name_are_refused() -> None:
    write("other/doubled.py", LAYER.replace('"doubled"', '"other"'))
    assert problem("mine.yaml", plugins=[Path("other/doubled.py")]) == (
        f"{Path('other/doubled.py')}: two plugins are called doubled.py; rename one of them"
    )


def test_plain_data_of_a_run_name_no_files_to_run() -> None:
    write("marking.py", MARKING)
    data = yaml.safe_load(CONFIG)
    with pytest.raises(ConfigError, match="plugins: expected names of Python files with their SHA-256, got a list"):
        config_from_data({**data, "plugins": ["marking.py"]})
    with pytest.raises(PluginError, match=r"plugins: marking\.py: no config of a run brings its code: give plugins="):
        config_from_data({**data, "plugins": {"marking.py": DIGEST}})
    assert not Path("marker").exists()


def test_the_config_of_a_run_runs_nothing() -> None:
    write("marking.py", MARKING)
    write("config.yaml", f"plugins: [marking.py]\n{CONFIG}")
    assert problem("config.yaml", of_run=True).startswith("config.yaml:1: plugins: no config of a run brings its code")
    Path("checkpoints").mkdir()
    assert problem("config.yaml").startswith("config.yaml:1: plugins: no config of a run brings its code")
    digest = hashlib.sha256(Path("marking.py").read_bytes()).hexdigest()
    write("config.yaml", f"plugins: {{marking.py: {digest}}}\n{CONFIG}")
    assert problem("config.yaml").startswith("plugins: marking.py: no config of a run brings its code: give plugins=")
    assert not Path("marker").exists()
    assert load_config("config.yaml", plugins=[Path("marking.py")]).plugins == {"marking.py": digest}
    assert Path("marker").exists()


def test_a_rendered_config_reads_back_as_the_same_with_its_plugins_given() -> None:
    config = load_config("mine.yaml")
    write("again.yaml", render(config))
    assert load_config("again.yaml").resolved == config.resolved
    forget_plugins()
    with pytest.raises(PluginError):
        load_config("again.yaml")
    assert load_config("again.yaml", plugins=[Path("doubled.py")]).resolved == config.resolved


def test_the_same_content_under_another_name_is_the_plugin_of_a_record() -> None:
    config = load_config("mine.yaml")
    write("again.yaml", render(config))
    forget_plugins()
    Path("doubled.py").rename("renamed.py")
    assert load_config("again.yaml", plugins=[Path("renamed.py")]).resolved == config.resolved


def test_other_plugins_than_those_of_a_record_are_told() -> None:
    record = load_config("mine.yaml").plugins
    now = record["doubled.py"][:12]
    assert plugins.differences(record) == []
    assert plugins.differences({"doubled.py": DIGEST}) == [
        f"doubled.py is not that of the training: its SHA-256 is {now}..., and was 000000000000..."
    ]
    assert plugins.differences({"other.py": DIGEST}) == [
        "other.py of the training, with the SHA-256 000000000000..., is not among the plugins here"
    ]
    forget_plugins()
    assert plugins.differences({"other.py": DIGEST}) == []  # a program may have registered the classes itself


def test_the_schema_has_the_key_and_what_plugins_register() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: scripts/setup dev")
    config = load_config("mine.yaml")
    whole = schema()
    for data in (yaml.safe_load(WITH_PLUGIN), config.resolved):
        assert list(jsonschema.Draft7Validator(whole).iter_errors(data)) == []
    forget_plugins()
    done = CliRunner().invoke(cli, ["schema", "--plugin", "doubled.py"])
    assert json.loads(done.stdout) == whole
    forget_plugins()
    assert [error.path[0] for error in jsonschema.Draft7Validator(schema()).iter_errors(config.resolved)] == ["model"]


@pytest.mark.parametrize("record", [None, [], "x", {"a.py": 3}, {3: DIGEST}, {"a.py": "x"}, {"../a.py": DIGEST}])
def test_a_record_that_is_none_is_read_as_empty(record: Any) -> None:
    assert plugins.readable_record({"plugins": record}) == {}
    assert plugins.readable_record(record) == {}
