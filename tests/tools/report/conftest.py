"""A trained run and its report, made once for all tests."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.data import Dataset
from cnnlite.runs.restore import load_data
from cnnlite.tools.report import record as records
from cnnlite.tools.report.record import Record
from tests.support.report_runs import trained
from tests.support.small_runs import tiny


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A run of the small config, with nothing missing and a name that has to be broken on narrow screens."""
    config = tiny(epochs=2)
    folder = tmp_path_factory.mktemp("runs") / "a-run-with-a-rather-long-name-that-has-to-be-broken"
    return trained(folder, config, load_data(config))


@pytest.fixture(scope="session")
def report(run: Record) -> Path:
    """The folder with the report of that run, written by the command, which finds no test images."""
    pytest.importorskip("matplotlib")

    def without_test(*arguments: object) -> Dataset:
        dataset = load_data(*arguments)  # type: ignore[arg-type]
        object.__setattr__(dataset, "test", None)
        return dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "load_data", without_test)
        done = CliRunner().invoke(cli, ["report", str(run.path)], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, f"{run.path / 'report' / 'index.html'}\n")
    assert "looking at 20 validation images" in done.stderr
    return run.path / "report"
