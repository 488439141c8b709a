"""Losses: exact gradients, stability, agreement with PyTorch."""

import math
from typing import Any

import numpy as np
import pytest

from cnnlite.nn.losses import CrossEntropy, losses, softmax
from cnnlite.utils.types import Array

SHAPES = [(1, 2), (1, 10), (5, 3), (16, 10)]


def batch(shape: tuple[int, int], *, probabilities: bool, dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(shape)
    logits = 3 * rng.normal(size=shape).astype(dtype)
    if probabilities:
        return logits, rng.dirichlet(np.ones(shape[1]), size=shape[0])
    return logits, rng.integers(shape[1], size=shape[0])


@pytest.mark.parametrize("probabilities", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(losses))
def test_every_loss_has_the_gradient_of_central_differences(
    name: str, shape: tuple[int, int], probabilities: bool
) -> None:
    loss = losses[name]()
    logits, targets = batch(shape, probabilities=probabilities)
    _, dlogits = loss.loss_and_gradient(logits, targets)
    numeric = np.empty_like(logits)
    for index in np.ndindex(shape):
        change = np.zeros_like(logits)
        change[index] = 1e-5
        up, down = (loss.loss_and_gradient(moved, targets)[0] for moved in (logits + change, logits - change))
        numeric[index] = (up - down) / 2e-5
    np.testing.assert_allclose(dlogits, numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(losses))
def test_every_loss_keeps_float32_and_leaves_its_arguments_alone(name: str) -> None:
    loss = losses[name]()
    for probabilities in (False, True):
        logits, targets = batch((5, 3), probabilities=probabilities, dtype=np.float32)
        before = logits.copy(), targets.copy()
        value, dlogits = loss.loss_and_gradient(logits, targets)
        assert type(value) is float
        assert dlogits.dtype == np.float32
        np.testing.assert_array_equal(logits, before[0])
        np.testing.assert_array_equal(targets, before[1])


@pytest.mark.parametrize("name", list(losses))
def test_every_loss_is_a_mean_over_the_batch(name: str) -> None:
    loss = losses[name]()
    logits, targets = batch((5, 3), probabilities=False)
    whole, dlogits = loss.loss_and_gradient(logits, targets)
    singles = [loss.loss_and_gradient(logits[i : i + 1], targets[i : i + 1]) for i in range(5)]
    assert whole == pytest.approx(np.mean([value for value, _ in singles]), rel=1e-12)
    np.testing.assert_allclose(np.concatenate([gradient for _, gradient in singles]), 5 * dlogits, rtol=1e-12)


@pytest.mark.parametrize("name", list(losses))
def test_every_loss_keeps_nothing_and_gives_its_gradient_away(name: str) -> None:
    loss = losses[name]()
    options = dict(vars(loss))
    logits, targets = batch((5, 3), probabilities=False)
    value, dlogits = loss.loss_and_gradient(logits, targets)
    before = dlogits.copy()
    loss.loss_and_gradient(logits[:2] + 1, targets[:2])
    np.testing.assert_array_equal(dlogits, before)
    dlogits[...] = np.nan
    again = loss.loss_and_gradient(logits, targets)
    assert again[0] == value
    np.testing.assert_array_equal(again[1], before)
    assert vars(loss) == options


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_overflow_neither_softmax_nor_cross_entropy(dtype: Any) -> None:
    logits = np.array([[1e4, -1e4, 9e3], [-1e4, -1e4, -1e4]], dtype)
    np.testing.assert_allclose(softmax(logits), np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]), atol=1e-6)
    loss = CrossEntropy()
    value, dlogits = loss.loss_and_gradient(logits, np.array([1, 2]))
    assert value == pytest.approx((2e4 + math.log(3)) / 2, rel=1e-6)
    np.testing.assert_allclose(dlogits, np.array([[0.5, -0.5, 0], [1 / 6, 1 / 6, -1 / 3]]), atol=1e-6)


