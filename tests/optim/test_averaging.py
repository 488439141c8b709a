"""Averages of weights: their formulas, what they are used for, and that a run with them goes on bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset
from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.nn.network import Network
from cnnlite.optim.averaging import EMA, Averaging, Lookahead
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from cnnlite.runtime import engine
from cnnlite.training.evaluation import evaluate_checkpoint
from cnnlite.utils.signals import Stopped
from cnnlite.utils.types import Array
from tests.support.small_runs import assert_same_run, figures, state, tiny
from tests.support.training_parts import StopAt, resume, start

EVERY: list[Any] = [{"ema": {"decay": 0.9, "every": 2}}, {"lookahead": {"steps": 4}}]


def arrays(dtype: Any = np.float64) -> dict[str, Array]:
    return {"param/w": np.arange(6, dtype=dtype).reshape(2, 3), "buffer/mean": np.ones(2, dtype)}


def values(step: int) -> dict[str, Array]:
    rng = np.random.default_rng(step)
    return {"param/w": rng.standard_normal((2, 3)), "buffer/mean": rng.standard_normal(2)}


def run(averaging: Averaging, steps: int) -> tuple[dict[str, Array], dict[str, Array]]:
    live = arrays()
    averaging.bind(live)
    for step in range(steps):
        for name, value in values(step).items():
            live[name][...] = value
        averaging.update(step)
    return live, averaging.state()


@pytest.mark.parametrize("every", [1, 3])
def test_ema_weighs_what_it_saw_with_powers_of_the_decay_that_add_up_to_one(every: int) -> None:
    live, averages = run(EMA(decay=0.8, every=every), 10)
    seen = [values(step) for step in range(10) if (step + 1) % every == 0]
    weights = np.array([0.8**age for age in reversed(range(len(seen)))])
    for name, average in averages.items():
        expected = sum(w * v[name] for w, v in zip(weights / weights.sum(), seen, strict=True))
        np.testing.assert_allclose(average, expected, rtol=1e-12)
        np.testing.assert_array_equal(live[name], values(9)[name])


def test_ema_equals_torch_from_the_second_update_on_if_the_first_one_is_a_copy(torch: Any) -> None:
    module = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    rates = [(1 - 0.8) / (1 - 0.8 ** (t + 1)) for t in range(6)]
    average = torch.optim.swa_utils.AveragedModel(
        module, avg_fn=lambda a, w, count: torch.lerp(a, w, rates[int(count)]), use_buffers=True
    )
    for step in range(6):
        module.weight.data = torch.tensor(values(step)["param/w"])
        average.update_parameters(module)
    np.testing.assert_allclose(run(EMA(0.8), 6)[1]["param/w"], average.module.weight.detach().numpy(), rtol=1e-12)


def test_lookahead_has_the_defaults_of_the_paper() -> None:
    assert (Lookahead().steps, Lookahead().alpha) == (5, 0.5)


def test_what_does_not_change_is_its_own_average_to_the_bit() -> None:
    live = {"buffer/w": np.random.default_rng(0).standard_normal(1000).astype(np.float32)}
    averaging = EMA(0.9)
    averaging.bind(live)
    for step in range(50):
        averaging.update(step)
    np.testing.assert_array_equal(averaging.state()["buffer/w"], live["buffer/w"])


def test_lookahead_follows_every_few_steps_and_takes_the_weights_back_but_not_the_buffers() -> None:
    live = arrays()
    averaging = Lookahead(steps=3, alpha=0.25)
    averaging.bind(live)
    slow, fast = arrays()["param/w"], arrays()["param/w"]
    for step in range(8):
        change = values(step)["param/w"]
        fast = fast + change
        live["param/w"] += change
        live["buffer/mean"][...] = values(step)["buffer/mean"]
        averaging.update(step)
        if step in (2, 5):
            slow = slow + 0.25 * (fast - slow)
            fast = slow
        np.testing.assert_allclose(live["param/w"], fast, rtol=1e-12)
        np.testing.assert_allclose(averaging.state()["param/w"], slow, rtol=1e-12)
    assert averaging.state().keys() == {"param/w"}
    np.testing.assert_array_equal(live["buffer/mean"], values(7)["buffer/mean"])


def test_averages_are_applied_inside_a_block_and_gone_after_it_whatever_happens() -> None:
    averaging = EMA(0.5)
    live, averages = run(averaging, 4)
    own = {name: array.copy() for name, array in live.items()}
    inside = {}

    def fail() -> None:
        with averaging.applied():
            inside.update({name: array.copy() for name, array in live.items()})
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    for name, array in averages.items():
        np.testing.assert_array_equal(inside[name], array)
    for name, array in own.items():
        np.testing.assert_array_equal(live[name], array)
        assert not np.array_equal(averages[name], array)


@pytest.mark.parametrize("averaging", [EMA(0.7), Lookahead(1, 0.3)], ids=["ema", "lookahead"])
def test_averages_stay_float32_and_have_the_same_bits_on_any_number_of_threads(averaging: Averaging) -> None:
    results = []
    for threads in (1, 4):
        engine.set_threads(threads)
        live = {"param/w": np.random.default_rng(0).standard_normal((700, 1001)).astype(np.float32)}
        averaging.bind(live)
        live["param/w"] *= 2
        averaging.update(0)
        averaging.update(1)
        results.append(averaging.state()["param/w"])
    assert results[0].dtype == np.float32
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("averaging", EVERY, ids=["ema", "lookahead"])
def test_a_stopped_run_goes_on_with_the_same_bits(averaging: Any, tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(averaging=averaging)
    start(config, tmp_path / "whole", dataset)
    for moment in (2, 4, 6, 13, 27):  # 6 and 27 are in a validation and in the test
        with pytest.raises(Stopped):
            start(config, tmp_path / f"{moment}", dataset, StopAt(moment))
        resume(config, tmp_path / f"{moment}", dataset)
        assert_same_run(tmp_path / f"{moment}", tmp_path / "whole")


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("averaging", EVERY, ids=["ema", "lookahead"])
def test_validation_test_and_eval_use_the_averages(
    averaging: Any, validation: bool, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = Network.forward

    def watched(self: Network, x: Any, *, training: bool, step: int = 0) -> Any:
        if not training:
            seen.append({name: array.copy() for name, array in self.state().items()})
        return forward(self, x, training=training, step=step)

    monkeypatch.setattr(Network, "forward", watched)
    if not validation:
        dataset = Dataset("shapes", dataset.train, None, dataset.test, dataset.classes, dataset.digest)
    result = start(tiny(averaging=averaging), tmp_path, dataset)
    kept, _ = state(tmp_path, "best")
    averages = {name.removeprefix("average/"): a for name, a in kept.items() if name.startswith("average/")}
    assert averages
    for name, array in averages.items():
        np.testing.assert_array_equal(seen[-1][name], array)
    assert any(not np.array_equal(kept[name], array) for name, array in averages.items())
    del seen[:]
    found, _, _ = evaluate_checkpoint(tmp_path / "checkpoints/best.npz", "test")
    assert (found.accuracy, found.loss) == (result.test_accuracy, result.test_loss)
    if validation:
        rows = figures(tmp_path)[0]
        best, _, _ = evaluate_checkpoint(tmp_path / "checkpoints/best.npz", "validation")
        assert max(float(row["validation_accuracy"]) for row in rows) == best.accuracy


def test_a_checkpoint_without_its_averages_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(averaging={"ema": {"decay": 0.9}}, epochs=1)
    start(config, tmp_path, dataset)
    path = tmp_path / "checkpoints/last.npz"
    checkpoint = load_checkpoint(path)
    del checkpoint.arrays["average/param/6.bias"]
    save_checkpoint(path, checkpoint)
    with pytest.raises(CheckpointError, match=r"param/6\.bias is missing"):
        resume(config, tmp_path, dataset)


@pytest.mark.parametrize(
    ("averaging", "path", "message"),
    [
        ({"ema": {"decay": 1.0}}, "ema", "decay 1.0 is not in"),
        ({"ema": {"decay": -0.1}}, "ema", "decay -0.1"),
        ({"ema": {"decay": 0.9, "every": 0}}, "ema", "every must be at least 1"),
        ("ema", "ema", "'decay' is missing"),
        ({"lookahead": {"steps": 0}}, "lookahead", "steps must be at least 1"),
        ({"lookahead": {"alpha": 0.0}}, "lookahead", "alpha 0.0"),
        ({"lookahead": {"alpha": 1.5}}, "lookahead", "alpha 1.5"),
        ({"emma": {}}, "", "did you mean 'ema'"),
    ],
)
def test_senseless_options_are_refused_with_their_place(averaging: Any, path: str, message: str) -> None:
    data = {**tiny().resolved}
    data["train"] = {**data["train"], "averaging": averaging}
    with pytest.raises(ConfigError) as caught:
        config_from_data(data)
    problem = caught.value.problems[0]
    assert problem.path.startswith(f"train.averaging.{path}".rstrip("."))
    assert message in problem.message
