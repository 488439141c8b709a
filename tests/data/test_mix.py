import numpy as np
import pytest

from cnnlite.data import Batches, Images, Mixing, Normalizer, mixings
from cnnlite.data.augment.crops import RandomCrop, RandomFlip
from cnnlite.data.mix import Cutmix, Mixup, soft_targets
from cnnlite.runtime import engine
from cnnlite.utils.types import Array

SHAPE = (8, 10, 3)
ALL: list[Mixing] = [Mixup(), Mixup(0.2), Cutmix(), Cutmix(0.3, probability=0.5)]
IDS = ["mixup", "mixup-0.2", "cutmix", "cutmix-half"]


def pairs(count: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(count)
    x, other = rng.standard_normal((2, count, *SHAPE)).astype(np.float32)
    return x, other


def naive(mixing: Mixing, x: Array, other: Array, option: Array) -> tuple[Array, float]:
    """One pair, one pixel at a time: the mixed image and the share of the first."""
    if isinstance(mixing, Mixup):
        return float(option) * x + (1 - float(option)) * other, float(option)
    out, own = x.copy(), 0
    (top, left), (bottom, right) = option
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            inside = top <= row < bottom and left <= column < right
            out[row, column] = (other if inside else x)[row, column]
            own += not inside
    return out, own / (SHAPE[0] * SHAPE[1])


@pytest.mark.parametrize("mixing", ALL, ids=IDS)
def test_mixing_equals_a_loop_over_pixels_and_so_do_its_shares(mixing: Mixing) -> None:
    x, other = pairs(40)
    options = mixing.draw(np.random.default_rng(0), 40, SHAPE)
    mixed = x.copy()
    mixing.apply(mixed, other.copy(), options)
    expected = [naive(mixing, *row) for row in zip(x, other, options, strict=True)]
    np.testing.assert_allclose(mixed, [image for image, _ in expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixing.shares(options, SHAPE), [share for _, share in expected], rtol=1e-6)


def test_every_registered_mixing_is_checked_here() -> None:
    assert {mixings[name] for name in mixings} == {type(mixing) for mixing in ALL}


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_of_mixup_have_the_beta_distribution(alpha: float) -> None:
    mixing = Mixup(alpha)
    shares = mixing.shares(mixing.draw(np.random.default_rng(0), 20000, SHAPE), SHAPE)
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_the_rectangles_of_cutmix_have_the_sides_and_places_of_the_paper() -> None:
    count, size = 20000, 64
    options = Cutmix(2.0).draw(np.random.default_rng(0), count, (size, size, 3))
    first, stop = options[:, 0], options[:, 1]
    assert first.min() == 0
    assert stop.max() == size
    whole = ((first > 0) & (stop < size)).all(axis=1)
    sides = (stop - first)[whole]
    np.testing.assert_array_equal(sides[:, 0], sides[:, 1])
    # The same by the formula, one float at a time.
    rng = np.random.default_rng(1)
    side = size * np.sqrt(1 - rng.beta(2.0, 2.0, count))
    centre = rng.random((count, 2)) * size
    low, high = centre - side[:, None] / 2, centre + side[:, None] / 2
    area = (np.minimum(high, size) - np.maximum(low, 0)).prod(axis=1) / size**2
    found = 1 - Cutmix().shares(options, (size, size, 3))
    np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(area, [0.1, 0.5, 0.9]), atol=0.02)
    assert whole.mean() == pytest.approx(((low > 0) & (high < size)).all(axis=1).mean(), abs=0.02)


def test_cutmix_leaves_images_alone_as_often_as_it_is_told() -> None:
    mixing = Cutmix(probability=0.25)
    shares = mixing.shares(mixing.draw(np.random.default_rng(0), 20000, SHAPE), SHAPE)
    assert (shares < 1).mean() == pytest.approx(0.25, abs=0.02)


def test_targets_hold_the_shares_of_both_labels() -> None:
    labels, partner, shares = np.array([2, 0, 1, 2]), np.array([1, 0, 2, 0]), np.array([0.75, 0.25, 1.0, 0.5])
    targets = soft_targets(labels, partner, shares, 4)
    np.testing.assert_array_equal(targets, [[0.25, 0, 0.75, 0], [0.25, 0, 0.75, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    assert targets.dtype == np.float32


def mixed_batches(mixing: Mixing | None, count: int = 60) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Batches(
        Images(images, np.arange(count)),
        25,
        seed=3,
        transforms=[RandomFlip(), RandomCrop(2)],
        normalizer=Normalizer.fit(images),
        mix=mixing,
        classes=count,
    )


@pytest.mark.parametrize("mixing", ALL, ids=IDS)
def test_a_mixed_batch_is_made_of_the_augmented_images_of_the_same_step(mixing: Mixing) -> None:
    plain, labels = mixed_batches(None).batch(1)
    x, targets = mixed_batches(mixing).batch(1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    partners = set()
    for image, own, label, target in zip(x, plain, labels, targets, strict=True):
        share = target[label]
        for other in np.flatnonzero(target):
            if other != label:
                partner = plain[labels == other][0]
                partners.add(other)
                if isinstance(mixing, Mixup):
                    np.testing.assert_allclose(image, share * own + (1 - share) * partner, atol=1e-5)
                else:
                    assert ((image == own) | (image == partner)).all()
    assert len(partners) > 5


@pytest.mark.parametrize("mixing", ALL, ids=IDS)
def test_a_mixed_batch_depends_on_its_step_alone_and_not_on_threads(mixing: Mixing) -> None:
    found: dict[int, set[tuple[bytes, bytes]]] = {}
    for threads, steps in ((1, (0, 1, 2, 3)), (2, (3, 1, 0, 2))):
        engine.set_threads(threads)
        source = mixed_batches(mixing)
        for step in steps:
            x, targets = source.batch(step)
            found.setdefault(step, set()).add((x.tobytes(), targets.tobytes()))
    assert [len(bits) for bits in found.values()] == [1, 1, 1, 1]
    assert len(set.union(*found.values())) == 4


@pytest.mark.parametrize("mixing", ALL, ids=IDS)
def test_each_step_has_shares_of_its_own(mixing: Mixing) -> None:
    source = mixed_batches(mixing)
    shares = [tuple(np.sort(source.batch(step)[1].max(axis=1))) for step in (0, 1, 3)]
    assert len(set(shares)) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(0.0), "alpha must be above 0, not 0"),
        (lambda: Mixup(float("inf")), "alpha must be above 0, not inf"),
        (lambda: Cutmix(float("nan")), "alpha must be above 0, not nan"),
        (lambda: Cutmix(1.0, 1.5), r"probability 1.5 is not in \[0, 1\]"),
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
