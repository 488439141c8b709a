import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from cnnlite.runtime import engine

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("bench_growth")


@pytest.mark.long
def test_workers_batches_and_preparation_are_measured(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.threads()
    ratios = script.worker_speedups("quickstart", (1, 2), rounds=2, steps=1)
    assert engine.threads() == before
    assert len(ratios) == 2
    assert min(ratios) > 0
    monkeypatch.setattr(script, "BATCHES", (4, 8))
    times = script.batch_times("quickstart", rounds=1)
    assert times.keys() == {4, 8}
    assert min(times.values()) > 0
    making, training = script.preparation_share("small", 2)
    assert 0 < making < training


def test_the_figures_are_items_for_each_network(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "BATCHES", (4, 8))
    monkeypatch.setattr(script, "NETWORKS", {"quickstart": 1})
    monkeypatch.setattr(script, "preparation_share", lambda name, steps: (1.0, 9.0))
    workers, batches, preparation = script.figures(rounds=1)
    assert re.match(r"Workers: `quickstart` \(32\) is \*\*\d+\.\d\d\*\* times as fast with 2 as with 1", workers)
    assert re.search(r"\d+ ms for 4, \d+ ms for 8\.$", batches)
    assert "**10.0%** of the time" in preparation


def test_a_straight_line_is_found(script: Any) -> None:
    assert script.straight_line({64: 30.0, 128: 50.0, 256: 90.0}) == pytest.approx((10, 0.3125, 0), abs=1e-9)
    assert script.straight_line({64: 30.0, 128: 50.0, 256: 120.0})[2] > 0.05
