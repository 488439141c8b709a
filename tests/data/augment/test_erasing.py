import math
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Transform
from cnnlite.data.augment.erasing import Cutout, RandomErasing, draw_rectangles, rectangles
from cnnlite.utils.types import Array
from tests.support.transform_cases import COVERS, SHAPES, named, pick, some_images


def noise(seed: int, shape: tuple[int, ...]) -> Array:
    """Bytes of SplitMix64, one number after the other, in whole numbers of any size."""
    found, state = bytearray(), seed
    while len(found) < math.prod(shape):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        found += (mixed ^ mixed >> 31).to_bytes(8, "little")
    return np.frombuffer(bytes(found[: math.prod(shape)]), np.uint8).reshape(shape)


def naive(transform: Transform, image: Array, option: Array) -> Array:
    """One image, one pixel at a time."""
    if isinstance(transform, Cutout):
        top, left = (option - transform.size // 2).tolist()
        bottom, right = top + transform.size, left + transform.size
        fill = np.full_like(image, transform.fill)
    else:
        assert isinstance(transform, RandomErasing)
        top, left, bottom, right, seed = option.tolist()
        random = transform.fill == "random"
        fill = noise(seed, image.shape) if random else np.full_like(image, transform.fill)
    out = image.copy()
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if top <= row < bottom and left <= column < right:
                out[row, column] = fill[row, column]
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", COVERS, ids=named)
def test_transform_equals_a_loop_over_pixels(transform: Transform, shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    options = transform.draw(np.random.default_rng(0), pick(shape[0], shape[1:]))
    out = transform.apply(images, options)
    np.testing.assert_array_equal(out, [naive(transform, *pair) for pair in zip(images, options, strict=True)])


def test_noise_is_the_published_sequence_of_splitmix64() -> None:
    # The first numbers for the seed 1234567, from Rosetta Code's "Pseudo-random numbers/Splitmix64".
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    erased = RandomErasing(1.0).apply(np.zeros((1, 1, 40, 1), np.uint8), np.array([[0, 0, 1, 40, 1234567]]))
    assert erased.reshape(-1).view("<u8").tolist() == known


def test_noise_has_all_values_alike_and_no_relation_between_images_pixels_and_channels() -> None:
    options = RandomErasing(1.0).draw(np.random.default_rng(0), pick(64, (32, 32, 3)))
    options[:, :4] = 0, 0, 32, 32
    drawn = RandomErasing().apply(np.zeros((64, 32, 32, 3), np.uint8), options)
    counts = np.bincount(drawn.reshape(-1), minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 350  # chi-squared of 255 degrees of freedom
    values = drawn.astype(float) - 127.5
    for other in (np.roll(values, 1, axis=0), np.roll(values, 1, axis=2), np.roll(values, 1, axis=3)):
        assert abs((values * other).mean()) / values.var() < 0.01


def test_cutout_covers_with_grey_at_all_places_alike() -> None:
    covered = Cutout(8).apply(np.zeros((1, 4, 4, 3), np.uint8), np.array([[2, 2]]))
    np.testing.assert_array_equal(covered, 128)
    options = Cutout(3).draw(np.random.default_rng(2), pick(20000, (4, 7, 3)))
    for axis, count in enumerate((4, 7)):
        np.testing.assert_allclose(np.bincount(options[:, axis]) / len(options), [1 / count] * count, atol=0.015)
    assert abs(np.corrcoef(options.T)[0, 1]) < 0.03


def test_rectangles_may_lie_outside() -> None:
    where = rectangles((3, 4, 5, 2), np.array([[-2, 3], [4, 0], [1, -9]]), np.array([[2, 9], [6, 2], [2, 0]]))
    expected = np.zeros((3, 4, 5, 2), bool)
    expected[0, :2, 3:] = True
    np.testing.assert_array_equal(where, expected.reshape(3, 4, 10))


def one_rectangle(rng: Any, height: int, width: int, scale: Any, ratio: Any) -> tuple[int, int, int, int] | None:
    """As torchvision's RandomResizedCrop.get_params tries for one image."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    return None


@pytest.mark.parametrize("shape", [(32, 32), (20, 50), (6, 90)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (0.75, 4 / 3)), ((0.02, 0.4), (0.3, 3.3))])
def test_rectangles_have_the_distribution_of_trying_one_by_one(shape: Any, scale: Any, ratio: Any) -> None:
    count = 20000
    first, sides = draw_rectangles(np.random.default_rng(0), count, (*shape, 3), scale, ratio)
    rng = np.random.default_rng(1)
    tried = [one_rectangle(rng, shape[0], shape[1], scale, ratio) for _ in range(count)]
    expected = np.array([found for found in tried if found])
    found = np.concatenate([first, sides], axis=1)[sides[:, 0] > 0]
    assert len(found) / count == pytest.approx(len(expected) / count, abs=0.015)
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), rtol=0.02, atol=0.05)
    np.testing.assert_allclose(found.std(axis=0), expected.std(axis=0), rtol=0.03, atol=0.05)
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= shape).all()
    assert (sides[sides[:, 0] == 0] == 0).all()


def test_an_erased_rectangle_is_as_high_and_wide_as_the_ratio_says_and_as_frequent_as_the_probability() -> None:
    options = RandomErasing(0.3, (0.1, 0.1), (4.0, 4.0)).draw(np.random.default_rng(0), pick(5000, (100, 100, 1)))
    sides = options[:, 2:4] - options[:, :2]
    chosen = sides[:, 0] > 0
    assert abs(chosen.mean() - 0.3) < 0.02
    np.testing.assert_array_equal(np.unique(sides[chosen], axis=0), [[63, 16]])  # height / width is 4


def test_where_no_rectangle_fits_nothing_is_erased() -> None:
    images = some_images((9, 40, 2, 3))
    transform = RandomErasing(1.0, (0.9, 1.0), (0.3, 0.5))
    np.testing.assert_array_equal(
        transform.apply(images, transform.draw(np.random.default_rng(0), pick(9, (40, 2, 3)))), images
    )


def test_defaults_are_those_of_torchvision_but_for_the_noise_of_the_paper() -> None:
    transform = RandomErasing()
    assert (transform.probability, transform.scale, transform.ratio) == (0.5, (0.02, 0.33), (0.3, 3.3))
    assert transform.fill == "random"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cutout(0), "size must be at least 1"),
        (lambda: Cutout(4, fill=256), r"fill 256 is not in \[0, 255\]"),
        (lambda: RandomErasing(1.5), r"probability 1.5 is not in \[0, 1\]"),
        (lambda: RandomErasing(scale=(0.0, 0.5)), r"scale \[0.0, 0.5\] is not an interval within \(0, 1\]"),
        (lambda: RandomErasing(scale=(0.5, 1.5)), r"scale \[0.5, 1.5\] is not an interval within \(0, 1\]"),
        (lambda: RandomErasing(ratio=(2.0, 1.0)), r"ratio \[2.0, 1.0\] is not an interval within \(0, inf\)"),
        (lambda: RandomErasing(fill=-1), r"fill -1 is not in \[0, 255\]"),
        (lambda: RandomErasing(fill="mean"), "fill 'mean' is not random or a number"),  # type: ignore[arg-type]
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
