"""Orders of epochs: what balanced ones show how often, and that they are functions of seed and epoch."""

import numpy as np
import pytest

from cnnlite.data import Batches, Images, Normalizer
from cnnlite.data.augment.crops import RandomCrop, RandomFlip
from cnnlite.data.mix import Mixup
from cnnlite.data.sampling import epoch_order, shown_counts
from cnnlite.runtime import engine
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array

LABELS = np.repeat([0, 1, 3, 4], [60, 3, 30, 7])[np.random.default_rng(0).permutation(100)]
"""Four classes of sizes of their own; of class 2 there is no image."""


def order(epoch: int = 0, labels: Array = LABELS) -> Array:
    return epoch_order("balanced", labels, stream(5, "order", epoch))


def test_a_shuffled_epoch_is_a_permutation() -> None:
    found = epoch_order("shuffled", LABELS, stream(0, "order", 3))
    np.testing.assert_array_equal(found, stream(0, "order", 3).permutation(100))


@pytest.mark.parametrize("epoch", range(5))
def test_each_round_of_a_balanced_epoch_has_every_class_once(epoch: int) -> None:
    labels = LABELS[order(epoch)]
    assert len(labels) == 100
    assert [sorted(labels[start : start + 4].tolist()) for start in range(0, 100, 4)] == [[0, 1, 3, 4]] * 25


def test_no_image_comes_again_before_all_of_its_class_had_their_turn() -> None:
    found = order()
    for label, size in ((0, 60), (1, 3), (3, 30), (4, 7)):
        images = found[LABELS[found] == label].tolist()
        assert len(images) == 25
        for start in range(0, 25, size):
            turn = images[start : start + size]
            assert len(set(turn)) == len(turn)
            assert len(turn) == size or start + size > 25


def test_over_some_epochs_a_frequent_class_shows_all_its_images() -> None:
    seen = np.concatenate([order(epoch) for epoch in range(20)])
    assert set(seen.tolist()) == set(range(100))
    counts = np.bincount(seen, minlength=100)
    assert np.all(np.abs(counts[LABELS == 1] - 500 / 3) <= 20)  # one more or less in each epoch
    assert np.all(counts[LABELS == 0] >= 1)


def test_epochs_and_rounds_have_orders_of_their_own() -> None:
    assert len({order(epoch).tobytes() for epoch in range(5)}) == 5
    rounds = {tuple(LABELS[order()][start : start + 4].tolist()) for start in range(0, 100, 4)}
    assert len(rounds) > 10
    np.testing.assert_array_equal(order(3), order(3))


@pytest.mark.parametrize("counts", [[1], [5], [1, 1], [2, 1, 1], [1, 99], [10, 1, 1, 1, 1, 1, 1]])
def test_an_epoch_has_as_many_images_as_there_are_whatever_the_classes(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    found = order(labels=labels)
    assert found.shape == labels.shape
    shown = np.bincount(labels[found], minlength=len(counts))
    assert shown.max() - shown.min() <= 1


def test_classes_that_are_shown_equally_often_have_equal_counts() -> None:
    counts = np.array([60, 3, 0, 30, 7])
    assert shown_counts("balanced", counts).tolist() == [1, 1, 0, 1, 1]
    assert shown_counts("shuffled", counts).tolist() == counts.tolist()


def balanced(threads: int = 1) -> Batches:
    engine.set_threads(threads)
    images = np.random.default_rng(1).integers(0, 256, (100, 8, 8, 3), np.uint8)
    return Batches(
        Images(images, LABELS.astype(np.int64)),
        16,
        seed=3,
        transforms=[RandomFlip(), RandomCrop(2)],
        normalizer=Normalizer.fit(images),
        sampling="balanced",
        mix=Mixup(0.2),
        classes=5,
    )


def test_parts_of_a_balanced_batch_are_those_of_the_whole_at_any_step_and_number_of_threads() -> None:
    forward = balanced()
    whole = {step: forward.batch(step) for step in range(15)}
    for step in (14, 0, 6, 7, 3):
        count = forward.size(step)
        for parts in ([slice(0, 1), slice(1, count)], [slice(0, count // 2), slice(count // 2, count)]):
            found = [balanced(threads=2).batch(step, part) for part in parts]
            for index in (0, 1):
                together = np.concatenate([pair[index] for pair in found])
                np.testing.assert_array_equal(together, whole[step][index])


def test_a_balanced_batch_has_every_class_nearly_as_often() -> None:
    source = balanced()
    for step in range(12):
        shares = source.batch(step)[1].sum(axis=0)
        assert shares[2] == 0
        plain = np.bincount(LABELS[source._order_of(step // 7)][step % 7 * 16 :][:16], minlength=5)
        assert plain.sum() == source.size(step)
        assert plain[[0, 1, 3, 4]].max() - plain[[0, 1, 3, 4]].min() <= 1
