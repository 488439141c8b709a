"""Plugins on the command line: as the pages say, and never because a file of a run says so."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from tests.runtime.test_distributed import COMMAND, PYTHON, needs_mpi, under_mpi
from tests.support.pages import blocks
from tests.support.plugins import CONFIG, LAYER, MARKING, WITH_PLUGIN, forget_plugins, shown

RUNS = {
    "eval": ["eval", "run"],
    "eval of a file": ["eval", "alone.npz"],
    "predict": ["predict", "run", "cat.png"],
    "export": ["export", "run", "out.onnx"],
    "show": ["show", "run"],
    "report": ["report", "run"],
    "explain": ["explain", "run"],
    "compare": ["compare", "run", "other"],
    "resume": ["train", "--resume", "run", "--epochs", "2"],
    "resume from a file": ["train", "--resume", "run/checkpoints/last.npz", "--epochs", "2"],
    "train": ["train", "-c", "run/config.yaml"],
    "dry run": ["train", "-c", "run/config.yaml", "--dry-run"],
    "summary": ["summary", "run/config.yaml"],
    "validate": ["validate", "run/config.yaml"],
    "gradcheck": ["gradcheck", "run/config.yaml"],
    "bench": ["bench", "run/config.yaml", "--steps", "1"],
    "preview": ["preview", "run/config.yaml"],
    "verify-resume": ["verify-resume", "run/config.yaml"],
}


EXPORTER = """\


from cnnlite.tools.onnx.graph import exports


@exports(Doubled)
def doubled(graph, layer, x, name):
    return graph.add("Mul", x, graph.constant(f"{name}.factor", layer.factor), name=name)
