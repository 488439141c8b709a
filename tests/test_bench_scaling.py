import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_scaling.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("bench_scaling", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_adds_up_computing_gradients_and_small_sums(script: Any) -> None:
    costs = script.Costs(fixed=0.1, per_image=0.01, gradient_bytes=40e6, small_exchanges=10, small_bytes=1000)
    latency, bandwidth = 1e-4, 1e9
    assert costs.step(1, 64, latency, bandwidth) == pytest.approx(0.1 + 0.64)
    messages = 2 * 3 * latency + 10 * 2 * latency
    carried = (2 * 3 / 4 * 40e6 + 3 * 1000) / bandwidth
    assert costs.step(4, 64, latency, bandwidth) == pytest.approx(0.1 + 0.16 + messages + carried)
    free = (0.0, float("inf"))
    assert costs.weak(256, 64, free) == pytest.approx(1)
    assert costs.strong(4, 64, free) == pytest.approx(0.74 / (4 * 0.26))


def test_the_costs_are_those_that_were_measured(script: Any) -> None:
    true = script.Costs(fixed=0.02, per_image=0.003, gradient_bytes=8e6, small_exchanges=7, small_bytes=500)
    found = {
        "1 rank of 2 threads": {"batch": 128, "seconds": true.step(1, 128, 0, 1)},
        "1 rank of 2 threads, quarter batch": {"batch": 32, "seconds": true.step(1, 32, 0, 1)},
        "2 ranks of 1 thread": {"gradient_bytes": 8e6, "large": 2, "exchanges": 11, "bytes_sent": 8e6 + 500},
    }
    costs = script.costs_of(found, 2)
    for name, value in vars(true).items():
        assert getattr(costs, name) == pytest.approx(value), name
