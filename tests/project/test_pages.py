"""The README and the pages under docs are true: commands parse, configs build, links lead somewhere, programs work."""

import ast
import json
import os
import re
import shlex
import shutil
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
from cnnlite.config.load import config_from_data, load_config
from cnnlite.config.options import options_of, to_plain
from cnnlite.config.settings import DataSettings, TrainSettings
from cnnlite.data import mixings, sources, transforms
from cnnlite.errors import ConfigError
from cnnlite.nn.layers import layers
from cnnlite.nn.losses import losses
from cnnlite.nn.network import Network
from cnnlite.optim import optimizers
from cnnlite.optim.averaging import averagings
from cnnlite.optim.schedules import schedules
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.restore import load_data
from cnnlite.training.loop import batches_of
from cnnlite.utils.registry import Registry
from tests.support.gradcheck import assert_layer_gradients
from tests.support.layer_cases import cases_of
from tests.support.pages import PAGES, ROOT, blocks, read, rows
from tests.support.plugins import shown
from tests.support.small_runs import TINY


def commands_of(page: str) -> set[str]:
    shown = "\n".join(blocks(page, "sh"))
    return {
        *re.findall(r"^(?:mpiexec -n \d+ )?(cnnlite .*)", shown, re.MULTILINE),
        *re.findall(r"`(cnnlite [a-z].+?)`", read(page)),
    }


PYTHON = blocks("docs/python.md", "python")
COMMANDS = sorted(set[str]().union(*map(commands_of, PAGES)))


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
    table = rows("README.md", "command")
    assert table.keys() == cli.commands.keys()
    for name, command in cli.commands.items():
        named = set(re.findall(r"`(--?[a-z-]+)`", table[name]))
        options = [option for option in command.params if isinstance(option, click.Option)]
        # Those that all commands have, or all with a config, are said once for all of them.
        assert all(named.intersection(option.opts) for option in options if option.expose_value), name
        assert named <= set().union(*(option.opts for option in options)), name


@pytest.mark.parametrize("text", [text for page in PAGES for text in blocks(page, "yaml")])
def test_every_config_builds(text: str, tmp_path: Path) -> None:
    for name, code in shown().items():  # as docs/plugins.md has them beside its config
        (tmp_path / name).write_text(code, encoding="utf-8")
    file = tmp_path / "shown.yaml"
    file.write_text(text, encoding="utf-8")
    config = load_config(file)
    Network(config.model, config.data.in_shape or (64, 64, 3), seed=0, classes=config.data.dataset.class_count)


def with_part(whole: Any, part: Any) -> Any:
    """A config with a part of another one put into its place."""
    if not (isinstance(whole, dict) and isinstance(part, dict)):
        return part
    return {**whole, **{key: with_part(whole.get(key), value) for key, value in part.items()}}


@pytest.mark.parametrize("text", [text for page in PAGES for text in blocks(page, "yml")])
def test_every_part_of_a_config_is_one(text: str) -> None:
    part = yaml.safe_load(text)
    whole = load_config("small", ["train.from=small"]).resolved
    assert config_from_data(with_part(whole, part)).resolved != whole


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(read(page)))
    for link in links:
        if not link.startswith("https://"):
            file, _, heading = link.partition("#")
            target = os.path.normpath(Path(page).parent / file) if file else page
            assert (ROOT / target).exists(), link
            assert not heading or heading in anchors(read(target)), link


def test_the_readme_leads_to_every_page() -> None:
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in read("README.md")] == []


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names of headings in links, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_first_screen_of_the_readme_has_both_commands_and_all_of_it_is_short() -> None:
    lines = read("README.md").splitlines()
    assert [line.split()[0] for line in lines[:25] if line.startswith("scripts/")] == [
        "scripts/quickstart",
        "scripts/test",
    ]
    assert len(lines) <= 220


