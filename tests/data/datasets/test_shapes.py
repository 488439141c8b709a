from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Dataset, Normalizer, load_dataset
from cnnlite.data.datasets.shapes import SHAPES, Shapes
from cnnlite.utils.types import Array


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load_dataset(Shapes(), Path("nowhere"))


def test_classes_are_even_and_images_as_promised(shapes: Dataset) -> None:
    assert shapes.classes == tuple(SHAPES)
    assert shapes.validation is not None
    assert [len(part) for part in (shapes.train, shapes.validation, shapes.test)] == [5000, 1000, 1000]
    assert shapes.train.images.shape[1:] == (32, 32, 3)
    assert np.bincount(shapes.test.labels).tolist() == [100] * 10
    assert np.bincount(np.concatenate([shapes.train.labels, shapes.validation.labels])).tolist() == [600] * 10
    assert np.bincount(shapes.validation.labels).min() > 70


def test_pixels_are_the_same_on_every_machine(shapes: Dataset) -> None:
    assert shapes.digest == "00464507320cfda8a74e20e951998d8c12989702818c3c7647d0720d996bd990"


def test_seed_and_sizes_are_options() -> None:
    first, again, other = (Shapes(40, 20, seed).load(Path()) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert (len(first.train), len(first.test)) == (40, 20)
    assert not np.array_equal(first.train.images[:20], first.test.images)
    with pytest.raises(ValueError, match="test_images must be at least 10, one for each class, not 9"):
        Shapes(40, 9)


def softmax_accuracy(x: Array, labels: Array, x_test: Array, test_labels: Array) -> float:
    """Test accuracy of logistic regression by gradient descent with momentum, on standardised pixels."""
    targets = np.eye(10, dtype=np.float32)[labels]
    weights = np.zeros((x.shape[1], 10), np.float32)
    speed = np.zeros_like(weights)
    best = 0.0
    for _ in range(30):
        logits = x @ weights
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        speed = 0.9 * speed - 0.003 * (x.T @ (p - targets)) / len(x)
        weights += speed
        best = max(best, float((np.argmax(x_test @ weights, axis=1) == test_labels).mean()))
    return best


def least_squares_accuracy(x: Array, labels: Array, x_test: Array, test_labels: Array, ridge: float) -> float:
    targets = np.eye(10, dtype=np.float32)[labels] - 0.1
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1], dtype=np.float32), x.T @ targets)
    return float((np.argmax(x_test @ weights, axis=1) == test_labels).mean())


def test_linear_classifiers_on_pixels_stay_below_sixty_percent(shapes: Dataset) -> None:
    normalizer = Normalizer.fit(shapes.train.images)
    x, x_test = (normalizer(part.images).reshape(len(part), -1) for part in (shapes.train, shapes.test))
    labels, test_labels = shapes.train.labels, shapes.test.labels
    accuracies = [softmax_accuracy(x, labels, x_test, test_labels)]
    grey, grey_test = (v.reshape(len(v), 1024, 3).mean(axis=2) for v in (x, x_test))
    accuracies += [least_squares_accuracy(grey, labels, grey_test, test_labels, ridge) for ridge in (10.0, 1e3, 1e5)]
    assert 0.15 < max(accuracies) < 0.6, accuracies
