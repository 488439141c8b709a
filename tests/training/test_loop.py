import dataclasses
import errno
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset
from cnnlite.errors import CheckpointError, ConfigError, DivergedError, StorageError
from cnnlite.nn import network as networks
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.losses import CrossEntropy
from cnnlite.nn.network import Network
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.predictions import images_digest, read_predictions
from cnnlite.runtime import arrays, engine
from cnnlite.runtime.team import Team
from cnnlite.training.evaluation import combined, evaluate_checkpoint
from cnnlite.training.loop import prepared, train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag, Stopped
from cnnlite.utils.types import Array
from tests.support.small_runs import STEPS_PER_EPOCH, assert_same_run, figures, state, tiny
from tests.support.training_parts import StopAt, resume, start


def test_the_test_images_are_looked_at_once_and_with_the_best_parameters(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = Network.forward

    def watched(self: Network, x: Any, *, training: bool, step: int = 0) -> Any:
        if not training and len(x) == len(dataset.test):
            seen.append({name: array.copy() for name, array in self.state().items()})
        return forward(self, x, training=training, step=step)

    monkeypatch.setattr(Network, "forward", watched)
    start(tiny(), tmp_path, dataset)
    assert len(seen) == 1
    best = load_checkpoint(tmp_path / "checkpoints/best.npz").arrays
    for name, array in seen[0].items():
        np.testing.assert_array_equal(array, best[name])


def test_workers_train_validate_and_test_as_one_does(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "SHARD_WORK", 1)
    monkeypatch.setenv("CNNLITE_WORKERS", "fork")
    arrays._forget_chunk()
    config = tiny(epochs=1, tta="mirror")
    for workers in (1, 2):
        engine.set_workers(workers)
        start(config, tmp_path / str(workers), dataset)
    assert_same_run(tmp_path / "1", tmp_path / "2")
    arrays._forget_chunk()


def test_what_a_spawned_worker_gets_of_a_training_is_enough_for_steps_and_evaluation(
    tmp_path: Path, dataset: Dataset
) -> None:
    run = RunDirectory.create_at(tmp_path)
    with prepared(tiny(), run, dataset, Reporter(quiet=True), StopFlag()) as training:
        training.begin()
        other = pickle.loads(pickle.dumps(training))
        assert [other._factor(step) for step in range(20)] == [training._factor(step) for step in range(20)]
        second = Team()
        second.size, second.index = 2, 1
        parts = [each._part(dataset.test, "mirror", second) for each in (training, other)]
        assert combined(parts[:1], dataset.classes).loss == combined(parts[1:], dataset.classes).loss
    run.close()


def test_a_checkpoint_with_the_normalization_of_other_images_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    start(tiny(epochs=1), tmp_path, dataset)
    path = tmp_path / "checkpoints/last.npz"
    checkpoint = load_checkpoint(path)
    checkpoint.arrays.update({f"normalize/{name}": np.ones(2, np.float32) for name in ("mean", "std")})
    save_checkpoint(path, checkpoint)
    with pytest.raises(CheckpointError, match=r"its normalization, \(2,\), is not of images \(32, 32, 3\)"):
        resume(tiny(epochs=2), tmp_path, dataset)


@pytest.mark.parametrize("below", [1.0, 0.3])
def test_a_run_tests_with_the_views_of_its_config_and_so_does_its_checkpoint(
    below: float, tmp_path: Path, dataset: Dataset
) -> None:
    result = start(tiny(epochs=1, tta="mirror_translate", tta_below=below), tmp_path, dataset)
    best = tmp_path / "checkpoints/best.npz"
    found, _, _ = evaluate_checkpoint(best, "test")
    assert (found.accuracy, found.loss) == (result.test_accuracy, result.test_loss)
    alone, of_all = (evaluate_checkpoint(best, "test", views=views)[0] for views in ("none", "mirror_translate"))
    assert alone.loss != found.loss
    assert (of_all.loss == found.loss) == (below == 1)
    validated, _, _ = evaluate_checkpoint(best, "validation", views="none")
    assert validated.accuracy == result.best_validation_accuracy


def test_the_predictions_of_the_test_are_kept_and_agree_with_the_result(tmp_path: Path, dataset: Dataset) -> None:
    result = start(tiny(epochs=1), tmp_path, dataset)
    pairs = read_predictions(tmp_path / "predictions.csv")
    assert [label for label, _ in pairs] == [dataset.classes[label] for label in dataset.test.labels]
    found, _, _ = evaluate_checkpoint(tmp_path / "checkpoints/best.npz", "test")
    assert [predicted for _, predicted in pairs] == [dataset.classes[k] for k in found.predictions]
    assert sum(label == predicted for label, predicted in pairs) / len(pairs) == result.test_accuracy
    assert (result.test_macro_f1, result.test_balanced_accuracy) == (found.macro_f1, found.balanced_accuracy)
    assert result.test_digest == images_digest(dataset.test)


def test_a_run_that_did_not_come_to_its_test_has_no_predictions(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(Stopped):
        start(tiny(), tmp_path, dataset, StopAt(10))
    assert not (tmp_path / "predictions.csv").exists()
    assert figures(tmp_path)[1]["test_digest"] is None


@pytest.mark.parametrize("moment", [4, 9, 16])
def test_a_balanced_and_weighted_run_goes_on_with_the_same_bits(moment: int, tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(loss={"focal": {"class_weights": [1.0 + k for k in range(10)]}}, monitor="macro_f1")
    config = config_from_data({**config.resolved, "data": {**config.resolved["data"], "sampling": "balanced"}})
    start(config, tmp_path / "whole", dataset)
    with pytest.raises(Stopped):
        start(config, tmp_path / "stopped", dataset, StopAt(moment))
    resume(config, tmp_path / "stopped", dataset)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_the_best_checkpoint_alone_says_how_each_class_was_validated(tmp_path: Path, dataset: Dataset) -> None:
    start(tiny(epochs=1), tmp_path, dataset)
    facts = load_checkpoint(tmp_path / "checkpoints/best.npz").meta
    found, _, _ = evaluate_checkpoint(tmp_path / "checkpoints/best.npz", "validation", views="none")
    assert facts["validation"] == found.by_class()
    assert facts["class_counts"] == np.bincount(dataset.train.labels, minlength=10).tolist()
    assert "validation" not in load_checkpoint(tmp_path / "checkpoints/last.npz").meta


def test_without_validation_the_last_is_the_best(tmp_path: Path, dataset: Dataset) -> None:
    everything = Dataset("shapes", dataset.train, None, dataset.test, dataset.classes, dataset.digest)
    result = start(tiny(), tmp_path, everything)
    assert (result.best_step, result.best_validation_accuracy) == (21, None)
    assert figures(tmp_path)[0][0]["validation_loss"] == ""
    last, best = state(tmp_path, "last")[0], state(tmp_path, "best")[0]
    assert all(np.array_equal(last[name], best[name]) for name in last)


def test_a_damaged_best_checkpoint_is_replaced_by_the_last_parameters(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        start(tiny(), tmp_path, dataset, StopAt(27))
    (tmp_path / "checkpoints/best.npz").write_bytes(b"PK\x03\x04")
    assert resume(tiny(), tmp_path, dataset).status == "complete"
    assert "best.npz" in capsys.readouterr().err


@pytest.mark.parametrize("gone", [True, False])
def test_a_best_checkpoint_that_is_gone_or_another_runs_is_replaced_by_the_last_parameters(
    gone: bool, tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        start(tiny(), tmp_path / "run", dataset, StopAt(27))
    start(tiny(epochs=1), tmp_path / "other", dataset)
    best = tmp_path / "run/checkpoints/best.npz"
    best.unlink()
    if not gone:
        (tmp_path / "other/checkpoints/best.npz").rename(best)
    assert resume(tiny(), tmp_path / "run", dataset).best_step == 21
    reason = "is gone" if gone else "was not written by this run"
    assert f"best.npz: {reason}; testing with the last parameters instead" in capsys.readouterr().err


def test_images_that_are_trained_on_and_tested_with_are_told_as_the_run_begins(
    tmp_path: Path, dataset: Dataset
) -> None:
    shared = dataclasses.replace(dataset, test=dataset.train.take(slice(5)), above=np.zeros(len(dataset.train)))
    reporter = Reporter(quiet=True)
    reporter.open_log(tmp_path / "log.txt")
    run = RunDirectory.create_at(tmp_path / "run")
    train(tiny(epochs=1), run, dataset=shared, reporter=reporter, stop=StopFlag())
    run.close()
    assert "warning: 5 of the images to test with are trained on too" in (tmp_path / "log.txt").read_text()


def test_a_best_checkpoint_without_progress_is_replaced_by_the_last_parameters(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        start(tiny(), tmp_path, dataset, StopAt(27))
    best = load_checkpoint(tmp_path / "checkpoints/best.npz")
    del best.meta["progress"]["step"]
    best.meta["progress"]["steps"] = 5
    save_checkpoint(tmp_path / "checkpoints/best.npz", best)
    assert resume(tiny(), tmp_path, dataset).status == "complete"
    warning = capsys.readouterr().err
    assert "the checkpoint does not say how far the run was" in warning
    assert "testing with the last parameters instead" in warning


FLAT = ["flatten", {"linear": {"out_features": 8}}, "batch_norm", "relu", {"linear": {"out_features": 10}}]
"""Batch norm sees one value of each feature in an image."""


@pytest.mark.parametrize(
    ("size", "drop_last", "place"),
    [(1, False, "train.batch_size"), (1, True, "train.batch_size"), (35, False, "data.drop_last"), (35, True, "")],
)
def test_batches_of_one_for_flat_batch_norm_are_refused_before_the_first_step(
    size: int, drop_last: bool, place: str, tmp_path: Path, dataset: Dataset
) -> None:
    assert len(dataset.train) == 106
    data = {**tiny(batch_size=size, epochs=1).resolved, "model": FLAT}
    config = config_from_data({**data, "data": {**data["data"], "drop_last": drop_last}})
    if place:
        with pytest.raises(ConfigError, match=rf"{place}: model\[2\]\.batch_norm gets too few values"):
            start(config, tmp_path, dataset)
        assert not (tmp_path / "metrics.csv").exists()
    else:
        assert start(config, tmp_path, dataset).steps == 3


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"epochs": 0.5}, 4), ({"epochs": 1}, 7), ({"epochs": None, "iterations": 9}, 9), ({"epochs": 0.001}, 1)],
)
def test_epochs_may_be_fractions_and_steps_may_be_given(
    settings: dict[str, Any], steps: int, tmp_path: Path, dataset: Dataset
) -> None:
    assert start(tiny(**settings), tmp_path, dataset).steps == steps


@pytest.mark.parametrize("optimizer", [{"sgd": {"lr": 1e30}}, {"sgd": {"lr": 1e38, "momentum": 0.9}}])
def test_a_diverging_run_names_step_rate_and_place_and_saves_nothing_of_it(
    optimizer: dict[str, Any], tmp_path: Path, dataset: Dataset
) -> None:
    config = tiny(optimizer=optimizer, schedule="constant", checkpoint_every=1, validate_every=1000)
    with pytest.raises(DivergedError) as caught:
        start(config, tmp_path, dataset)
    name, options = next(iter(optimizer.items()))
    assert re.match(r"step \d+, learning rate 1e\+3\d: the (loss|gradient) is not finite, first in ", str(caught.value))
    assert "parameter" in str(caught.value) or "model[" in str(caught.value)
    way_out = f"start again with train.optimizer.{name}.lr={options['lr'] / 10:g} or train.clip_norm=1"
    assert str(caught.value).splitlines()[1] == f"this step is not saved; {way_out}"
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "diverged"
    for path in tmp_path.glob("checkpoints/*.npz"):
        load_checkpoint(path)  # which refuses NaN and infinity


def test_a_gradient_that_is_not_finite_changes_no_parameter(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Network.backward

    def broken(self: Network, dy: Any) -> None:
        backward(self, dy)
        if self.steps_taken == 5:  # type: ignore[attr-defined]
            self.parameters["6.weight"].grad[3, 4] = np.inf
        self.steps_taken += 1  # type: ignore[attr-defined]

    monkeypatch.setattr(Network, "steps_taken", 0, raising=False)
    monkeypatch.setattr(Network, "backward", broken)
    config = tiny(checkpoint_every=1, schedule="constant")
    with pytest.raises(DivergedError, match=r"^step 5, .*rate 0\.003: .* gradient of parameter 6\.weight"):
        start(config, tmp_path, dataset)
    assert state(tmp_path, "last")[1]["step"] == 5


def test_a_loss_that_is_not_finite_by_itself_is_said_to_be(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrossEntropy, "loss_and_gradient", lambda _, logits, targets: (np.nan, logits))
    with pytest.raises(DivergedError, match="the loss is not finite, first in the loss itself"):
        start(tiny(), tmp_path, dataset)


def test_layers_that_draw_at_random_are_told_each_step(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    forward = Network.forward

    def watched(self: Network, x: Any, *, training: bool, step: int = 0) -> Any:
        if training:
            steps.append(step)
        return forward(self, x, training=training, step=step)

    monkeypatch.setattr(Network, "forward", watched)
    start(tiny(epochs=2), tmp_path, dataset)
    assert steps == list(range(14))


def test_parameters_trained_no_more_save_time_and_change_no_bit(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    adam = {"adam": {"lr": 0.003}}
    first = {"match": r"^[01]\.", "optimizer": adam, "schedule": "linear", "epochs": 1}
    config = tiny(optimizer={"composite": {"members": [first, {"match": ".", "optimizer": adam}]}})
    passes: list[Conv2d] = []
    backward = Conv2d.backward

    def counted(self: Conv2d, dy: Array) -> Array | None:
        passes.append(self)
        return backward(self, dy)

    monkeypatch.setattr(Conv2d, "backward", counted)
    start(config, tmp_path / "saving", dataset)
    assert len(passes) == STEPS_PER_EPOCH
    for moment in (8, 12):
        with pytest.raises(Stopped):
            start(config, tmp_path / f"stopped{moment}", dataset, StopAt(moment))
        resume(config, tmp_path / f"stopped{moment}", dataset)
        assert_same_run(tmp_path / f"stopped{moment}", tmp_path / "saving")
    monkeypatch.setattr(Network, "freeze", lambda *_: None)
    start(config, tmp_path / "all", dataset)
    assert_same_run(tmp_path / "all", tmp_path / "saving")


def test_gradients_are_clipped_to_the_norm_together(tmp_path: Path, dataset: Dataset) -> None:
    optimizer = {"sgd": {"lr": 1.0}}
    config = tiny(epochs=None, iterations=1, clip_norm=0.01, optimizer=optimizer, schedule="constant")
    start(config, tmp_path, dataset)
    before = Network(config.model, (32, 32, 3), seed=0).state()
    after = state(tmp_path, "last")[0]
    moved = [np.square(after[name] - before[name], dtype=np.float64).sum() for name in before if name[:6] == "param/"]
    assert np.sqrt(sum(moved)) == pytest.approx(0.01, rel=1e-3)


def test_parameters_trained_no_more_do_not_count_in_the_norm(tmp_path: Path, dataset: Dataset) -> None:
    sgd = {"sgd": {"lr": 1.0}}
    first = {"match": "(bias|beta)$", "optimizer": sgd, "schedule": "constant", "epochs": 1 / STEPS_PER_EPOCH}
    after = []
    for steps in (1, 2):  # the gradients of the first member, which is behind layers still trained, come all the same
        optimizer = {"composite": {"members": [first, {"match": ".", "optimizer": sgd}]}}
        config = tiny(epochs=None, iterations=steps, clip_norm=0.01, optimizer=optimizer, schedule="constant")
        start(config, tmp_path / str(steps), dataset)
        after.append(state(tmp_path / str(steps), "last")[0])
    moved = {name: np.linalg.norm(after[1][name] - after[0][name]) for name in after[0] if name[:6] == "param/"}
    assert {name for name, length in moved.items() if not length} == {"param/0.bias", "param/1.beta", "param/6.bias"}
    assert np.linalg.norm(list(moved.values())) == pytest.approx(0.01, rel=1e-3)


def test_too_little_memory_is_one_line_that_names_the_batch_size(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(*_: Any, **__: Any) -> None:
        np.empty(1 << 60, np.uint8)

    monkeypatch.setattr(Network, "forward", starve)
    with pytest.raises(StorageError, match=r"batch size 16: Unable to allocate .*batch_size=8"):
        start(tiny(), tmp_path, dataset)


def test_a_full_disk_ends_the_run_with_the_old_checkpoint_intact(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, calls = os.replace, []

    def full(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        start(tiny(), tmp_path, dataset)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "checkpoints/last.npz").meta["step"] == 4
    assert not list(tmp_path.glob("checkpoints/.*"))
