import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, Images, Normalizer, Views
from cnnlite.errors import CheckpointError, ConfigError, DataError, DivergedError
from cnnlite.nn import memory
from cnnlite.nn.losses import CrossEntropy, Focal, softmax
from cnnlite.nn.network import Network
from cnnlite.runs.checkpoint import Checkpoint, CheckpointFile, load_checkpoint, save_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import load_network
from cnnlite.runs.scores import balanced_accuracy, macro_f1, wilson
from cnnlite.tools.predict import Model
from cnnlite.tools.report.behaviour import observe
from cnnlite.tools.report.inside import dead_units, occlude, one_by_one
from cnnlite.training.evaluation import describe, evaluate, evaluate_checkpoint, mean_logits
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array
from tests.support.small_runs import tiny
from tests.support.training_parts import start


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    run = RunDirectory.create_at(tmp_path_factory.mktemp("trained"))
    train(tiny(epochs=1), run, dataset=dataset, reporter=Reporter(quiet=True), stop=StopFlag())
    run.close()
    return run.path / "checkpoints" / "best.npz"


def changed(path: Path, target: Path, **facts: object) -> Path:
    checkpoint = load_checkpoint(path)
    checkpoint.meta.update(facts)
    save_checkpoint(target, checkpoint)
    return target


def test_large_images_are_evaluated_in_smaller_batches(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images, normalizer = dataset.test.take(slice(30)), Normalizer.fit(dataset.train.images)
    network = Network(tiny().model, (32, 32, 3), seed=3, classes=10)
    x = normalizer(images.images)
    whole = evaluate(network, images, normalizer, CrossEntropy(), dataset.classes)
    drop = occlude(network, x[0]).drop
    plain = one_by_one(network, tiny())
    sizes, forward = [], Network.forward

    def counted(self: Network, x: Array, **options: Any) -> Array:
        sizes.append(len(x))
        return forward(self, x, **options)

    monkeypatch.setattr(Network, "forward", counted)
    largest = max(math.prod(layer.out_shape) for _, layer in network.model.walk())
    monkeypatch.setattr(memory, "_AT_ONCE", 4 * 7 * max(largest, x[0].size))
    found = evaluate(network, images, normalizer, CrossEntropy(), dataset.classes)
    assert sizes == [7, 7, 7, 7, 2]
    assert (found.images, found.accuracy) == (30, whole.accuracy)
    assert found.loss == pytest.approx(whole.loss)
    np.testing.assert_allclose(occlude(network, x[0]).drop, drop, atol=1e-6)
    Model(tiny(), network, normalizer, dataset.classes).logits(images.images, "none")
    observe(network, images, normalizer)
    dead_units(plain, images, normalizer)
    assert max(sizes) == 7


@pytest.mark.parametrize("count", [1, 249, 250, 251, 600])
def test_figures_are_those_of_all_images_at_once_whatever_the_batches(count: int, dataset: Dataset) -> None:
    pick = np.arange(count) % len(dataset.test)
    images = dataset.test.take(pick)
    normalizer = Normalizer.fit(dataset.train.images)
    network = Network(tiny().model, (32, 32, 3), seed=3, classes=10)
    found = evaluate(network, images, normalizer, CrossEntropy(0.1), dataset.classes)
    logits = network.forward(normalizer(images.images), training=False)
    predicted = logits.argmax(axis=1)
    assert found.images == count
    assert found.accuracy == (predicted == images.labels).mean()
    assert found.loss == pytest.approx(CrossEntropy(0.1).loss_and_gradient(logits, images.labels)[0], rel=1e-5)
    for index, name in enumerate(dataset.classes):
        right = (predicted == images.labels)[images.labels == index]
        assert found.per_class[name] == (right.mean() if len(right) else None)
        assert sum(found.confusion[index]) == len(right)
        called = images.labels[predicted == index]
        assert found.precision[name] == ((called == index).mean() if len(called) else None)
    np.testing.assert_array_equal(found.predictions, predicted)
    assert found.accuracy_interval == wilson(int((predicted == images.labels).sum()), count)
    counts = np.array(found.confusion)
    assert (found.balanced_accuracy, found.macro_f1) == (balanced_accuracy(counts), macro_f1(counts))
    assert found.top5_accuracy is None
    by_class = found.by_class()
    assert by_class["images"] == np.bincount(images.labels, minlength=10).tolist()
    assert by_class["predicted"] == np.bincount(predicted, minlength=10).tolist()
    assert sum(by_class["right"]) == (predicted == images.labels).sum()


def test_of_more_than_ten_classes_the_five_most_probable_are_looked_at(dataset: Dataset) -> None:
    images = Images(dataset.test.images, np.arange(40) % 11)
    data = tiny().resolved["model"][:-1]
    model = config_from_data({**tiny().resolved, "model": [*data, {"linear": {"out_features": 11}}]}).model
    normalizer = Normalizer.fit(dataset.train.images)
    network = Network(model, (32, 32, 3), seed=3, classes=11)
    found = evaluate(network, images, normalizer, CrossEntropy(), [f"c{k}" for k in range(11)])
    logits = network.forward(normalizer(images.images), training=False)
    five = np.argsort(-logits, axis=1)[:, :5]
    assert found.top5_accuracy == np.mean([label in row for label, row in zip(images.labels, five, strict=True)])
    assert 0 < (found.top5_accuracy or 0) - found.accuracy < 1
    assert "among the first five" in describe(found, "test")


def test_views_are_judged_by_the_mean_of_their_logits(dataset: Dataset) -> None:
    normalizer = Normalizer.fit(dataset.train.images, "per_pixel")
    network = Network(tiny().model, (32, 32, 3), seed=3, classes=10)
    images = dataset.test.images
    sides = [network.forward(normalizer(view), training=False) for view in (images, images[:, :, ::-1])]
    logits = (sides[0] + sides[1]) / 2
    found = evaluate(network, dataset.test, normalizer, CrossEntropy(), dataset.classes, views="mirror")
    assert found.accuracy == (logits.argmax(axis=1) == dataset.test.labels).mean()
    assert found.loss == pytest.approx(CrossEntropy().loss_and_gradient(logits, dataset.test.labels)[0], rel=1e-5)
    alone = evaluate(network, dataset.test, normalizer, CrossEntropy(), dataset.classes)
    assert alone.loss != pytest.approx(found.loss, rel=1e-3)


@pytest.mark.parametrize("views", ["mirror", "mirror_translate"])
def test_only_images_that_the_network_is_unsure_of_are_looked_at_in_more_views(views: Views, dataset: Dataset) -> None:
    normalizer = Normalizer.fit(dataset.train.images)
    network = Network(tiny().model, (32, 32, 3), seed=3, classes=10)
    images = dataset.test.images[:40]
    alone, all_views = (mean_logits(network, images, normalizer, some) for some in ("none", views))
    top = softmax(alone).max(axis=1)
    below = float(np.sort(top)[15])
    found = mean_logits(network, images, normalizer, views, below)
    np.testing.assert_array_equal(found[top >= below], alone[top >= below])
    np.testing.assert_allclose(found[top < below], all_views[top < below], rtol=1e-4, atol=1e-5)
    assert np.abs(found[top < below] - alone[top < below]).max(axis=1).min() > 1e-3
    np.testing.assert_array_equal(mean_logits(network, images, normalizer, views, float(top.min())), alone)
    np.testing.assert_array_equal(mean_logits(network, images, normalizer, "none", below), alone)


def test_evaluation_changes_neither_network_nor_loss(dataset: Dataset) -> None:
    network = Network(tiny().model, (32, 32, 3), seed=0)
    before = {name: array.copy() for name, array in network.state().items()}
    loss = CrossEntropy(label_smoothing=0.1)
    evaluate(network, dataset.test, Normalizer.fit(dataset.train.images), loss, dataset.classes)
    assert vars(loss) == vars(CrossEntropy(label_smoothing=0.1))
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_infinite_logits_are_divergence_and_nothing_to_print(dataset: Dataset) -> None:
    network = Network(tiny().model, (32, 32, 3), seed=0)
    for parameter in network.parameters.values():
        parameter.value[...] = 3e38
    with pytest.raises(DivergedError, match="not finite"):
        evaluate(network, dataset.test, Normalizer.fit(dataset.train.images), CrossEntropy(), dataset.classes)


def test_a_checkpoint_alone_is_enough(trained: Path, tmp_path: Path) -> None:
    result = json.loads((trained.parent.parent / "result.json").read_text())
    moved = tmp_path / "elsewhere.npz"
    moved.write_bytes(trained.read_bytes())
    found, facts, warnings = evaluate_checkpoint(moved, "test")
    assert found.accuracy == result["test_accuracy"]
    assert warnings == []
    assert facts.keys() == {
        *("checkpoint", "dataset", "split", "images", "accuracy", "accuracy_interval", "loss", "per_class"),
        *("precision", "balanced_accuracy", "macro_f1", "top5_accuracy", "confusion"),
    }
    assert facts["dataset"] == "shapes"
    json.dumps(facts, allow_nan=False)


def test_each_split_can_be_evaluated(trained: Path) -> None:
    counts = {split: evaluate_checkpoint(trained, split)[0].images for split in ("train", "validation", "test")}
    assert counts == {"train": 106, "validation": 20, "test": 40}


def test_a_split_that_is_not_there_is_refused(trained: Path, tmp_path: Path) -> None:
    config = load_checkpoint(trained).meta["config"]
    config["data"]["validation"] = "none"
    path = changed(trained, tmp_path / "a.npz", config=config)
    with pytest.raises(ConfigError, match="no validation images"):
        evaluate_checkpoint(path, "validation")


def test_other_images_are_told_and_other_classes_refused(
    trained: Path, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, warnings = evaluate_checkpoint(changed(trained, tmp_path / "a.npz", dataset={"digest": "other"}), "test")
    assert len(warnings) == 1
    other = replace(dataset, classes=(*dataset.classes[1:], "other"))
    monkeypatch.setattr("cnnlite.training.labelled.load_data", lambda *_: other)
    with pytest.raises(DataError, match="other classes"):
        evaluate_checkpoint(trained, "test")


@pytest.mark.parametrize("fact", ["config", "classes", "in_shape"])
def test_a_checkpoint_without_what_it_needs_is_refused(fact: str, trained: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained)
    del checkpoint.meta[fact]
    save_checkpoint(tmp_path / "a.npz", checkpoint)
    with pytest.raises(CheckpointError, match=fact):
        evaluate_checkpoint(tmp_path / "a.npz", "test")


@pytest.mark.parametrize("value", [None, 3, "x", [], [1], {"model": []}])
@pytest.mark.parametrize("fact", ["config", "classes", "in_shape"])
def test_a_checkpoint_with_nonsense_in_it_is_refused(fact: str, value: object, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.npz"):
        evaluate_checkpoint(changed(trained, tmp_path / "a.npz", **{fact: value}), "test")


@pytest.mark.parametrize("name", ["param/0.weight", "buffer/1.running_mean", "normalize/std"])
def test_an_array_that_is_missing_or_misshapen_is_named(name: str, trained: Path, tmp_path: Path) -> None:
    for change in ("missing", "misshapen"):
        checkpoint = load_checkpoint(trained)
        array = checkpoint.arrays.pop(name)
        if change == "misshapen":
            checkpoint.arrays[name] = array[:-1]
        save_checkpoint(tmp_path / "a.npz", checkpoint)
        with pytest.raises(CheckpointError, match=r"std|" + name.replace(".", r"\.")):
            evaluate_checkpoint(tmp_path / "a.npz", "test")


def test_all_that_does_not_fit_is_named_before_any_array_is_read(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint: Checkpoint = load_checkpoint(trained)
    checkpoint.arrays["param/99.weight"] = np.zeros(3, np.float32)
    checkpoint.arrays["param/6.bias"] = np.zeros(10, np.float64)
    del checkpoint.arrays["param/0.weight"]
    save_checkpoint(tmp_path / "a.npz", checkpoint)
    monkeypatch.delattr(CheckpointFile, "read")
    with pytest.raises(CheckpointError) as caught:
        evaluate_checkpoint(tmp_path / "a.npz", "test")
    for fault in ("99.weight is not in", "6.bias is float64, not float32", "0.weight is missing"):
        assert fault in str(caught.value)


def test_the_description_holds_every_class(dataset: Dataset) -> None:
    images = Images(dataset.test.images[:5], np.zeros(5, np.int64))
    network = Network(tiny().model, (32, 32, 3), seed=0)
    found = evaluate(network, images, Normalizer.fit(dataset.train.images), CrossEntropy(), dataset.classes)
    text = describe(found, "shapes test")
    assert text.startswith("shapes test: 5 images, accuracy")
    assert all(name in text for name in dataset.classes)
    lines = text.splitlines()
    assert lines[0].endswith(f"loss {found.loss:.4f}")
    assert "(95 %: " in lines[0]
    assert lines[1].startswith("balanced accuracy ")
    assert lines[2].split() == ["class", "images", "accuracy", "precision", "F1"]
    assert lines[4].split()[1:3] == ["0", "-"]  # a class without images
    assert len(lines) == 3 + len(dataset.classes)


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
@pytest.mark.parametrize("weights", ["balanced", [3.0, *[1.0] * 9]])
def test_a_checkpoint_has_the_weighted_loss_of_its_training(
    weights: object, sampling: str, tmp_path: Path, dataset: Dataset
) -> None:
    unequal = replace(dataset, train=dataset.train.take(np.flatnonzero(np.arange(106) % 10 < dataset.train.labels + 2)))
    counts = np.bincount(unequal.train.labels, minlength=10)
    assert counts.min() < counts.max() / 2
    config = tiny(epochs=1, loss={"focal": {"class_weights": weights}})
    config = config_from_data({**config.resolved, "data": {**config.resolved["data"], "sampling": sampling}})
    result = start(config, tmp_path, unequal)
    best = tmp_path / "checkpoints/best.npz"
    found, _, warnings = evaluate_checkpoint(best, "test")
    assert (found.loss, warnings) == (result.test_loss, [])
    shown = counts if sampling == "shuffled" else np.ones(10)
    network, normalizer = load_network(best)[2:4]
    logits = network.forward(normalizer(dataset.test.images), training=False)
    expected = config.train.loss.fit(shown).loss_and_gradient(logits, dataset.test.labels)[0]
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert (found.loss == pytest.approx(Focal().loss_and_gradient(logits, dataset.test.labels)[0], rel=1e-3)) == (
        sampling == "balanced" and weights == "balanced"
    )


@pytest.mark.parametrize("counts", [None, 3, [1] * 9, [1.5] * 10, [-1] * 10, [True] * 10, ["1"] * 10, [0] * 10])
def test_a_weighted_loss_without_sensible_numbers_of_images_is_refused(
    counts: object, trained: Path, tmp_path: Path
) -> None:
    config = tiny(epochs=1, loss={"cross_entropy": {"class_weights": "balanced"}}).resolved
    weighted = changed(trained, tmp_path / "a.npz", config=config, class_counts=counts)
    with pytest.raises(CheckpointError, match="not whole"):
        evaluate_checkpoint(weighted, "test")
    plain = changed(trained, tmp_path / "b.npz", class_counts=counts)
    assert evaluate_checkpoint(plain, "test")[0].loss == evaluate_checkpoint(trained, "test")[0].loss


def test_weights_for_another_number_of_classes_are_refused(trained: Path, tmp_path: Path) -> None:
    config = tiny(epochs=1).resolved
    config["train"]["loss"] = {"cross_entropy": {"class_weights": [1.0, 2.0]}}
    with pytest.raises(CheckpointError, match="2 weights for 10 classes"):
        evaluate_checkpoint(changed(trained, tmp_path / "a.npz", config=config), "test")
