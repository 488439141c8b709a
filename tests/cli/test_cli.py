import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import cnnlite
from cnnlite import __version__
from cnnlite.cli import cli, models, training
from cnnlite.data import DatasetMissing
from cnnlite.errors import AccuracyError
from cnnlite.nn.network import Network
from cnnlite.runs.directory import RunDirectory
from cnnlite.runtime import engine
from cnnlite.training.launch import Request
from tests.support.small_runs import assert_same_run, figures

pytestmark = pytest.mark.usefixtures("here")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def trained(*arguments: str) -> Path:
    result = run("train", "-c", "tiny.yaml", "--quiet", "--threads", "1", *arguments)
    assert result.exit_code == 0, result.output
    return Path("runs/tiny")


def test_version() -> None:
    assert run("--version").output == f"cnnlite {__version__}\n" or __version__ in run("--version").output


def test_train_ends_with_the_accuracy_and_where_to_look_next() -> None:
    result = run("train", "-c", "tiny.yaml")
    assert result.exit_code == 0
    accuracy = figures(Path("runs/tiny"))[1]["test_accuracy"]
    assert f"test accuracy {accuracy:.2%}" in result.stdout
    next_commands = (
        "cnnlite show runs/tiny, cnnlite explain runs/tiny, cnnlite report runs/tiny, cnnlite eval runs/tiny"
    )
    assert result.stdout.endswith(f"\nlook closer: {next_commands}\n")
    assert result.stderr.count("validation loss") == 5
    files = {".lock", "checkpoints", "config.yaml", "environment.json", "log.txt", "metrics.csv", "result.json"}
    files |= {"predictions.csv"}
    assert {entry.name for entry in Path("runs/tiny").iterdir()} == files
    assert Path("runs/tiny/log.txt").read_text() == result.stderr + result.stdout.splitlines(keepends=True)[0]


def test_the_resolved_config_of_a_run_makes_the_same_run() -> None:
    trained()
    assert run("train", "-c", "runs/tiny/config.yaml", "--run-dir", "again", "-q").exit_code == 0
    rows, result = figures(Path("again"))
    first_rows, first_result = figures(Path("runs/tiny"))
    assert rows == first_rows
    assert result | {"config": ""} == first_result | {"config": ""}


def test_runs_are_the_same_bits_on_any_number_of_threads() -> None:
    trained()
    assert run("train", "-c", "tiny.yaml", "--threads", "3", "-q").exit_code == 0
    assert engine.threads() == 3
    assert_same_run(Path("runs/tiny"), Path("runs/tiny-2"))


def test_so_are_those_of_weighted_losses_and_balanced_batches() -> None:
    loss = "train.loss={focal: {class_weights: [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]}}"
    overrides = ["-o", loss, "-o", "data.sampling=balanced", "-o", "train.monitor=macro_f1", "--epochs", "1"]
    trained(*overrides)
    assert run("train", "-c", "tiny.yaml", "--threads", "3", "-q", *overrides).exit_code == 0
    assert_same_run(Path("runs/tiny"), Path("runs/tiny-2"))


def test_flags_come_after_overrides() -> None:
    trained("-o", "train.epochs=9", "-o", "seed=7", "--epochs", "1", "--seed", "3")
    result = figures(Path("runs/tiny"))[1]
    assert (result["epochs"], result["seed"]) == (1, 3)


