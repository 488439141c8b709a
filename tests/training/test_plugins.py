"""Plugins in training: wrong gradients end it before its first step, and the run keeps what it was trained with."""

from pathlib import Path

import pytest
import yaml

import cnnlite
from cnnlite.config.load import load_config
from cnnlite.config.plugins import load
from cnnlite.errors import ConfigError, PluginError, StorageError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import load_data
from cnnlite.training.plugins import check_gradients
from tests.support.plugins import CONFIG, LAYER, WITH_PLUGIN, forget_plugins, shown
from tests.support.small_runs import TINY, assert_same_run

pytestmark = pytest.mark.usefixtures("here")
WRONG = LAYER.replace("return dy * self.factor", "return dy * self.factor * 1.01")
ACTIVATION = """\
import numpy as np

from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import layers


@layers.register("sine")
class Sine(Activation):
    def apply(self, x, out):
        np.sin(x, out=out)

    def gradient(self, dy, x, y, out):
        np.multiply(dy, np.cos(x), out=out)
"""


def write(name: str, text: str) -> None:
    Path(name).write_text(text, encoding="utf-8")


def checked(text: str, config: str = WITH_PLUGIN, name: str = "doubled.py") -> None:
    write(name, text)
    write("mine.yaml", config)
    made = load_config("mine.yaml")
    check_gradients(made, load_data(made))


def test_right_gradients_pass() -> None:
    checked(LAYER)
    for name, text in shown().items():
        write(name, text)
    made = load_config(yaml.safe_load(page_config()))
    check_gradients(made, load_data(made))


def page_config() -> str:
    from tests.support.pages import blocks

    (config,) = blocks("docs/plugins.md", "yaml")
    return config


def test_a_wrong_gradient_ends_the_training_before_there_is_a_run() -> None:
    write("doubled.py", WRONG)
    write("mine.yaml", WITH_PLUGIN)
    with pytest.raises(ConfigError) as caught:
        cnnlite.train("mine.yaml", quiet=True)
    (problem,) = caught.value.problems
    assert (problem.path, problem.file, problem.line) == ("model[2].doubled", "mine.yaml", 6)
    assert problem.message.startswith("the gradient of doubled for input is wrong: ")
    assert "e-0" in problem.message.partition(" of its length off finite differences")[0]
    assert not Path("runs").exists()


def test_a_layer_deep_inside_is_found() -> None:
    with pytest.raises(ConfigError, match=r"model\[2\]\.residual\.body\[0\]\.doubled: the gradient of doubled"):
        checked(WRONG, WITH_PLUGIN.replace("  - doubled\n", "  - residual: {body: [doubled]}\n"))


def test_an_activation_is_checked_where_batch_norm_does_its_work() -> None:
    config = TINY.replace("relu", "sine").replace("data:", "plugins: [sine.py]\ndata:", 1)
    checked(ACTIVATION, config, "sine.py")
    with pytest.raises(ConfigError, match=r"the gradient of batch_norm \+ sine for \w+ is wrong"):
        checked(ACTIVATION.replace("np.cos(x)", "np.cos(y)"), config, "sine.py")


def test_a_layer_that_the_network_does_not_use_is_not_checked() -> None:
    checked(WRONG, WITH_PLUGIN.replace("  - doubled\n", ""))


def test_a_layer_that_says_so_may_estimate_its_gradient() -> None:
    checked(WRONG.replace("    def __init__", "    estimates_gradient = True\n\n    def __init__"))


@pytest.mark.parametrize("mix", ["", ", mix: mixup"])
def test_the_gradient_of_a_loss_is_checked(mix: str) -> None:
    config = TINY.replace("validation: 20", f"validation: 20{mix}").replace("train:", "train:\n  loss: squared_hinge")
    config = f"plugins: [hinge.py]\n{config}"
    text = shown()["squared_hinge.py"]
    checked(text, config, "hinge.py")
    wrong = text.replace("-2 * t", "-2.01 * t")
    with pytest.raises(ConfigError, match=r"train\.loss\.squared_hinge: the gradient of squared_hinge for logits"):
        checked(wrong, config, "hinge.py")
    estimated = wrong.replace("    def __init__", "    estimates_gradient = True\n\n    def __init__")
    checked(estimated, config, "hinge.py")


def test_a_run_keeps_its_plugins_and_their_digests() -> None:
    write("doubled.py", LAYER)
    write("mine.yaml", WITH_PLUGIN)
    run = cnnlite.train("mine.yaml", epochs=1, quiet=True).run
    digest = load(Path("doubled.py")).digest
    assert (run / "plugins" / "doubled.py").read_bytes() == Path("doubled.py").read_bytes()
    assert yaml.safe_load((run / "config.yaml").read_text())["plugins"] == {"doubled.py": digest}
    assert load_checkpoint(run / "checkpoints" / "best.npz").meta["config"]["plugins"] == {"doubled.py": digest}
    assert f"plugin doubled.py, SHA-256 {digest}" in (run / "log.txt").read_text()


RULES = """\
from dataclasses import dataclass

from cnnlite.optim import optimizers
from cnnlite.optim.schedules import Schedule, schedules
from cnnlite.optim.sgd import SGD


@schedules.register("halved")
@dataclass(frozen=True)
class Halved(Schedule):
    def _curve(self, progress: float, epoch: float) -> float:
        return 0.5 ** int(epoch)


@optimizers.register("heavy")
@dataclass(eq=False)
class Heavy(SGD):
    momentum: float = 0.5
"""


