"""Where settings come from: files, bundled configs, models in files of their own, overrides, flags; the later wins."""

from pathlib import Path

import pytest

from cnnlite.config import bundled
from cnnlite.config import load as config_module
from cnnlite.config.bundled import bundled_configs, bundled_folder
from cnnlite.config.load import find_config, load_config, render
from cnnlite.errors import ConfigError
from tests.support.config_parts import FULL, SHORT, faults, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "full.yaml"
    path.write_text(FULL)
    return path


def test_overrides_change_add_and_replace(file: Path) -> None:
    config = load_config(
        file,
        [
            "train.epochs=5",
            "train.optimizer.sgd.lr=5e-2",
            "train.clip_norm=1",
            "model.0.conv2d.out_channels=4",
            "model[3].residual.body[0].conv2d.out_channels = 4",
            "data.augment=[cutout: {size: 8}]",
            "train.schedule=constant",
            "data.dataset.shapes.seed=7",
            "train.optimizer.sgd.groups[0].lr=0.5",
            "model.2={leaky_relu: {slope: 0.1}}",
        ],
    )
    data = config.resolved
    assert data["train"]["epochs"] == 5.0
    assert data["train"]["optimizer"]["sgd"]["lr"] == 0.05
    assert data["train"]["optimizer"]["sgd"]["groups"] == [{"match": "bias", "lr": 0.5}]
    assert data["train"]["clip_norm"] == 1.0
    assert data["model"][0]["conv2d"]["out_channels"] == 4
    assert data["model"][3]["residual"]["body"][0]["conv2d"]["out_channels"] == 4
    assert data["model"][2] == {"leaky_relu": {"slope": 0.1}}
    assert list(data["data"]["augment"][0]) == ["cutout"]
    assert list(data["train"]["schedule"]) == ["constant"]
    assert data["data"]["dataset"]["shapes"]["seed"] == 7


@pytest.mark.usefixtures("as_typed")
def test_epochs_and_steps_of_the_command_line_replace_each_other(file: Path) -> None:
    def length(*overrides: str) -> tuple[float | None, int | None]:
        train = load_config(file, overrides).train
        return train.epochs, train.iterations

    assert length() == (3.0, None)
    assert length("train.iterations=7") == (None, 7)
    assert length("train.iterations=7", "train.epochs=null") == (None, 7)
    assert length("train.iterations=7", "train={epochs: 2, optimizer: adam}") == (2.0, None)
    assert length("train={epochs: 2, optimizer: adam}", "train.iterations=7") == (None, 7)
    file.write_text(FULL.replace("epochs: 3", "iterations: 9"))
    assert length("train.epochs=2") == (2.0, None)
    assert length("train.epochs=null") == (None, 9)
    with pytest.raises(ConfigError, match=r"^-o train\.iterations=7: train\.iterations: there are epochs too"):
        length("train.epochs=2", "train.iterations=7")


def test_file_then_overrides_in_order_then_flags(file: Path) -> None:
    assert load_config(file).seed == 3
    assert load_config(file, ["seed=4", "seed=5"]).seed == 5
    config = load_config(file, ["seed=4", "data.root=here"], seed=6, data="there")
    assert (config.seed, config.data.root) == (6, "there")
    assert load_config(file, ["seed=4"], seed=None, data=None).seed == 4