def test_epochs_are_taken_as_exactly_as_they_are_given() -> None:
    config = Request("small", epochs=2 / 3).load_config()
    assert config.train.total_steps(3000) == 2000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train"], 2, ["--config", "--resume"]),
        (["train", "-c", "missing.yaml"], 2, ["missing.yaml"]),
        (["train", "-c", "tiny.yaml", "-o", "train.epoch=3"], 2, ["epochs"]),
        (["train", "-c", "tiny.yaml", "-o", "model.6.linear.out_features=9"], 2, ["9", "10"]),
        (["train", "-c", "tiny.yaml", "-o", "train.batch_size=107"], 2, ["107", "106"]),
        (["train", "-c", "tiny.yaml", "--threads", "0"], 2, ["threads"]),
        (["train", "-c", "tiny.yaml", "--epochs", "nan"], 2, ["epochs"]),
        (["train", "-c", "tiny.yaml", "--epochs", "-1"], 2, ["epochs"]),
        (["train", "-c", "tiny.yaml", "-o", "data.dataset=cifar10"], 3, ["cnnlite download-cifar --data data"]),
        (["train", "-c", "tiny.yaml", "--run-dir", "tiny.yaml"], 2, ["tiny.yaml"]),
        (["train", "-c", "tiny.yaml", "--run-dir", "."], 2, ["not empty"]),
        (["train", "-c", "tiny.yaml", "--run-dir", "tiny.yaml/run"], 5, ["cannot"]),
        (["train", "--resume", "missing"], 2, ["missing"]),
        (["train", "--resume", "."], 2, ["not a run"]),
        (["train", "--resume", "tiny.yaml"], 2, ["tiny.yaml"]),
        (["train", "--resume", "x", "--run-dir", "y"], 2, ["--resume goes on in its own directory", "--run-dir"]),
        (["train", "--resume", "x", "--budget", "1m"], 2, ["keeps its number of steps: leave out --budget"]),
        (["train", "--resume", "x", "--dry-run"], 2, ["leave out --resume"]),
        (["train", "-c", "tiny.yaml", "--budget", "1m", "--epochs", "1"], 2, ["leave out --epochs"]),
        (["eval", "missing.npz"], 3, ["missing.npz"]),
        (["eval", "."], 2, ["not a run directory"]),
        (["eval", "tiny.yaml"], 3, ["tiny.yaml"]),
        (["eval", "missing.npz", "--min-accuracy", "75"], 2, ["fractions"]),
        (["eval", "missing.npz", "--min-accuracy", "nan"], 2, ["fractions"]),
        (["eval", "missing.npz", "--split", "tset"], 2, ["tset"]),
        (["download-cifar", "--from-file", "a", "--url", "b"], 2, ["--url"]),
        (["download-cifar", "--from-file", "missing.tar.gz"], 3, ["missing.tar.gz"]),
        (["configs", "show", "quickstrat"], 2, ["quickstart"]),
        (["validate", "missing"], 2, ["missing"]),
        (["trian"], 2, ["trian"]),
    ],
)
def test_errors_are_short_name_the_thing_and_leave_nothing(arguments: list[str], code: int, words: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 5
    for word in words:
        assert word in result.stderr
    assert os.listdir() == ["tiny.yaml"]


def test_a_bug_is_one_line_and_a_traceback_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "forward", lambda *_, **__: {"a": 1}["surprise"])
    result = run("train", "-c", "tiny.yaml")
    assert result.exit_code == 1
    assert "surprise" in result.stderr
    assert "Traceback" not in result.stderr
    assert os.listdir() == ["tiny.yaml"]
    assert "Traceback" in run("train", "-c", "tiny.yaml", "--debug").stderr


def test_out_of_memory_and_divergence_have_their_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("train", "-c", "tiny.yaml", "-o", "train.optimizer.adam.lr=1e35")
    assert result.exit_code == 4
    assert "step" in result.stderr
    assert os.listdir("runs") == ["tiny"]

    def starve(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Network, "forward", starve)
    result = run("train", "-c", "tiny.yaml")
    assert result.exit_code == 5
    assert "batch size 16" in result.stderr
    assert os.listdir("runs") == ["tiny"]


def test_eval_prints_each_class_and_json_for_programs() -> None:
    checkpoint = str(trained() / "checkpoints/best.npz")
    test_accuracy = figures(Path("runs/tiny"))[1]["test_accuracy"]
    plain = run("eval", checkpoint)
    assert f"accuracy {test_accuracy:.2%}" in plain.stdout
    assert "crescent" in plain.stdout
    facts = json.loads(run("eval", checkpoint, "--json").stdout)
    mirrored = json.loads(run("eval", checkpoint, "--json", "--tta", "mirror").stdout)
    assert mirrored.keys() == facts.keys()
    assert mirrored["loss"] != facts["loss"]
    assert facts["accuracy"] == test_accuracy
    assert facts["checkpoint"] == checkpoint
    assert sum(map(sum, facts["confusion"])) == facts["images"] == 40
    assert run("eval", checkpoint, "--min-accuracy", "0").exit_code == 0
    too_low = run("eval", checkpoint, "--min-accuracy", "1")
    assert too_low.exit_code == 3
    assert "below 1" in too_low.stderr
    with pytest.raises(AccuracyError):  # the checkpoint has no fault
        models.evaluate.main([checkpoint, "--workers", "1", "--min-accuracy", "1"], standalone_mode=False)