EDGES = [[3e38, -3e38], [3.4e38, 0.0], [-3.4e38, 3.4e38], [0.0, 1e-45], [-0.0, 0.0], [-3e38, -3e38], [1e38, 3e38]]


@pytest.mark.parametrize("logits", EDGES, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [[0], [1], [[0.7, 0.3]], [[0.0, 1.0]]], ids=str)
def test_logits_as_far_apart_as_float32_allows_have_the_loss_of_float64(
    logits: list[float], smoothing: float, targets: list[Any]
) -> None:
    loss = CrossEntropy(smoothing)
    narrow = np.array([logits], np.float32)
    wide = narrow.astype(np.float64)
    with np.errstate(invalid="ignore"):  # as in training and evaluation
        value, dlogits = loss.loss_and_gradient(narrow, np.array(targets))
    expected, wide_dlogits = loss.loss_and_gradient(wide, np.array(targets))
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(dlogits, wide_dlogits, rtol=1e-5, atol=1e-7)
    assert dlogits.dtype == np.float32
    np.testing.assert_allclose(softmax(narrow), softmax(wide), rtol=1e-6)


@pytest.mark.parametrize("logits", EDGES, ids=str)
def test_the_most_different_logits_have_the_loss_of_torch(logits: list[float], torch: Any) -> None:
    for target in (0, 1):
        theirs = torch.tensor([logits], dtype=torch.float64)
        expected = torch.nn.functional.cross_entropy(theirs, torch.tensor([target])).item()
        with np.errstate(invalid="ignore"):
            value, _ = CrossEntropy().loss_and_gradient(np.array([logits], np.float32), np.array([target]))
        assert value == pytest.approx(expected, rel=1e-6)


def test_a_loss_of_nothing_has_no_sign() -> None:
    value, _ = CrossEntropy().loss_and_gradient(np.array([[200.0, 0.0]], np.float32), np.array([0]))
    assert str(value) == "0.0"


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_not_hidden(logit: float) -> None:
    with np.errstate(invalid="ignore"):
        assert math.isnan(CrossEntropy().loss_and_gradient(np.array([[logit, 0]], np.float32), np.array([1]))[0])


def test_classes_are_worth_as_much_as_their_one_hot_probabilities() -> None:
    logits, targets = batch((16, 10), probabilities=False)
    loss = CrossEntropy(label_smoothing=0.1)
    classes = loss.loss_and_gradient(logits, targets)
    one_hot = loss.loss_and_gradient(logits, np.eye(10)[targets])
    assert classes[0] == pytest.approx(one_hot[0], rel=1e-14)
    np.testing.assert_allclose(classes[1], one_hot[1], rtol=1e-12, atol=1e-16)


def test_label_smoothing_is_best_served_by_its_own_distribution() -> None:
    smoothing = 0.2
    target = np.log(np.array([[1 - smoothing + smoothing / 4, smoothing / 4, smoothing / 4, smoothing / 4]]))
    loss = CrossEntropy(label_smoothing=smoothing)
    np.testing.assert_allclose(loss.loss_and_gradient(target, np.array([0]))[1], 0, atol=1e-15)


@pytest.mark.parametrize("probabilities", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_equals_torch(shape: tuple[int, int], smoothing: float, probabilities: bool, torch: Any) -> None:
    logits, targets = batch(shape, probabilities=probabilities)
    theirs = torch.tensor(logits, requires_grad=True)
    value = torch.nn.functional.cross_entropy(theirs, torch.tensor(targets), label_smoothing=smoothing)
    value.backward()
    loss = CrossEntropy(label_smoothing=smoothing)
    own, dlogits = loss.loss_and_gradient(logits, targets)
    assert own == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(dlogits, theirs.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_label_smoothing_outside_its_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing .* is not in \[0, 1\)"):
        CrossEntropy(label_smoothing=smoothing)
