import importlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.runtime.test_distributed import needs_mpi

SCRIPTS = Path(__file__).parents[2] / "scripts"
FREE = (0.0, float("inf"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("bench_scaling")


def costs(script: Any, **changed: float) -> Any:
    parts = {"fixed": 0.1, "per_image": 0.01, "gradient_bytes": 40e6, "gradient_arrays": 2, "adding": 1e-10}
    return script.Costs(**{**parts, "small_exchanges": 10, "small_bytes": 1000, **changed})


def test_the_model_adds_up_computing_gradients_and_small_sums(script: Any) -> None:
    network = 1e-4, 1e9
    model = costs(script)
    assert model.step(1, 64, network) == pytest.approx(0.1 + 0.64)
    gradients = 2 * 2 * 3 * 1e-4 + 2 * 3 / 4 * 40e6 / 1e9 + 40e6 * 1e-10
    small = 2 * (10 * 1e-4 + 1000 / 1e9)
    assert model.gradients(4, network) == pytest.approx(gradients)
    assert model.step(4, 64, network) == pytest.approx(0.1 + 0.16 + gradients + small)
    assert model.step(4, 64, network, hidden=True) == pytest.approx(0.1 + 0.16 + small)
    assert costs(script, adding=0).weak(256, 64, FREE) == pytest.approx(1)
    assert costs(script, adding=0).strong(4, 64, FREE) == pytest.approx(0.74 / (4 * 0.26))


def test_the_costs_are_those_that_were_measured(script: Any) -> None:
    true = costs(script, fixed=0.02, gradient_bytes=8e6)
    found = {
        script.THREADS: [{"batch": 128, "seconds": true.compute(1, 128), "adding": 1e-10}],
        f"{script.THREADS}, quarter batch": [{"batch": 32, "seconds": true.compute(1, 32)}],
        script.PAIR: [{"seconds": 1, "gradients": [3e6, 5e6, 400], "exchanges": 14, "bytes_sent": 8e6 + 1000}],
    }
    fitted = script.costs_of(found, script.THREADS)
    for name, value in vars(true).items():
        assert getattr(fitted, name) == pytest.approx(value), name


def test_latency_and_bandwidth_give_the_measured_sums(script: Any) -> None:
    true = 2e-5, 3e9
    model = costs(script, gradient_bytes=2**24, gradient_arrays=1)
    sums = {"16": true[0], str(2**24): model.gradients(2, true)}
    assert script.network_of({"sums": sums, "adding": model.adding}) == pytest.approx(true)


@needs_mpi
def test_what_two_ranks_measure_is_written_between_the_marks(script: Any, tmp_path: Path) -> None:
    pair, alone = (script.launch(ranks, "quickstart", 8, 1, 0.0) for ranks in (2, 1))
    small = script.launch(1, "quickstart", 4, 1, 0.0)
    assert alone["sums"] is None
    assert alone["exchanges"] == 0
    assert pair["exchanges"] > 2
    assert pair["bytes_sent"] >= sum(pair["gradients"])
    found = {script.ALONE: [alone], f"{script.ALONE}, half batch": [small], script.THREADS: [alone]}
    found |= {f"{script.THREADS}, quarter batch": [small], script.PAIR: [pair], f"{script.PAIR}, double batch": [pair]}
    out = tmp_path / "notes.md"
    first, last = script.MARKS
    assert first in script.OUT.read_text(encoding="utf-8")
    out.write_text(f"before\n{first}\nold\n{last}\nafter\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "measure", lambda *_: found)
        done = CliRunner().invoke(script.main, ["quickstart", "--batch-size", "8", "--out", str(out)])
    assert done.exit_code == 0, done.output
    text = out.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{first}\n")
    assert text.endswith(f"\n{last}\nafter\n")
    assert "| 2 ranks of 1 thread | 8 |" in text
    assert "| 100 Gbit/s | strong, 8 images in all |" in text
    assert "old" not in text
