import numpy as np
import pytest

from cnnlite.data import Batches, Images, Normalizer, Transform
from cnnlite.data.augment.crops import AlternatingFlip, CenterCrop, RandomCrop, RandomFlip
from cnnlite.data.augment.erasing import Cutout
from cnnlite.data.mix import Cutmix, Mixing, Mixup
from cnnlite.errors import ConfigError
from cnnlite.runtime import engine

RAW = Normalizer(np.zeros(3), np.ones(3))


def numbered(count: int) -> Images:
    """Image n has pixels of its own, and label n."""
    images = np.random.default_rng(count).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return Images(images, np.arange(count))


def batches(count: int = 23, size: int = 5, seed: int = 0, augment: bool = False, drop_last: bool = False) -> Batches:
    transforms: list[Transform] = [RandomFlip(), RandomCrop(2)] if augment else []
    return Batches(numbered(count), size, seed=seed, transforms=transforms, normalizer=RAW, drop_last=drop_last)


def labels_of_epoch(source: Batches, epoch: int) -> list[int]:
    first = epoch * source.steps_per_epoch
    return [label for step in range(first, first + source.steps_per_epoch) for label in source.batch(step)[1].tolist()]


@pytest.mark.parametrize(("count", "size"), [(23, 5), (20, 5), (7, 7), (7, 1), (8, 7)])
def test_each_image_is_seen_once_an_epoch(count: int, size: int) -> None:
    source = batches(count, size)
    assert source.steps_per_epoch == -(-count // size)
    for epoch in range(4):
        assert sorted(labels_of_epoch(source, epoch)) == list(range(count))


def test_drop_last_leaves_out_the_short_batch() -> None:
    source = batches(23, 5, drop_last=True)
    assert source.steps_per_epoch == 4
    for epoch in range(3):
        seen = labels_of_epoch(source, epoch)
        assert len(seen) == len(set(seen)) == 20
    assert {len(source.batch(step)[1]) for step in range(12)} == {5}


def test_orders_of_epochs_and_seeds_differ() -> None:
    source = batches(200, 10)
    orders = {tuple(labels_of_epoch(source, epoch)) for epoch in range(5)}
    orders.add(tuple(labels_of_epoch(batches(200, 10, seed=1), 0)))
    orders.add(tuple(range(200)))
    assert len(orders) == 7


def test_order_mixes_whole_epoch_not_only_batches() -> None:
    # Neighbours in the data must not stay neighbours: the mean distance of a random pair is a third of the range.
    order = np.array(labels_of_epoch(batches(900, 10), 1))
    assert abs(np.abs(np.diff(order)).mean() / 900 - 1 / 3) < 0.03


def test_images_go_with_their_labels() -> None:
    source = batches()
    for step in range(source.steps_per_epoch):
        x, labels = source.batch(step)
        assert x.dtype == np.float32
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(x, source.images.images[labels])


def test_batch_depends_on_nothing_but_its_step() -> None:
    forward, jumping = batches(augment=True), batches(augment=True)
    expected = {step: forward.batch(step) for step in range(12)}
    for step in (11, 0, 7, 7, 3, 10, 0):
        for found, wanted in zip(jumping.batch(step), expected[step], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_bits_of_a_batch_are_the_same_for_any_number_of_threads() -> None:
    images = Images(np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8), np.arange(80))
    transforms: list[Transform] = [RandomFlip(), RandomCrop(4), Cutout(8)]
    source = Batches(images, 64, seed=3, transforms=transforms, normalizer=Normalizer.fit(images.images))
    found = []
    for threads in (1, 2, 4):
        engine.set_threads(threads)
        found.append(source.batch(2)[0].tobytes())
    assert found[0] == found[1] == found[2]


def test_augmentation_differs_between_epochs() -> None:
    source = Batches(numbered(1), 1, seed=0, transforms=[RandomCrop(2)], normalizer=RAW)
    seen = {source.batch(step)[0].tobytes() for step in range(40)}
    assert len(seen) > 10


def test_alternating_flip_shows_both_sides_of_each_image_in_two_epochs() -> None:
    source = Batches(numbered(23), 5, seed=0, transforms=[AlternatingFlip()], normalizer=RAW)
    sides: list[dict[int, bool]] = [{}, {}, {}]
    for step in range(15):
        for x, label in zip(*source.batch(step), strict=True):
            sides[step // 5][int(label)] = bool((x != source.images.images[label]).any())
    assert all(sides[0][label] is not sides[1][label] for label in range(23))
    assert sides[2] == sides[0]
    assert len(set(sides[0].values())) == 2


def test_augmentation_leaves_the_dataset_alone() -> None:
    source = batches(augment=True)
    before = source.images.images.copy()
    for step in range(10):
        source.batch(step)[0][:] = 0
    np.testing.assert_array_equal(source.images.images, before)


@pytest.mark.parametrize("size", [0, -1, 24])
def test_batch_size_must_fit_the_data(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"train\.batch_size: {size} is not in 1\.\.23"):
        batches(23, size)


def test_augmentation_that_changes_the_shape_is_refused() -> None:
    transforms: list[Transform] = [RandomFlip(), CenterCrop(4)]
    with pytest.raises(ConfigError, match=r"data\.augment\[1\]: makes \(4, 4, 3\) of \(6, 6, 3\).*data\.center_crop"):
        Batches(numbered(9), 3, seed=0, transforms=transforms, normalizer=RAW)
    with pytest.raises(ConfigError, match=r"data\.augment\[0\]: cannot reflect 6 pixels"):
        Batches(numbered(9), 3, seed=0, transforms=[RandomCrop(6, "reflect")], normalizer=RAW)


@pytest.mark.parametrize("mix", [None, Mixup(0.4), Cutmix()])
def test_a_part_of_a_batch_has_the_bits_of_the_whole_one(mix: Mixing | None) -> None:
    transforms: list[Transform] = [RandomFlip(), RandomCrop(2), Cutout(2)]
    source = Batches(numbered(23), 9, seed=3, transforms=transforms, normalizer=RAW, mix=mix, classes=23)
    for step in (1, 2, 5):
        x, targets = source.batch(step)
        assert len(x) == source.size(step) == (9, 9, 5)[step % 3]
        for part in (slice(0, 2), slice(2, 5), slice(4, 5)):
            own_x, own_targets = source.batch(step, part)
            np.testing.assert_array_equal(own_x, x[part])
            np.testing.assert_array_equal(own_targets, targets[part])


@pytest.mark.parametrize("mix", [None, Mixup(0.4)])
def test_sources_are_the_images_that_a_batch_is_made_of(mix: Mixing | None) -> None:
    source = Batches(numbered(23), 9, seed=3, transforms=[], normalizer=RAW, mix=mix, classes=23)
    for step in (1, 2, 5):
        x, targets = source.batch(step)
        indices = source.sources(step)
        assert indices.shape == (len(x), 1 if mix is None else 2)
        for image, target, made_of in zip(x, targets, indices, strict=True):
            shares = [1.0] if mix is None else [target[made_of[0]], 1 - target[made_of[0]]]
            expected = sum(k * source.images.images[index] for k, index in zip(shares, made_of, strict=True))
            np.testing.assert_allclose(image, expected, atol=1e-3)
            assert made_of[0] == target if mix is None else set(np.flatnonzero(target)) <= set(made_of)
