"""Losses: exact gradients, stability, agreement with PyTorch."""

import math
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import ConfigError
from cnnlite.nn.losses import ClassWeighted, CrossEntropy, Focal, Loss, losses, scaled_weights, softmax
from cnnlite.utils.types import Array

SHAPES = [(1, 2), (1, 10), (5, 3), (16, 10)]


def batch(shape: tuple[int, int], *, probabilities: bool, dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(shape)
    logits = 3 * rng.normal(size=shape).astype(dtype)
    if probabilities:
        return logits, rng.dirichlet(np.ones(shape[1]), size=shape[0])
    return logits, rng.integers(shape[1], size=shape[0])


def variants(name: str, classes: int) -> list[Loss]:
    """The loss as it is by itself, and, where it weights classes, with weights that differ."""
    cls, counts = losses[name], np.arange(1, classes + 1)
    loss = cls()
    if not isinstance(loss, ClassWeighted):
        return [loss]
    return [loss, *(cls(class_weights=weights).fit(counts) for weights in ("balanced", [2.0, *[0.5] * (classes - 1)]))]  # type: ignore[call-arg]


NAMED = [(name, variant) for name in losses for variant in range(len(variants(name, 3)))]


@pytest.mark.parametrize("probabilities", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "variant"), NAMED)
def test_every_loss_has_the_gradient_of_central_differences(
    name: str, variant: int, shape: tuple[int, int], probabilities: bool
) -> None:
    loss = variants(name, shape[1])[variant]
    logits, targets = batch(shape, probabilities=probabilities)
    _, dlogits = loss.loss_and_gradient(logits, targets)
    numeric = np.empty_like(logits)
    for index in np.ndindex(shape):
        change = np.zeros_like(logits)
        change[index] = 1e-5
        up, down = (loss.loss_and_gradient(moved, targets)[0] for moved in (logits + change, logits - change))
        numeric[index] = (up - down) / 2e-5
    np.testing.assert_allclose(dlogits, numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "variant"), NAMED)
def test_every_loss_keeps_float32_and_leaves_its_arguments_alone(name: str, variant: int) -> None:
    loss = variants(name, 3)[variant]
    for probabilities in (False, True):
        logits, targets = batch((5, 3), probabilities=probabilities, dtype=np.float32)
        before = logits.copy(), targets.copy()
        value, dlogits = loss.loss_and_gradient(logits, targets)
        assert type(value) is float
        assert dlogits.dtype == np.float32
        np.testing.assert_array_equal(logits, before[0])
        np.testing.assert_array_equal(targets, before[1])


@pytest.mark.parametrize(("name", "variant"), NAMED)
def test_every_loss_is_a_mean_over_the_batch(name: str, variant: int) -> None:
    loss = variants(name, 3)[variant]
    logits, targets = batch((5, 3), probabilities=False)
    whole, dlogits = loss.loss_and_gradient(logits, targets)
    singles = [loss.loss_and_gradient(logits[i : i + 1], targets[i : i + 1]) for i in range(5)]
    assert whole == pytest.approx(np.mean([value for value, _ in singles]), rel=1e-12)
    np.testing.assert_allclose(np.concatenate([gradient for _, gradient in singles]), 5 * dlogits, rtol=1e-12)


@pytest.mark.parametrize(("name", "variant"), NAMED)
def test_every_loss_keeps_nothing_and_gives_its_gradient_away(name: str, variant: int) -> None:
    loss = variants(name, 3)[variant]
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
    agrees_with_float64(CrossEntropy(smoothing), logits, targets)
    agrees_with_float64(CrossEntropy(smoothing, [3.0, 1.0]).fit(np.array([1, 2])), logits, targets)


@pytest.mark.parametrize("logits", EDGES, ids=str)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("targets", [[0], [1], [[0.7, 0.3]], [[0.0, 1.0]]], ids=str)
def test_focal_loss_too(logits: list[float], gamma: float, targets: list[Any]) -> None:
    agrees_with_float64(Focal(gamma), logits, targets)


def agrees_with_float64(loss: Loss, logits: list[float], targets: list[Any]) -> None:
    narrow = np.array([logits], np.float32)
    wide = narrow.astype(np.float64)
    with np.errstate(all="ignore"):  # as in training and evaluation
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


# Class weights