def test_optimizers_and_schedules_come_from_plugins_too() -> None:
    write("rules.py", RULES)
    rules = ["train.optimizer={heavy: {lr: 0.02}}", "train.schedule=halved"]
    own = cnnlite.train("tiny.yaml", plugins=["rules.py"], overrides=rules, epochs=2, quiet=True)
    known = ["train.optimizer={sgd: {lr: 0.02, momentum: 0.5}}", "train.schedule={step: {gamma: 0.5, every: 1}}"]
    assert own.test_loss == cnnlite.train("tiny.yaml", overrides=known, epochs=2, quiet=True).test_loss


def test_a_run_without_plugins_has_no_folder_for_them() -> None:
    assert not (cnnlite.train("tiny.yaml", epochs=0.1, quiet=True).run / "plugins").exists()


def test_a_run_that_comes_to_nothing_leaves_no_copies() -> None:
    write("doubled.py", LAYER)
    run = RunDirectory.create_at(Path("new"))
    run.write_text("config.yaml", "x")
    run.keep_plugins({"doubled.py": b"x"})
    assert Path("new/plugins/doubled.py").exists()
    assert run.discard()
    assert not Path("new").exists()


def test_a_copy_that_is_there_stays() -> None:
    run = RunDirectory.create_at(Path("new"))
    for content in (b"first", b"second"):
        run.keep_plugins({"doubled.py": content})
        assert Path("new/plugins/doubled.py").read_bytes() == b"first"
    run.close()


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_copies_are_written_into_a_folder_of_the_run_alone(kind: str) -> None:
    run = RunDirectory.create_at(Path("new"))
    Path("outside").mkdir()
    if kind == "a file":
        Path("new/plugins").touch()
    else:
        Path("new/plugins").symlink_to(Path("outside").resolve())
    with pytest.raises(StorageError, match=r"plugins: is not a folder; remove it"):
        run.keep_plugins({"doubled.py": b"x"})
    run.close()
    assert not list(Path("outside").iterdir())


def test_a_run_is_made_longer_with_the_copy_of_its_plugin_if_that_is_named() -> None:
    write("doubled.py", LAYER)
    write("mine.yaml", WITH_PLUGIN)
    cnnlite.train("mine.yaml", epochs=1, run_dir="run", quiet=True)
    forget_plugins()
    with pytest.raises(PluginError, match=r"look at the copy in the run, then give plugins=\['run.plugins.doubled"):
        cnnlite.train(resume="run", epochs=2, quiet=True)
    assert cnnlite.train(resume="run", epochs=2, plugins=["run/plugins/doubled.py"], quiet=True).epochs == 2


def test_an_interrupted_run_resumed_with_its_plugin_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    write("doubled.py", LAYER)
    write("mine.yaml", WITH_PLUGIN)
    cnnlite.train("mine.yaml", run_dir="whole", quiet=True)
    count = 0

    def stop(*_: object, **__: object) -> None:
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cnnlite.utils.signals.StopFlag.check", stop)
        with pytest.raises(KeyboardInterrupt):
            cnnlite.train("mine.yaml", run_dir="parts", quiet=True, workers=1)
    forget_plugins()
    cnnlite.train(resume="parts", plugins=["doubled.py"], quiet=True)
    assert_same_run(Path("whole"), Path("parts"))
    forget_plugins()
    write("again.yaml", WITH_PLUGIN)
    assert cnnlite.train("again.yaml", resume="parts", quiet=True).epochs == 3  # a config of one's own names it too


def test_a_run_is_not_resumed_with_another_plugin() -> None:
    write("doubled.py", LAYER)
    write("mine.yaml", WITH_PLUGIN)
    cnnlite.train("mine.yaml", epochs=1, run_dir="run", quiet=True)
    write("doubled.py", LAYER.replace("2.0", "3.0"))
    for known in (False, True):
        if not known:
            forget_plugins()
        with pytest.raises(
            ConfigError, match=r"plugins: doubled.py is not that of the training: its SHA-256 is"
        ) as told:
            cnnlite.train(resume="run", epochs=2, plugins=[] if known else ["doubled.py"], quiet=True)
        assert str(told.value).endswith("which are in its folder plugins: name those with plugins")


def test_a_run_killed_before_its_first_checkpoint_asks_for_its_plugin() -> None:
    write("doubled.py", LAYER)
    write("mine.yaml", WITH_PLUGIN)
    run = cnnlite.train("mine.yaml", epochs=1, run_dir="run", quiet=True).run
    for path in [*run.glob("checkpoints/*"), *run.glob("*.csv"), run / "result.json", *run.glob("plugins/*")]:
        path.unlink()
    forget_plugins()
    with pytest.raises(PluginError, match=r"doubled\.py: no config of a run brings its code"):
        cnnlite.train(resume="run", quiet=True)
    cnnlite.train(resume="run", plugins=["doubled.py"], quiet=True)
    assert (run / "plugins" / "doubled.py").read_text() == LAYER


def test_a_program_that_loads_a_network_names_its_plugin() -> None:
    write("doubled.py", LAYER)
    write("mine.yaml", CONFIG)
    run = cnnlite.train("mine.yaml", epochs=1, plugins=["doubled.py"], quiet=True).run
    forget_plugins()
    with pytest.raises(PluginError):
        cnnlite.load(run)
    assert cnnlite.load(run, plugins=["doubled.py"]).classes
    forget_plugins()
    write("doubled.py", LAYER.replace("2.0", "3.0"))
    with pytest.warns(RuntimeWarning, match=r"doubled\.py is not that of the training"):
        cnnlite.load(run, plugins=["doubled.py"])
