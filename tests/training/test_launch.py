"""What starting and resuming a run asks for first, and what it leaves alone when it cannot be done."""

import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite import __version__
from cnnlite.cli import cli
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("here")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", "--threads", "1", "--quiet", *arguments])


def trained(*arguments: str) -> Path:
    result = run("-c", "tiny.yaml", "--run-dir", "run", *arguments)
    assert result.exit_code == 0, result.output
    return Path("run")


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (["--epochs", "1"], "train.epochs: the run is at step 14 already, beyond the 7 asked for; give 2 or more"),
        (
            ["-o", "train.iterations=9"],
            "train.iterations: the run is at step 14 already, beyond the 9 asked for; give 14 or more",
        ),
    ],
)
def test_a_length_that_a_run_is_beyond_is_refused_and_not_remembered(length: list[str], told: str) -> None:
    trained("--epochs", "2")
    refused = run("--resume", "run", *length)
    assert (refused.exit_code, refused.stderr) == (2, f"error: {told}\n")
    again = run("--resume", "run")
    assert (again.exit_code, "this run is complete" in again.stderr) == (0, True), again.output


@pytest.mark.parametrize("options", [{"tta": None}, {"gone": 3}], ids=["with fewer options", "with an option more"])
def test_a_run_of_another_version_names_that_version_whatever_its_options_were(options: dict[str, object]) -> None:
    """An option that came since has no value in the run, and one that went is unknown by now."""
    path = trained("--epochs", "1") / "checkpoints" / "last.npz"
    checkpoint = load_checkpoint(path)
    train = {**checkpoint.meta["config"]["train"], **options}
    checkpoint.meta["config"]["train"] = {key: value for key, value in train.items() if value is not None}
    checkpoint.meta["versions"]["cnnlite"] = "0.0.9"
    save_checkpoint(path, checkpoint)
    Path("run/config.yaml").write_text(yaml.safe_dump(checkpoint.meta["config"]), encoding="utf-8")
    refused = run("--resume", "run")
    words = f"the run was made by cnnlite 0.0.9, this is {__version__}; install 0.0.9 to resume it"
    assert (refused.exit_code, refused.stderr) == (3, f"error: {words}\n")
    assert path.exists()


@pytest.mark.parametrize("arguments", [["-c", "tiny.yaml", "--tensorboard"], ["--resume", "run", "--epochs", "2"]])
def test_a_missing_tensorboardx_is_found_before_data_are_loaded_or_anything_is_measured(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained("--epochs", "1") / "tensorboard").mkdir()
    config = Path("run/config.yaml").read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for name in ("load_data", "measure"):
        monkeypatch.delattr(f"cnnlite.training.launch.{name}")
    refused = run(*arguments, *["--budget", "1h"] * ("-c" in arguments))
    assert (refused.exit_code, 'pip install "cnnlite[tensorboard]"' in refused.stderr) == (2, True), refused.output
    assert Path("run/config.yaml").read_bytes() == config


@pytest.mark.parametrize("more", [[], ["--epochs", "1"]])
def test_a_complete_run_stays_so_wherever_its_data_are(more: list[str]) -> None:
    result = (trained("--epochs", "1") / "result.json").stat().st_mtime_ns
    again = run("--resume", "run", "--data", "elsewhere", *more)
    assert (again.exit_code, "this run is complete" in again.stderr) == (0, True), again.output
    assert Path("run/result.json").stat().st_mtime_ns == result