@pytest.mark.parametrize("command", ["show {0} --out {0}", "predict {0} . --csv {0}", "export {0} {0}"])
def test_force_never_replaces_the_checkpoint_that_is_read(command: str) -> None:
    checkpoint = trained() / "checkpoints/best.npz"
    before = checkpoint.read_bytes()
    done = run(*command.format(checkpoint).split(), "--force")
    assert done.exit_code == 2
    assert done.stderr == f"error: {checkpoint}: is the checkpoint itself; name another file\n"
    assert checkpoint.read_bytes() == before


def test_a_run_stands_for_its_best_checkpoint_or_else_its_last() -> None:
    folder = trained() / "checkpoints"
    for kind in "best", "last":
        file = folder / f"{kind}.npz"
        plain = run("eval", str(file))
        for path in "runs/tiny", "runs/tiny/checkpoints":
            named = run("eval", path)
            assert (named.stdout, named.stderr) == (plain.stdout, f"taking {file}\n")
        assert run("predict", "runs/tiny", "nothing.png").stderr.startswith(f"taking {file}\n")
        assert cnnlite.load("runs/tiny").predict(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 10)
        file.unlink()
    (folder / "previous.npz").unlink()
    assert "runs/tiny: no checkpoint yet" in run("eval", "runs/tiny").stderr


def test_bundled_configs_are_listed_shown_and_copied(here: Path) -> None:
    listed = dict(line.split(maxsplit=1) for line in run("configs", "list").stdout.splitlines())
    assert listed["quickstart.yaml"] == "Ten kinds of shapes, drawn by code, so there is nothing to download"
    text = run("configs", "show", "quickstart").stdout
    assert "dataset: shapes" in text
    assert run("configs", "copy", "quickstart").exit_code == 0
    assert (here / "quickstart.yaml").read_text() == text
    again = run("configs", "copy", "quickstart")
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    assert run("configs", "copy", "quickstart", "mine.yaml").exit_code == 0
    assert (here / "mine.yaml").read_text() == text


def test_validate_tells_right_from_wrong() -> None:
    assert run("validate", "tiny.yaml").exit_code == 0
    result = run("validate", "tiny.yaml", "-o", "train.batch_size=0")
    assert (result.exit_code, "batch_size" in result.stderr) == (2, True)