@pytest.mark.parametrize(
    ("heading", "registry"),
    [
        ("Layers", layers),
        ("Losses", losses),
        ("Optimizers", optimizers),
        ("Schedules", schedules),
        ("Averaging", averagings),
        ("Augmentation", transforms),
        ("Mixing", mixings),
        ("Datasets", sources),
    ],
)
def test_the_reference_has_every_registered_name_with_its_options_and_their_defaults(
    heading: str, registry: Registry[object]
) -> None:
    section = read("docs/config.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    entries = {text.split("\n")[0]: text for text in section.split("\n### ")[1:]}
    assert list(entries) == list(registry)
    for name, entry in entries.items():
        assert_options_are(entry, registry[name])


@pytest.mark.parametrize(("heading", "cls"), [("Data", DataSettings), ("Train", TrainSettings)])
def test_the_reference_has_all_settings_with_their_defaults(heading: str, cls: type) -> None:
    section = read("docs/config.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert_options_are(section, cls)


def assert_options_are(text: str, cls: type) -> None:
    written = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*?) \| [^|]", text, re.MULTILINE))
    options = options_of(cls)
    assert list(written) == list(options), cls
    for key, option in options.items():
        if option.default is None:
            assert written[key] == "required", f"{cls}: {key} has no default"
        else:
            default, found = to_plain(option.default()), yaml.safe_load(written[key].strip("`"))
            assert found == (next(iter(default)) if isinstance(default, dict) else default), f"{cls}: {key}"


@pytest.fixture
def config_with_new_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Runs the lines of the layer that docs/python.md adds, and nothing else; returns a config that uses it."""
    monkeypatch.setattr(layers, "_classes", dict(layers._classes))
    exec(compile(ast.parse(layer_code()), "python.md", "exec"), {"__name__": "page"})
    config = tmp_path / "mine.yaml"
    config.write_text(TINY.replace("  - relu\n", "  - channel_scale: {start: 0.5}\n  - relu\n"), encoding="utf-8")
    return config


def layer_code() -> str:
    (code,) = (block for block in PYTHON if "class " in block)
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
    (code,) = (block for block in PYTHON if "gradcheck" in block)
    exec(compile(code.replace('"mine.yaml")\n', '"mine.yaml", epochs=0.3, quiet=True)\n'), "python.md", "exec"), {})
    assert capsys.readouterr().out == "[]\n"
    assert Path("runs/mine/result.json").exists()


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_augmentation_that_a_page_adds_works_on_any_part_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_classes", dict(transforms._classes))
    (code,) = blocks("docs/augmentation.md", "python")
    exec(compile(code, "augmentation.md", "exec"), {"__name__": "page"})
    config = config_from_data(yaml.safe_load(TINY.replace("random_crop", "{random_invert: {probability: 0.5}}")))
    batches = batches_of(config, load_data(config))
    whole, _ = batches.batch(2)
    parts = [batches.batch(2, part)[0] for part in (slice(5), slice(5, 6), slice(6, None))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    before = config_from_data(yaml.safe_load(TINY.replace(", random_crop", "")))
    images = (batches.normalizer.undo(x) for x in (batches_of(before, load_data(before)).batch(2)[0], whole))
    inverted = [bool((new == 255 - old).all()) for old, new in zip(*images, strict=True)]
    assert 0 < sum(inverted) < len(inverted)


def test_the_dataset_that_contributing_shows_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "_classes", dict(sources._classes))
    (code,) = blocks("CONTRIBUTING.md", "python")
    exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
    config = tmp_path / "stripes.yaml"
    data = "{shapes: {train_images: 126, test_images: 40}}, validation: 20"
    text = TINY.replace(data, "{stripes: {count: 100}}").replace("out_features: 10", "out_features: 2")
    config.write_text(text, encoding="utf-8")
    trained = cnnlite.train(config, epochs=20, overrides=["data.augment=[]"], run_dir=tmp_path / "run", quiet=True)
    assert trained.test_accuracy is not None
    assert trained.test_accuracy > 0.9


def test_the_results_of_the_readme_are_among_all_results() -> None:
    table = re.compile(r"^\| (`[\w-]+\.yaml`.*?) \|(.*)\|", re.MULTILINE)
    known = {
        config: [cell.strip() for cell in cells.split("|")] for config, cells in table.findall(read("docs/results.md"))
    }
    shown = {config: [cell.strip() for cell in cells.split("|")] for config, cells in table.findall(read("README.md"))}
    assert len(shown) > 3
    assert shown == {config: known[config][2:] for config in shown}, "docs/results.md has other figures: copy them"


def test_the_speeds_of_the_readme_are_those_of_the_benchmarks() -> None:
    measured = read("docs/benchmarks.md").partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    found = [[cell.strip(" *") for cell in row.split("|")] for row in re.findall(r"^\| ([\w-]+ \| .*)", measured, re.M)]
    table = {name: f" {batch} | {ours} | {theirs} | {ratio} |" for name, batch, ours, theirs, _, ratio, *_ in found[1:]}
    assert len(table) > 3
    assert rows("README.md", "network") == table, "docs/benchmarks.md was measured again: copy its figures"


def test_the_table_of_extras_has_all_that_users_may_want() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert rows("README.md", "extra").keys() == project["optional-dependencies"].keys() - {"dev"}
    for page in PAGES:
        for named in re.findall(r'"cnnlite\[([^]]*)\]"', read(page)):
            assert set(named.split(",")) <= rows("README.md", "extra").keys(), page


def test_the_program_for_onnx_files_works(
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
    (code,) = blocks("docs/onnx.md", "python")
    exec(compile(code.replace("cat.jpg", "cat.png"), "onnx.md", "exec"), {})
    model = cnnlite.load(trained.run)
    assert capsys.readouterr().out == f"{model.classes[model.predict(picture[np.newaxis])[0].argmax()]}\n"


@pytest.mark.long
def test_the_guide_to_own_data_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("PIL", "matplotlib"):
        pytest.importorskip(package)
    from tests.support.folders import fill  # which needs Pillow

    monkeypatch.chdir(tmp_path)
    for folder, count in (("photos", 20), ("later", 5)):
        fill(Path(folder), count, ("cars", "horses"), size=40)
    Path("later/horses/2024").mkdir()
    shutil.move("later/horses/00005.png", "later/horses/2024/0001.jpg")
    (config,) = blocks("docs/own-data.md", "yaml")
    Path("photos.yaml").write_text(config.replace("epochs: 40", "epochs: 2"), encoding="utf-8")
    shown = "\n".join(blocks("docs/own-data.md", "sh"))
    for command in re.findall(r"^cnnlite .*", shown, re.MULTILINE):
        done = CliRunner().invoke(cli, shlex.split(command, comments=True)[1:])
        assert done.exit_code == (3 if "--min-accuracy" in command else 0), (command, done.output)
    assert len(Path("later.csv").read_text(encoding="utf-8").splitlines()) == 1 + 10
    assert len(list(Path("runs").glob("photos*/result.json"))) == 5


def test_the_program_that_trains_and_predicts_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in PYTHON if "cnnlite.load(" in block)
    names: dict[str, Any] = {"images": np.zeros((2, 32, 32, 3), np.uint8)}
    exec(compile(code.replace("epochs=1", "epochs=0.01"), "python.md", "exec"), names)
    assert names["probabilities"].shape == (2, 10)
    assert len(names["names"]) == 2