@pytest.mark.parametrize("cls", [CrossEntropy, Focal])
def test_each_sample_weighs_as_much_as_its_class_and_the_sum_is_divided_by_their_number(cls: type[Any]) -> None:
    logits, targets = batch((16, 3), probabilities=False)
    counts, given = np.array([10, 30, 60]), [4.0, 1.0, 2.0]
    weights = np.array(given) * 100 / (4 * 10 + 1 * 30 + 2 * 60)
    alone = [cls().loss_and_gradient(logits[i : i + 1], targets[i : i + 1]) for i in range(16)]
    value, dlogits = cls(class_weights=given).fit(counts).loss_and_gradient(logits, targets)
    own = [weights[label] * found for label, (found, _) in zip(targets, alone, strict=True)]
    assert value == pytest.approx(sum(own) / 16, rel=1e-12)
    for label, (_, gradient), row in zip(targets, alone, dlogits, strict=True):
        np.testing.assert_allclose(row, weights[label] * gradient[0] / 16, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_of_a_batch_average_to_the_whole(smoothing: float) -> None:
    logits, targets = batch((16, 10), probabilities=False)
    loss = CrossEntropy(smoothing, "balanced").fit(np.arange(1, 11) ** 2)
    whole, dlogits = loss.loss_and_gradient(logits, targets)
    parts = [(slice(0, 3), 3 / 16), (slice(3, 16), 13 / 16)]
    found = [(share, *loss.loss_and_gradient(logits[part], targets[part])) for part, share in parts]
    assert whole == pytest.approx(sum(share * value for share, value, _ in found), rel=1e-12)
    np.testing.assert_allclose(np.concatenate([share * part for share, _, part in found]), dlogits, rtol=1e-12)


@pytest.mark.parametrize("cls", [CrossEntropy, Focal])
def test_a_mixed_target_has_the_mixture_of_the_losses_of_its_classes(cls: type[Any]) -> None:
    logits, _ = batch((5, 3), probabilities=False)
    loss = cls(class_weights="balanced").fit(np.array([1, 5, 20]))
    one, other = np.array([0, 1, 2, 0, 1]), np.array([1, 2, 0, 0, 2])
    share = np.array([0.3, 0.9, 0.5, 0.2, 1.0])
    mixed = share[:, None] * np.eye(3)[one] + (1 - share)[:, None] * np.eye(3)[other]
    for i in range(5):
        row = slice(i, i + 1)
        value, dlogits = loss.loss_and_gradient(logits[row], mixed[row])
        (first, dfirst), (second, dsecond) = (loss.loss_and_gradient(logits[row], label[row]) for label in (one, other))
        assert value == pytest.approx(share[i] * first + (1 - share[i]) * second, rel=1e-12)
        np.testing.assert_allclose(dlogits, share[i] * dfirst + (1 - share[i]) * dsecond, rtol=1e-11, atol=1e-14)


def test_balanced_weights_give_each_class_the_same_sum_and_the_images_a_mean_of_1() -> None:
    counts = np.array([7, 0, 1, 500, 92])
    weights = scaled_weights("balanced", counts)
    np.testing.assert_allclose(weights * counts, [150, 0, 150, 150, 150])
    assert weights[1] == 0
    for choice in ([3.0, 1.0, 0.0, 2.0, 1e-9], [1e308, 1e308, 1e308, 1e308, 1e300], [5e-324, 0.0, 0.0, 0.0, 5e-324]):
        scaled = scaled_weights(choice, counts)
        assert scaled @ counts == pytest.approx(600)
        np.testing.assert_allclose(scaled / scaled.max(), np.array(choice) / max(choice))


def test_equal_classes_and_equal_weights_change_no_bit() -> None:
    logits, targets = batch((16, 10), probabilities=False, dtype=np.float32)
    for cls in (CrossEntropy, Focal):
        plain, dplain = cls().loss_and_gradient(logits, targets)
        for choice, counts in (("balanced", np.full(10, 30)), ([7.0] * 10, np.arange(10))):
            value, dlogits = cls(class_weights=choice).fit(counts).loss_and_gradient(logits, targets)  # type: ignore[arg-type]
            assert value == plain
            np.testing.assert_array_equal(dlogits, dplain)


def test_a_loss_is_fitted_in_a_copy() -> None:
    loss, plain = CrossEntropy(0.1, "balanced"), CrossEntropy(0.1)
    before = dict(vars(loss))
    first, second = loss.fit(np.array([1, 9])), loss.fit(np.array([9, 1]))
    assert vars(loss) == before
    logits, targets = np.array([[1.0, 0.0]]), np.array([0])
    assert first.loss_and_gradient(logits, targets)[0] == pytest.approx(
        9 * second.loss_and_gradient(logits, targets)[0]
    )
    assert plain.fit(np.array([1, 9])) is plain


def test_a_sample_weighs_what_its_class_does_and_a_loss_without_classes_is_fitted_already() -> None:
    fitted = CrossEntropy(class_weights=[1.0, 3.0]).fit(np.array([50, 50]))
    assert [fitted.weight_of(k) for k in (0, 1)] == pytest.approx([0.5, 1.5])
    assert [CrossEntropy().weight_of(k) for k in (0, 1)] == [1.0, 1.0]

    class Plain(Loss):
        def loss_and_gradient(self, logits: Array, targets: Array) -> tuple[float, Array]:
            raise NotImplementedError

    plain = Plain()
    assert plain.fit(np.array([50, 50])) is plain


def test_weights_that_were_not_fitted_are_no_weights_of_1() -> None:
    with pytest.raises(RuntimeError, match="before `fit`"):
        CrossEntropy(class_weights="balanced").loss_and_gradient(np.zeros((1, 2)), np.array([0]))


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ([1.0, 2.0], [5, 5, 5], "2 weights for 3 classes"),
        ([0.0, 1.0, 1.0], [5, 0, 0], "no class with training images has a weight above 0"),
        ("balanced", [0, 0, 0], "no class with training images"),
    ],
)
def test_weights_that_do_not_fit_the_images_are_refused(weights: Any, counts: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.loss\.class_weights: {message}"):
        CrossEntropy(class_weights=weights).fit(np.array(counts))


@pytest.mark.parametrize(
    ("weights", "message"), [([1.0, -1.0], "at least 0, not -1"), ([0.0, 0.0], "above 0"), ([], "above 0")]
)
@pytest.mark.parametrize("cls", [CrossEntropy, Focal])
def test_weights_below_0_and_none_above_it_are_refused(cls: type[Any], weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(class_weights=weights)


@pytest.mark.parametrize("probabilities", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
def test_weighted_cross_entropy_equals_torch_but_for_its_division(
    shape: tuple[int, int], probabilities: bool, torch: Any
) -> None:
    logits, targets = batch(shape, probabilities=probabilities)
    counts = np.arange(1, shape[1] + 1)
    loss = CrossEntropy(class_weights="balanced").fit(counts)
    theirs = torch.tensor(logits, requires_grad=True)
    weight = torch.tensor(scaled_weights("balanced", counts))
    value = torch.nn.functional.cross_entropy(theirs, torch.tensor(targets), weight=weight, reduction="sum") / shape[0]
    value.backward()
    own, dlogits = loss.loss_and_gradient(logits, targets)
    assert own == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(dlogits, theirs.grad.numpy(), rtol=1e-10, atol=1e-14)


# Focal loss


def test_focal_loss_by_hand() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6]]))
    value, _ = Focal(2.0).loss_and_gradient(logits, np.array([0, 0]))
    assert value == pytest.approx((0.1**2 * -math.log(0.9) + 0.6**2 * -math.log(0.4)) / 2)


