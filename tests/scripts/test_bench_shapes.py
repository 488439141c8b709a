"""The comparison of single convolutions compares the same results; skipped where PyTorch is missing."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("bench_shapes")


def test_both_sides_compute_the_same(script: Any) -> None:
    for shape in script.SHAPES:
        if shape.size * shape.channels * shape.filters < 20_000:
            assert script.difference(shape, "default") < script.TOLERANCE / 2, shape
    assert script.difference(script.SHAPES[-1], "channels_last") < script.TOLERANCE / 2


def test_a_difference_is_noticed(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = script.Shape(6, 3, 4, 3, 2, 1)
    results = script.Theirs.results
    for number in range(3):

        def wrong(self: Any, number: int = number) -> Any:
            arrays = [array.copy() for array in results(self)]
            arrays[number] = np.roll(arrays[number], 1, axis=0)
            return tuple(arrays)

        monkeypatch.setattr(script.Theirs, "results", wrong)
        assert script.difference(shape, "default") > 100 * script.TOLERANCE


def test_a_row_says_shape_way_times_and_ratio(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Fake:
        peak_memory_bytes = 1

        def __init__(self, _: str, arguments: list[Any], threads: int):
            self.side, shape, batch, asked = arguments
            assert (shape, batch, asked, threads) == (script.Shape(12, 37, 41, 4, 2, 1), 8, 1, 1)
            self.facts = {"way": "unfold", "version": "2"}

        def seconds(self, steps: int) -> list[float]:
            return [{"cnnlite": 0.001, "default": 0.003, "channels_last": 0.002}[self.side]] * steps

        def close(self) -> None:
            pass

        def __enter__(self) -> "Fake":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(script, "Side", Fake)
    options = ["--only=12x12", "--rounds=2", "--steps=3", "--batch-size=8", "--threads=1", f"--out={tmp_path / 'o.md'}"]
    done = CliRunner().invoke(script.main, options)
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "o.md").read_text(encoding="utf-8").splitlines()
    row = "| 4x4 by 2, 37 to 41, 12x12 | unfold | 1.00 | 2.00 | channels_last | **2.00** | 2.00 to 2.00 |"
    assert lines[3] == row
    assert CliRunner().invoke(script.main, ["--only=nothing"]).exit_code == 2
