"""Figures of predictions: by hand, and against definitions written out in loops."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from cnnlite.runs.scores import (
    FEW,
    TOP,
    ConfusionMatrix,
    accuracy,
    balanced_accuracy,
    class_figures,
    macro_f1,
    mcnemar,
    mean_fraction,
    top_hits,
    wilson,
)
from cnnlite.utils.types import Array

HAND = np.array([[2, 1, 0], [1, 1, 0], [0, 1, 0]])
EMPTY = np.zeros((3, 3), np.int64)


def test_confusion_counts_truth_by_row() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 0, 1]), np.array([0, 2, 2]))
    matrix.add(np.array([1]), np.array([1]))
    assert matrix.counts.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert accuracy(matrix.counts) == 0.5


def test_class_figures_by_hand() -> None:
    first, second, third = class_figures(HAND, ["a", "b", "c"])
    assert first.images == 3
    assert [first.recall, first.precision, first.f1] == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert (first.mistaken_for, first.mistaken) == ("b", 1)
    assert [second.recall, second.precision, second.f1] == pytest.approx([0.5, 1 / 3, 0.4])
    assert second.mistaken_for == "a"
    assert (third.recall, third.precision, third.f1, third.mistaken_for) == (0, None, 0, "b")


def test_a_class_without_images_has_no_recall() -> None:
    _, empty, called = class_figures(np.array([[3, 0, 1], [0, 0, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert (empty.images, empty.recall, empty.precision, empty.f1, empty.mistaken_for) == (0, None, None, None, "")
    assert (called.recall, called.precision, called.f1) == (None, 0, 0)


def test_figures_of_all_classes_by_hand() -> None:
    assert accuracy(HAND) == 0.5
    assert balanced_accuracy(HAND) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert macro_f1(HAND) == pytest.approx((2 / 3 + 0.4 + 0) / 3)
    assert [figure(EMPTY) for figure in (accuracy, balanced_accuracy, macro_f1)] == [None] * 3


def test_a_class_that_is_not_there_counts_only_where_it_is_predicted() -> None:
    absent, predicted = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), np.array([[3, 0, 1], [0, 2, 0], [0, 0, 0]])
    assert balanced_accuracy(absent) == balanced_accuracy(predicted) == pytest.approx((3 / 4 + 1) / 2)
    assert macro_f1(absent) == pytest.approx((6 / 7 + 4 / 5) / 2)
    assert macro_f1(predicted) == pytest.approx((6 / 7 + 1 + 0) / 3)


def test_a_mean_of_fractions_leaves_out_what_is_empty() -> None:
    assert mean_fraction(np.array([1, 0, 3]), np.array([2, 0, 4])) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert mean_fraction(np.array([0, 0]), np.array([0, 0])) is None


def test_equal_classes_have_the_same_accuracy_balanced_or_not() -> None:
    labels, predictions = np.arange(600) % 6, np.random.default_rng(0).integers(0, 6, 600)
    matrix = ConfusionMatrix(6)
    matrix.add(labels, predictions)
    assert balanced_accuracy(matrix.counts) == pytest.approx(accuracy(matrix.counts))


def test_a_network_that_knows_the_frequent_class_alone_is_found_out() -> None:
    counts = np.array([[990, 0], [10, 0]])
    assert accuracy(counts) == 0.99
    assert balanced_accuracy(counts) == 0.5
    assert macro_f1(counts) == pytest.approx(1980 / 1990 / 2)


def ranked(logits: Array, label: int) -> bool:
    """Whether the label is among the highest: sorted with the first of equals first."""
    return label in sorted(range(len(logits)), key=lambda k: (-logits[k], k))[:TOP]


def test_top_hits_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.integers(0, 6, (200, 12)).astype(np.float32), rng.integers(0, 12, 200)  # many are equal
    expected = sum(ranked(row, label) for row, label in zip(logits, labels, strict=True))
    assert 0 < expected < 200
    assert top_hits(logits, labels) == expected
    assert top_hits(np.zeros((12, 12)), np.arange(12)) == TOP


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_those_of_newcombe(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(total - right, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("total", [1, 7, 10_000, 10**9])
def test_an_interval_holds_its_fraction_and_stays_within_0_and_1(total: int) -> None:
    for right in {0, 1, total // 2, total - 1, total}:
        low, high = wilson(right, total)
        assert 0 <= low <= right / total <= high <= 1
        assert low < high
    assert (wilson(0, total)[0], wilson(total, total)[1]) == (0, 1)


def test_nothing_is_known_without_images() -> None:
    assert wilson(0, 0) == (0, 1)


def test_an_interval_covers_the_truth_in_95_of_100_cases() -> None:
    right = np.random.default_rng(2).binomial(200, 0.8, 4000)
    covered = np.mean([low <= 0.8 <= high for low, high in (wilson(int(count), 200) for count in right)])
    assert 0.93 < covered < 0.97


def binomial(first: int, second: int) -> float:
    """Probability that so many coins, or fewer, fall differently: all sequences counted one by one."""
    pairs = first + second
    off = abs(first - second)
    falls = [abs(2 * sum(coins) - pairs) >= off for coins in itertools.product((0, 1), repeat=pairs)]
    return sum(falls) / len(falls)


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("second", range(6))
def test_few_discordant_pairs_are_coins(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(binomial(first, second))


@pytest.mark.parametrize(("first", "second"), [(86, 150), (20, 20), (21, 20), (30, 20), (5, 30), (1000, 1100)])
def test_many_are_chi_square_with_a_correction(first: int, second: int) -> None:
    chi_square = max(abs(first - second) - 1, 0) ** 2 / (first + second)
    above = 2 * (1 - NormalDist().cdf(math.sqrt(chi_square)))  # the square of a normal variable
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(above, rel=1e-9)


def test_the_voters_of_agresti_changed_their_minds() -> None:
    # Agresti 1990, "Categorical data analysis", table 10.1: z = -4.17 without the correction
    assert mcnemar(150, 86) == pytest.approx(4.115e-5, rel=1e-3)


@pytest.mark.parametrize("fewer", range(6, FEW // 2 + 1))
def test_both_ways_agree_where_they_meet(fewer: int) -> None:
    coins = min(1, 2 * sum(math.comb(FEW, count) for count in range(fewer + 1)) / 2**FEW)
    assert mcnemar(fewer, FEW - fewer) == pytest.approx(coins, rel=0.2)