"""


def cnnlite(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-m", "cnnlite", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def right(*arguments: str) -> "subprocess.CompletedProcess[str]":
    done = cnnlite(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def given(names: list[str]) -> list[str]:
    return [word for name in names for word in ("--plugin", name)]


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_the_plugins_of_the_pages_work_in_every_command_from_file_to_prediction() -> None:
    for name, text in shown().items():
        Path(name).write_text(text, encoding="utf-8")
    (config,) = blocks("docs/plugins.md", "yaml")
    Path("mine.yaml").write_text(config, encoding="utf-8")
    lines = [line for block in blocks("docs/plugins.md", "sh") for line in re.findall("^cnnlite (.*)", block, re.M)]
    assert [line.split()[0] for line in lines] == ["validate", "gradcheck", "train", "eval"]
    told = {line.split()[0]: right(*shlex.split(line, comments=True)).stdout for line in lines}
    assert "channel_scale" in told["gradcheck"]
    assert f"cnnlite eval runs/mine, each with {' '.join(given(list(shown())))}\n" in told["train"]
    assert "all gradients are right" in told["gradcheck"]
    plugins = given(list(shown()))
    result = json.loads(Path("runs/mine/result.json").read_text())
    evaluated = json.loads(right("eval", "runs/mine", *plugins, "--json").stdout)
    assert (evaluated["accuracy"], evaluated["loss"]) == (result["test_accuracy"], result["test_loss"])
    assert evaluated["accuracy"] > 0.9
    assert "channel_scale" in right("summary", "mine.yaml").stdout
    assert "channel_scale" in right("bench", "mine.yaml", "--steps", "1", "--layers").stdout
    assert "channel_scale" in right("schema", *plugins).stdout
    assert "the same bits" in right("verify-resume", "mine.yaml", "--steps", "4").stdout
    right("preview", "mine.yaml")
    longer = right("train", "--resume", "runs/mine", *plugins, "--epochs", "11")
    assert json.loads(Path("runs/mine/result.json").read_text())["epochs"] == 11, longer.stderr


@pytest.mark.usefixtures("here")
def test_a_layer_of_a_file_predicts_is_shown_and_is_exported_if_it_says_how() -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    Path("doubled.py").write_text(LAYER, encoding="utf-8")
    Path("mine.yaml").write_text(CONFIG, encoding="utf-8")
    right("train", "-c", "mine.yaml", "-q", "--epochs", "1", "--run-dir", "run", "--plugin", "doubled.py")
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save("cat.png")
    plugin = given(["doubled.py"])
    assert "%" in right("predict", "run", "cat.png", *plugin).stdout
    right("show", "run", *plugin)
    assert "doubled" in Path("show.html").read_text(encoding="utf-8")
    right("explain", "run", *plugin)
    pytest.importorskip("onnx")
    done = cnnlite("export", "run", "out.onnx", *plugin)
    assert (done.returncode, "model[2].doubled: Doubled cannot be exported to ONNX" in done.stderr) == (2, True)
    Path("doubled.py").write_text(f"{LAYER}{EXPORTER}", encoding="utf-8")
    right("export", "run", "out.onnx", *plugin)
    assert Path("out.onnx").exists()


@pytest.fixture
def hostile(here: Path) -> Path:
    """A run whose files name a plugin in all ways that somebody might try; its code would leave a file behind."""
    Path("doubled.py").write_text(LAYER, encoding="utf-8")
    Path("mine.yaml").write_text(WITH_PLUGIN, encoding="utf-8")
    for name in ("run", "other"):
        done = CliRunner().invoke(cli, ["train", "-q", "-c", "mine.yaml", "--epochs", "1", "--run-dir", name])
        assert done.exit_code == 0, done.output
    forget_plugins()
    Path("doubled.py").write_text(MARKING, encoding="utf-8")
    Path("run/doubled.py").write_text(MARKING, encoding="utf-8")
    Path("run/plugins/doubled.py").write_text(MARKING, encoding="utf-8")
    Path("cat.png").touch()
    return here


def name_plugin(record: object) -> None:
    """Have checkpoints and config of the run say what their plugins are."""
    for path in Path("run").glob("checkpoints/*.npz"):
        checkpoint = load_checkpoint(path)
        checkpoint.meta["config"]["plugins"] = record
        save_checkpoint(path, checkpoint)
    text = re.sub(r"^plugins:.*\n", f"plugins: {json.dumps(record)}\n", Path("run/config.yaml").read_text(), flags=re.M)
    assert json.dumps(record) in text
    Path("run/config.yaml").write_text(text)
    Path("alone.npz").write_bytes(Path("run/checkpoints/best.npz").read_bytes())


DIGEST = hashlib.sha256(MARKING.encode()).hexdigest()
RECORDS: list[object] = [
    {"doubled.py": DIGEST},
    ["doubled.py"],
    ["plugins/doubled.py"],
    "doubled.py",
    {"../doubled.py": DIGEST},
    {"plugins/doubled.py": DIGEST},
    {"doubled.py": None},
    {"doubled.py": "true"},
    [{"doubled.py": DIGEST}],
]


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("record", RECORDS)
def test_no_file_of_a_run_has_code_run(record: object) -> None:
    name_plugin(record)
    for name, command in RUNS.items():
        done = CliRunner().invoke(cli, command)
        assert not Path("marker").exists(), name
        assert done.exit_code in (2, 3), (name, done.output)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert 1 <= len(errors) <= 2, (name, done.stderr)
        if record == {"doubled.py": DIGEST}:
            assert (done.exit_code, "--plugin" in errors[0], "doubled.py" in errors[0]) == (2, True, True), errors


@pytest.mark.usefixtures("hostile")
def test_the_copy_of_a_run_is_run_if_it_is_named() -> None:
    Path("run/plugins/doubled.py").write_text(LAYER, encoding="utf-8")
    asked = cnnlite("eval", "run")
    assert asked.stderr.splitlines()[-1] == (
        "error: run/checkpoints/best.npz: was trained with doubled.py; look at the copy in the run, then give --plugin "
        "run/plugins/doubled.py"
    )
    done = right("eval", "run", "--plugin", "run/plugins/doubled.py")
    assert "warning" not in done.stderr
    assert not Path("marker").exists()


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("name", ["eval", "explain", "compare", "show"])
def test_another_plugin_than_that_of_the_training_is_told(name: str) -> None:
    done = CliRunner().invoke(cli, [*RUNS[name], "--plugin", "doubled.py"])
    assert done.exit_code == 0, done.output
    assert "warning: doubled.py is not that of the training: its SHA-256 is" in done.stderr
    assert Path("marker").exists()


@pytest.mark.usefixtures("hostile")
def test_a_checkpoint_by_itself_says_which_plugin_it_needs() -> None:
    alone = Path("alone.npz")
    alone.write_bytes(Path("run/checkpoints/best.npz").read_bytes())
    done = cnnlite("eval", "alone.npz")
    assert done.stderr == "error: alone.npz: was trained with doubled.py; to run that file, give --plugin doubled.py\n"


@pytest.mark.usefixtures("here")
def test_an_interrupted_training_says_how_to_go_on_with_its_plugin() -> None:
    text = LAYER.replace("        return x *", "        if context.step == 5:\n            raise OSError(28, 'full')\n"
                         "        return x *")  # fmt: skip
    Path("doubled.py").write_text(text, encoding="utf-8")
    Path("mine.yaml").write_text(WITH_PLUGIN, encoding="utf-8")
    done = cnnlite("train", "-c", "mine.yaml", "--workers", "1")
    assert done.returncode != 0
    forget_plugins()
    text = LAYER.replace("        return x *", "        if context.step == 5:\n            import os, signal\n"
                         "            os.kill(os.getpid(), signal.SIGTERM)\n        return x *")  # fmt: skip
    Path("doubled.py").write_text(text, encoding="utf-8")
    done = cnnlite("train", "-c", "mine.yaml", "--workers", "1", "--run-dir", "run")
    assert "continue with: cnnlite train --resume run --plugin doubled.py" in done.stderr, done.stderr


@pytest.mark.usefixtures("here")
def test_a_mistake_in_a_plugin_at_work_is_told_as_one_of_the_plugin() -> None:
    Path("doubled.py").write_text(LAYER.replace("x * self.factor", "x * self.facto"), encoding="utf-8")
    Path("mine.yaml").write_text(WITH_PLUGIN, encoding="utf-8")
    for command in (["gradcheck", "mine.yaml"], ["train", "-c", "mine.yaml"]):
        done = cnnlite(*command)
        assert done.returncode == 1
        assert done.stderr == (
            "error: doubled.py:12: AttributeError: 'Doubled' object has no attribute 'facto'. Did you mean: 'factor'?\n"
            "this is a bug in the plugin; --debug shows where\n"
        ).replace(". Did you mean: 'factor'?", "")
        assert "doubled.py" in cnnlite(*command, "--debug").stderr


@pytest.mark.usefixtures("here")
def test_a_completion_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    Path("doubled.py").write_text(MARKING, encoding="utf-8")
    ShellComplete(cli, {}, "cnnlite", "_CNNLITE_COMPLETE").get_completions(["summary", "--plugin", "doubled.py"], "ti")
    assert not Path("marker").exists()


@pytest.mark.long
@pytest.mark.usefixtures("here")
@needs_mpi
def test_ranks_run_the_same_plugin_or_say_that_it_differs() -> None:
    Path("doubled.py").write_text(LAYER, encoding="utf-8")
    Path("mine.yaml").write_text(WITH_PLUGIN, encoding="utf-8")
    train = ["train", "--threads", "1", "-q"]
    begun = under_mpi(2, *COMMAND, *train, "-c", "mine.yaml", "--epochs", "1", "--run-dir", "ranks")
    assert begun.returncode == 0, begun.stderr
    asked = under_mpi(2, *COMMAND, *train, "--resume", "ranks", "--epochs", "2")
    assert (asked.returncode, asked.stderr.count("was trained with doubled.py")) == (2, 1), asked.stderr
    resumed = under_mpi(2, *COMMAND, *train, "--resume", "ranks", "--epochs", "2", "--plugin", "doubled.py")
    assert resumed.returncode == 0, resumed.stderr
    for rank in (0, 1):
        Path(f"of{rank}").mkdir()
        Path(f"of{rank}/doubled.py").write_text(f"# {rank}\n{LAYER}", encoding="utf-8")
        Path(f"of{rank}/mine.yaml").write_text(WITH_PLUGIN, encoding="utf-8")
    program = (
        "import os, sys; from cnnlite.cli import main\n"
        "sys.argv[1:] = ['train', '-q', '-c', f'of{os.environ[\"PMI_RANK\"]}/mine.yaml']; main()"
    )
    told = under_mpi(2, *PYTHON, "-c", program)
    assert (told.returncode, "plugins.doubled.py" in told.stderr) == (2, True), told.stderr
