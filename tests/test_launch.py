"""What starting and resuming a run asks for first, and what it leaves alone when it cannot be done."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli

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
