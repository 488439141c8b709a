"""scripts/reproduce trains what the table in docs/results.md says, and keeps figures that stand for themselves."""

import importlib
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cnnlite.config.bundled import bundled_configs
from cnnlite.config.load import load_config
from tests.support.small_runs import TINY, figures

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the script."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return importlib.import_module("parts.reproduce_row")


def test_every_training_in_the_table_of_results_is_a_row(script: Any) -> None:
    table = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    commands = [shlex.split(command) for command in re.findall(r"`(cnnlite train [^`]*)`", table)]
    assert commands
    for command in commands:
        assert command in [row.command(0) for row in script.ROWS.values()]


def test_rows_are_of_bundled_configs_and_are_listed(script: Any) -> None:
    assert {row.config for row in script.ROWS.values()} <= set(bundled_configs())
    listed = CliRunner().invoke(script.main, ["--list"])
    assert [line.split()[0] for line in listed.output.splitlines()] == list(script.ROWS)
    for row, line in zip(script.ROWS.values(), listed.output.splitlines(), strict=True):
        assert shlex.join(row.command(0)) in line
    for arguments in ([], ["nonsense"]):
        assert CliRunner().invoke(script.main, arguments).exit_code == 2


def test_a_row_is_trained_with_each_seed_and_its_figures_are_collected(
    script: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, runs, results = tmp_path / "tiny.yaml", tmp_path / "runs", tmp_path / "results"
    config.write_text(TINY, encoding="utf-8")
    row = script.Row(str(config), ("-o", "train.epochs=1", "--quiet"), seeds=(0, 3))

    script.reproduce("tiny", row, runs=runs, results=results, data=str(tmp_path / "mine"))

    results_found = []
    for seed in (0, 3):
        kept = results / f"tiny-seed{seed}"
        assert sorted(file.name for file in kept.iterdir()) == ["config.yaml", "metrics.csv", "result.json"]
        assert figures(kept) == figures(runs / f"tiny-seed{seed}")
        assert str(tmp_path) not in (kept / "config.yaml").read_text(encoding="utf-8")
        again = load_config(kept / "config.yaml")
        assert (again.seed, again.train.epochs) == (seed, 1)
        results_found.append(figures(kept)[1])
    cells = capfd.readouterr().out.splitlines()[-1].split(" | ")
    for cell, key in zip(cells[2:4], ("best_validation_accuracy", "test_accuracy"), strict=True):
        one, other = (100 * result[key] for result in results_found)
        assert cell == f"{(one + other) / 2:.1f} % ± {abs(one - other) / 2**0.5:.1f}"


def test_a_row_that_was_interrupted_goes_on(script: Any, tmp_path: Path) -> None:
    config, runs, results = tmp_path / "tiny.yaml", tmp_path / "runs", tmp_path / "results"
    config.write_text(TINY, encoding="utf-8")
    row = script.Row(str(config), ("-o", "train.epochs=1", "--quiet"), seeds=(0,))
    script.reproduce("tiny", row, runs=runs, results=results)
    run = runs / "tiny-seed0"
    whole = figures(run)
    (run / "result.json").unlink()
    (run / "checkpoints/previous.npz").replace(run / "checkpoints/last.npz")  # as if it had been stopped there
    script.reproduce("tiny", row, runs=runs, results=results)
    assert figures(run) == figures(results / run.name) == whole


def test_a_training_that_fails_ends_the_row(script: Any, tmp_path: Path) -> None:
    row = script.Row(str(tmp_path / "missing.yaml"))
    with pytest.raises(subprocess.CalledProcessError):
        script.reproduce("missing", row, runs=tmp_path / "runs", results=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_runs_without_validation_have_no_figure_for_it(script: Any, tmp_path: Path) -> None:
    kept = tmp_path / "x-seed0"
    kept.mkdir()
    facts = {"steps": 2000, "train_seconds": 61.4, "best_validation_accuracy": None, "test_accuracy": 0.94123}
    (kept / "result.json").write_text(json.dumps(facts), encoding="utf-8")
    text = script.table_row("x", script.Row("x.yaml", seeds=(0,)), tmp_path)
    assert text == "| `x.yaml` | 2,000 | - | 94.1 % | 61 to 61 s | `cnnlite train --config x.yaml --seed 0` |"