def test_an_override_may_replace_the_optimizer(file: Path) -> None:
    assert list(load_config(file, ["train.optimizer=adam"]).resolved["train"]["optimizer"]) == ["adam"]
    config = load_config(file, ["train.optimizer=adam", "train.optimizer.adam.lr=0.5"])
    assert config.resolved["train"]["optimizer"]["adam"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "-o train.epochs: expected KEY=VALUE, such as train.epochs=5"),
        ("=5", "expected KEY=VALUE"),
        ("train..epochs=5", "expected KEY=VALUE"),
        ("train.epoch=5", "-o train.epoch=5: train.epoch: unknown option; did you mean 'epochs'?"),
        ("trian.epochs=5", "-o trian.epochs=5: trian: unknown option; did you mean 'train'?"),
        ("lr=5", "-o lr=5: lr: unknown option; it belongs at train.optimizer"),
        ("train.epochs=x", "-o train.epochs=x: train.epochs: expected a number or null, got the text 'x'"),
        ("train.epochs=[1", "train.epochs: not YAML"),
        ("train.epochs=08", "train.epochs: 08 starts with 0"),
        ("train.epochs.more=1", "train.epochs is 3; there is no 'more' in it"),
        ("train.optimizer.adam.lr=1", "train.optimizer is sgd, not adam; to change it: -o train.optimizer=adam"),
        ("train.optimizer.sdg.lr=1", "unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ("model.9.relu=1", "model is a list; '9' is none of its indices 0 to 6"),
        ("model.x=1", "model is a list; 'x' is none of its indices 0 to 6"),
        ("model.0.conv2d.zzz=1", "model[0].conv2d.zzz: unknown option; known: out_channels"),
        ("model.1.relu=", "model[1] is batch_norm, not relu"),
        ("x" * 5000 + "=1", "unknown option"),
        ("train.epochs=" + "[" * 500, "levels deep"),
    ],
)
@pytest.mark.usefixtures("as_typed")
def test_a_wrong_override_is_told_as_such(file: Path, override: str, words: str) -> None:
    found = faults(file, FULL, override)
    assert len(found) == 1
    assert found[0].startswith("-o ")
    assert words in found[0]
    assert len(found[0]) < 300


def test_a_model_may_have_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    text = SHORT.replace("[flatten, {linear: {out_features: 10}}]", "models/a.yaml")
    for content in (
        "- flatten\n- linear: {out_features: 10}\n",
        "model:\n  - flatten\n  - linear: {out_features: 10}\n",
    ):
        (tmp_path / "models" / "a.yaml").write_text(content)
        config = load(tmp_path / "c.yaml", text, "model.1.linear.bias=false")
        assert config.resolved["model"] == ["flatten", {"linear": {"out_features": 10, "bias": False, "init": "he"}}]
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path / "c.yaml", SHORT, "model=models/a.yaml").resolved["model"][0] == "flatten"


def test_faults_of_a_model_file_name_that_file(tmp_path: Path) -> None:
    text = SHORT.replace("[flatten, {linear: {out_features: 10}}]", "m.yaml")
    model = tmp_path / "m.yaml"
    model.write_text("model:\n  - flaten\n  - linear: {out_features: 08}\n")
    assert [line.split(f"{tmp_path}/")[1] for line in faults(tmp_path / "c.yaml", text)] == [
        "m.yaml:2: model[0]: unknown layer 'flaten'; did you mean 'flatten'?",
        "m.yaml:3: model[1].linear.out_features: 08 starts with 0; leave the zero out, or quote it if it is text",
    ]
    model.write_text(SHORT)
    assert faults(tmp_path / "c.yaml", text)[0].endswith(
        "m.yaml:1: model: this is a whole config; put its model into a file of its own, or name it as the config"
    )
    model.write_text("layers: []")
    assert "expected a list of layers, or the one key 'model'" in faults(tmp_path / "c.yaml", text)[0]
    model.write_text("- [")
    assert "m.yaml:1: not YAML" in faults(tmp_path / "c.yaml", text)[0]
    model.unlink()
    found = faults(tmp_path / "c.yaml", text + "seed: x\n")
    assert "c.yaml:2: model: there is no file 'm.yaml' in" in found[0]
    assert "seed: expected a whole number" in found[1]