@pytest.mark.parametrize("probabilities", [False, True], ids=["classes", "probabilities"])
def test_without_focus_it_is_cross_entropy(probabilities: bool) -> None:
    logits, targets = batch((16, 10), probabilities=probabilities)
    (value, dlogits), (expected, gradient) = (
        loss.loss_and_gradient(logits, targets) for loss in (Focal(0), CrossEntropy())
    )
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(dlogits, gradient, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0, 5.0])
def test_focal_loss_equals_torch(gamma: float, torch: Any) -> None:
    logits, targets = batch((16, 10), probabilities=False)
    theirs = torch.tensor(logits, requires_grad=True)
    log_p = torch.nn.functional.log_softmax(theirs, 1)[range(16), targets]
    value = (-((1 - log_p.exp()) ** gamma) * log_p).mean()
    value.backward()
    own, dlogits = Focal(gamma).loss_and_gradient(logits, targets)
    assert own == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(dlogits, theirs.grad.numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("gap", [1e-9, 10.0, 20.0, 36.0, 40.0, 700.0])
def test_focal_loss_is_as_the_formula_where_the_network_is_sure_and_where_it_is_wrong(gap: float, gamma: float) -> None:
    rest, log_p = 1 / (1 + math.exp(gap)), -math.log1p(math.exp(-gap))  # 1 - p, and log(p), of the higher logit
    for label, factor, log, p in ((0, rest, log_p, 1 - rest), (1, 1 - rest, log_p - gap, rest)):
        value, dlogits = Focal(gamma).loss_and_gradient(np.array([[gap, 0.0]]), np.array([label]))
        assert value == pytest.approx(-(factor**gamma) * log, rel=1e-6, abs=1e-15)
        slope = gamma * factor**gamma * p * log - factor ** (1 + gamma)  # for the logit of the label
        expected = [slope, -slope] if label == 0 else [-slope, slope]
        np.testing.assert_allclose(dlogits, [expected], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("gamma", [-0.1, math.nan, math.inf])
def test_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="is not at least 0"):
        Focal(gamma)
