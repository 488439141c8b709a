import importlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_the_model_is_told_the_link_and_compared_with_steps_over_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    script: Any = importlib.import_module("bench_network")
    true = script.costs_of.__globals__["Costs"](0.1, 0.01, 8e6, 1, 0.0, 10, 1000)
    own = (1e-4, 1e9)  # of messages without a link

    def alone(_: int, __: str, batch: int, *___: Any) -> Any:
        return {"seconds": true.compute(1, batch), "batch": batch, "adding": 0.0}

    def over(link: Any, _: str, batch: int, __: float) -> Any:
        network = own[0] + link.delay, min(own[1], link.bandwidth)
        sums = {"16": own[0], str(2**24): 2 * own[0] + 2**24 / own[1]}
        found = {"seconds": true.step(2, batch, network), "gradients": [8_000_000], "exchanges": 12, "adding": 0.0}
        return found | {"bytes_sent": 8e6 + 1000, "sums": sums}

    monkeypatch.setattr(script, "launch", alone)
    monkeypatch.setattr(script, "over", over)
    out = tmp_path / "out.md"
    options = ["--batch-size", "16", "--rounds", "1", "--link", "80:5", "--out", str(out)]
    done = CliRunner().invoke(script.main, ["any", *options])
    assert done.exit_code == 0, done.output
    computing, gradients, small = 180.0, 2 * 5.1 + 8e6 / 1e7 * 1e3, 10 * 5.1 + 0.1
    total = f"{computing + gradients + small:,.1f}"
    row = f"| 80 | 5 | {computing:,.1f} | {gradients:,.1f} | {small:,.1f} | {total} | {total} | +0.0% |"
    assert row in out.read_text(encoding="utf-8")