@pytest.mark.parametrize("content", [None, "- [", "- relu: 08\n", "{}", "- {relu: {}, relu: {}}"])
def test_faults_of_what_an_override_replaces_are_forgotten(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.yaml").write_text("[flatten, {linear: {out_features: 10}}]")
    if content is not None:
        Path("gone.yaml").write_text(content)
    text = SHORT.replace("[flatten, {linear: {out_features: 10}}]", "gone.yaml") + "seed: 08\n"
    assert [line.partition(":")[0] for line in faults(Path("c.yaml"), text)] != []
    config = load(Path("c.yaml"), text, "model=here.yaml", "seed=09", "seed=3")
    assert (config.resolved["model"][0], config.seed) == ("flatten", 3)
    assert "seed: 09 starts with 0" in faults(Path("c.yaml"), text, "model=here.yaml", "seed=09")[0]


def test_an_override_inside_what_could_not_be_read_hides_nothing(tmp_path: Path) -> None:
    text = SHORT.replace("[flatten, {linear: {out_features: 10}}]", "gone.yaml")
    (told,) = faults(tmp_path / "c.yaml", text, "model.1.linear.out_features=3")
    assert "there is no file 'gone.yaml'" in told


def test_bundled_configs_are_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    (folder / "models").mkdir(parents=True)
    (folder / "small.yaml").write_text(SHORT.replace("[flatten, {linear: {out_features: 10}}]", "models/m.yaml"))
    (folder / "models" / "m.yaml").write_text("[flatten, {linear: {out_features: 10}}]")
    for module in (bundled, config_module):
        monkeypatch.setattr(module, "bundled_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    assert bundled_configs() == ["small.yaml"]
    assert load_config("small.yaml").name == load_config("small").name == "small"
    (tmp_path / "small").mkdir()
    assert find_config("small") == folder / "small.yaml"
    (tmp_path / "mine.yaml").write_text((folder / "small.yaml").read_text() + "\n")
    assert load_config("mine.yaml").resolved == load_config("small").resolved
    (tmp_path / "small.yaml").write_text(SHORT)
    assert find_config("small.yaml") == Path("small.yaml")


@pytest.mark.parametrize(
    "name", ["smal.yaml", "", "a\0b", "a\0b/c", "../configs/none.yaml", "n" * 5000, "n/" * 9000, "\ud800"]
)
def test_an_unknown_config_is_an_error_that_helps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bundled, config_module):
        monkeypatch.setattr(module, "bundled_configs", lambda: ["small.yaml", "vgg.yaml"])
    with pytest.raises(ConfigError, match="no such file, and no bundled config of that name; ") as caught:
        load_config(name)
    assert ("did you mean 'small.yaml'?" if name == "smal.yaml" else "bundled: small, vgg") in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("name", "near"), [("smal", "small"), ("resnet-20", "resnet20"), ("mien.yaml", "mine.yaml")])
def test_names_that_are_nearly_right_are_recognized(
    name: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        find_config(name)


def test_only_the_last_part_of_a_path_is_compared(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ConfigError, match="; bundled: "):
        find_config(str(tmp_path / "zzzz.yaml"))
    with pytest.raises(ConfigError) as caught:
        find_config(str(tmp_path / "mien.yaml"))
    assert f"did you mean {str(tmp_path / 'mine.yaml')!r}?" in str(caught.value)


def test_the_config_of_a_run_is_called_by_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "small-2"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(SHORT)
    assert load_config(run / "config.yaml").name == "config"
    (run / "checkpoints").mkdir()
    assert load_config(run / "config.yaml").name == "small-2"
    monkeypatch.chdir(run)
    assert load_config("config.yaml").name == "small-2"


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a directory, not a YAML file$"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value).endswith(f"is a directory, not a YAML file; its config is {tmp_path / 'config.yaml'}")


@pytest.mark.parametrize("name", bundled_configs())
def test_every_bundled_config_is_read_and_rendered(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    (tmp_path / "again.yaml").write_text(render(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml").resolved == config.resolved
    assert bundled_folder().is_dir()