@pytest.mark.parametrize("command", [("validate", "bad.yaml"), ("train", "-c", "bad.yaml")])
@pytest.mark.parametrize(
    ("kernel", "match", "change", "told"),
    [
        (50, "bias", (), "bad.yaml:3: model[0].conv2d: a window of 50 does not fit"),
        (3, "bais", (), "bad.yaml:10: train.optimizer.composite.members[1].match: 'bais' matches no parameter"),
        (3, "bais", ("-o", "train.optimizer={sgd: {lr: 1, groups: [{match: gamma}]}}"),
         "groups: [{match: gamma}]}}: train.optimizer.sgd.groups[0].match: 'gamma' matches no parameter"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_network_is_found_before_the_data_is_and_told_with_its_line(
    command: tuple[str, ...], kernel: int, match: str, change: tuple[str, ...], told: str, here: Path
) -> None:
    (here / "bad.yaml").write_text(
        f"""\
data: {{dataset: cifar10, root: nowhere}}
model:
  - conv2d: {{out_channels: 2, kernel_size: {kernel}}}
  - flatten
  - linear: {{out_features: 10}}
train:
  epochs: 1
  optimizer:
    composite: {{members: [{{match: weight, optimizer: {{sgd: {{lr: 1}}}}}},
      {{match: {match}, optimizer: {{sgd: {{lr: 1}}}}}}]}}
"""
    )
    result = run(*command, *change)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr


def test_a_complete_run_is_not_trained_again() -> None:
    before = trained().joinpath("metrics.csv").read_bytes()
    result = run("train", "--resume", "runs/tiny")
    assert result.exit_code == 0
    assert "complete" in result.stderr
    assert "test accuracy" in result.stdout
    assert Path("runs/tiny/metrics.csv").read_bytes() == before


def test_a_run_may_be_made_longer_and_is_told_so() -> None:
    trained("--epochs", "1")
    result = run("train", "--resume", "runs/tiny", "--epochs", "2")
    assert result.exit_code == 0, result.output
    assert "train.epochs: was 1.0, is 2.0" in result.stderr
    assert "cosine now spans 14 steps instead of 7" in result.stderr
    rows, final = figures(Path("runs/tiny"))
    assert final["epochs"] == 2
    assert [row["step"] for row in rows] == ["5", "7", "10", "14"]


def test_a_resumed_run_may_change_nothing_that_is_computed() -> None:
    trained("--epochs", "1")
    before = Path("runs/tiny/config.yaml").read_text()
    arguments = ["--resume", "runs/tiny", "--epochs", "2", "--seed", "1", "-o", "train.optimizer.adam.lr=0.1"]
    result = run("train", *arguments)
    assert result.exit_code == 2
    assert "seed: was 0, is 1" in result.stderr
    assert "train.optimizer.adam.lr: was 0.003, is 0.1" in result.stderr
    assert Path("runs/tiny/config.yaml").read_text() == before


def test_a_run_of_another_version_or_other_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trained("--epochs", "1")
    with monkeypatch.context() as patch:
        patch.setattr("cnnlite.training.resume.__version__", "9.9")
        result = run("train", "--resume", "runs/tiny", "--epochs", "2")
        assert (result.exit_code, "9.9" in result.stderr) == (3, True)
    monkeypatch.setattr("cnnlite.data.datasets.shapes.digest", lambda *_: "other")
    result = run("train", "--resume", "runs/tiny", "--epochs", "2")
    assert (result.exit_code, "not the images" in result.stderr) == (3, True)


def test_a_corrupt_newest_checkpoint_is_set_aside_and_a_named_one_refused() -> None:
    whole = trained()
    assert run("train", "-c", "tiny.yaml", "-q", "--run-dir", "other").exit_code == 0
    os.unlink("other/result.json")
    last = Path("other/checkpoints/last.npz")
    last.write_bytes(last.read_bytes()[:-1])
    named = run("train", "--resume", str(last))
    assert (named.exit_code, "SHA-256" in named.stderr) == (3, True)
    result = run("train", "--resume", "other")
    assert result.exit_code == 0, result.output
    assert "set aside" in result.stderr
    assert_same_run(whole, Path("other"))


def test_a_named_checkpoint_is_where_the_run_goes_on() -> None:
    whole = trained()
    assert run("train", "-c", "tiny.yaml", "-q", "--run-dir", "other").exit_code == 0
    result = run("train", "--resume", "other/checkpoints/previous.npz")
    assert "warning: going back from step 21 to step 20: rows, checkpoints and result after it" in result.stderr
    assert_same_run(whole, Path("other"))


def test_a_run_in_use_is_refused() -> None:
    trained("--epochs", "1")
    held = RunDirectory.open(Path("runs/tiny"))
    result = run("train", "--resume", "runs/tiny", "--epochs", "2")
    held.close()
    assert (result.exit_code, "another process" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["mine.yaml"], "write --config mine.yaml"),
        (["-o", "seed=3", "mine.yaml"], "write --config mine.yaml"),
        (["-c", "tiny.yaml", "-o", "train.epochs", "5"], "write -o train.epochs=5"),
        (["run"], "write --resume run"),
        (["-o", "seed=3", "run/"], "write --resume run/"),
    ],
)
def test_what_belongs_to_no_option_is_answered_with_the_option(arguments: list[str], way_out: str) -> None:
    os.makedirs("run/checkpoints")
    result = run("train", *arguments)
    assert (result.exit_code, result.stderr.endswith(f"; {way_out}\n")) == (2, True), result.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_yes_to_the_offer_downloads_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Any] = []
    monkeypatch.setattr(training, "_download", lambda root, **wishes: wanted.append((root, wishes)))
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, Terminal())
    assert training.offer_download(DatasetMissing("cifar100", Path("d")))
    assert wanted == [(Path("d"), {"dataset": "cifar100"})]


def test_no_answer_to_the_offer_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_of_input(*_: object, **__: object) -> str:
        raise EOFError

    monkeypatch.setattr("click.termui.visible_prompt_func", end_of_input)
    stderr = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", stderr)
    assert not training.offer_download(DatasetMissing("cifar100", Path("d")))
    assert stderr.getvalue().endswith("\n")


def test_a_library_that_cannot_be_loaded_is_one_line_and_no_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ImportError("\nREAD THIS\n\nOriginal error was: libblas.so: failed to map segment\n\nadvice")

    monkeypatch.setattr("cnnlite.config.load.load_config", load)
    result = run("validate", "tiny.yaml")
    told = "a library cannot be loaded: libblas.so: failed to map segment; is there memory for it, is it whole?"
    assert (result.exit_code, result.stderr) == (5, f"error: {told}\n")


def test_a_name_that_is_not_there_to_import_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ImportError("cannot import name 'x' from 'cnnlite'")

    monkeypatch.setattr("cnnlite.config.load.load_config", load)
    assert run("validate", "tiny.yaml").exit_code == 1
