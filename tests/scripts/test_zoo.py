"""Networks that come with cnnlite, made of runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.tools.predict import Model
from tests.support.pages import ROOT
from tests.support.small_runs import tiny, trained


def test_a_network_is_taken_from_a_run_as_it_is_evaluated_and_without_what_trains_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    best = trained(run, tiny(epochs=1, averaging={"ema": {"decay": 0.9}}))
    subprocess.run([sys.executable, ROOT / "scripts/zoo.py", run, "--out", tmp_path / "zoo"], check=True)
    (path,) = (tmp_path / "zoo").iterdir()
    assert path.name == "tiny.npz"
    arrays = load_checkpoint(path).arrays
    assert {name.partition("/")[0] for name in arrays} == {"param", "buffer", "normalize"}
    assert load_checkpoint(path).meta["config"]["data"]["root"] == "data"
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(Model.load(path).predict(images), Model.load(best).predict(images))
