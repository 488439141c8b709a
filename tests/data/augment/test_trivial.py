from typing import Any

import numpy as np
import pytest

from cnnlite.data.augment.trivial import NAMES, TrivialAugmentWide
from cnnlite.utils.types import Array
from tests.data.augment import test_affine, test_colour
from tests.support.transform_cases import pick, some_images


def equalized(values: Array) -> Array:
    """One channel (H, W), value by value."""
    largest = int(values.max())
    step = int((values < largest).sum()) // 255
    if not step:
        return values
    out = np.empty_like(values)
    for place in np.ndindex(values.shape):
        out[place] = min(255, (int((values < values[place]).sum()) + step // 2) // step)
    return out


def naive(name: str, image: Array, strength: float, matrix: Array, fill: int) -> Array:
    """One image, float64, not rounded."""
    x = image.astype(float)
    if name in ("brightness", "contrast", "sharpness"):
        return test_colour.naive(name, x, 1 + strength)
    if name == "color":
        return test_colour.naive("saturation", x, 1 + strength) if image.shape[-1] == 3 else x
    if name == "posterize":
        return x - x % 2**strength
    if name == "solarize":
        return np.where(x >= 255 - strength, 255 - x, x)
    if name == "autocontrast":
        low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
        return np.where(high > low, (x - low) * 255 / np.where(high > low, high - low, 1), x)
    if name == "equalize":
        return np.stack([equalized(image[..., channel]) for channel in range(image.shape[-1])], axis=-1)
    out = np.empty_like(x)
    for place in np.ndindex(image.shape[:2]):
        row, column = matrix @ [*place, 1.0]
        out[place] = test_affine.look_up(image, row, column, "nearest", fill)
    return out


@pytest.mark.parametrize("shape", [(400, 9, 8, 3), (150, 7, 9, 1), (150, 5, 7, 4), (40, 32, 32, 3)])
def test_each_image_is_changed_as_a_loop_over_images_says(shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    images[::2] //= 3  # some contrast to stretch
    images[::11, ..., 0] = 50  # a channel of one value
    transform = TrivialAugmentWide(fill=31)
    options = transform.draw(np.random.default_rng(0), pick(len(images), shape[1:]))
    found = transform.apply(images, options)
    seen = set()
    for image, option, ours in zip(images, options, found, strict=True):
        name = NAMES[int(option[0])]
        expected = naive(name, image, option[1], option[2:].reshape(2, 3), 31)
        seen.add(name)
        if name in ("rotate", "shear_x", "shear_y"):  # halfway between two pixels float32 may choose the other one
            assert (ours == expected).mean() > 0.97, (name, option)
        else:
            np.testing.assert_allclose(ours, expected, atol=0.51, err_msg=name)
    assert len(images) < 100 or seen == set(NAMES)


def test_ways_and_strengths_are_even_and_as_wide_as_in_the_paper() -> None:
    options = TrivialAugmentWide().draw(np.random.default_rng(0), pick(100_000, (32, 32, 3)))
    number, strength = options[:, 0].astype(int), options[:, 1]
    np.testing.assert_allclose(np.bincount(number) / len(number), [1 / 14] * 14, atol=0.004)
    levels = {name: np.unique(strength[number == index], return_counts=True) for index, name in enumerate(NAMES)}
    for name in ("shear_x", "shear_y", "brightness", "color", "contrast", "sharpness"):
        np.testing.assert_allclose(levels[name][0], np.linspace(-0.99, 0.99, 61))
        counts = levels[name][1] / levels[name][1].sum()
        np.testing.assert_allclose(np.delete(counts, 30), 1 / 62, atol=0.006)
        assert counts[30] == pytest.approx(1 / 31, abs=0.01)  # none at all, with either sign
    np.testing.assert_allclose(levels["rotate"][0], np.linspace(-135, 135, 61), atol=1e-9)
    whole = [int(32 * level / 30) for level in range(31)]
    for name in ("translate_x", "translate_y"):
        np.testing.assert_array_equal(levels[name][0], sorted({*whole, *(-level for level in whole)}))
    np.testing.assert_array_equal(levels["posterize"][0], range(7))
    np.testing.assert_allclose(levels["solarize"][0], np.linspace(0, 255, 31))
    for name in ("identity", "autocontrast", "equalize"):
        np.testing.assert_array_equal(levels[name][0], [0])


def one_way(name: str, strength: float, image: Array, **options: Any) -> Array:
    """The image changed in one way alone."""
    transform = TrivialAugmentWide(**options)
    rng, index = np.random.default_rng(0), NAMES.index(name)
    drawn = transform.draw(rng, pick(20_000, image.shape))
    fitting = drawn[(drawn[:, 0] == index)]
    nearest = fitting[np.abs(fitting[:, 1] - strength).argmin()][None]
    assert abs(nearest[0, 1] - strength) < 1e-6
    found: Array = transform.apply(image[None], nearest)[0]
    return found


def test_translations_and_shears_have_the_directions_of_the_paper() -> None:
    image = some_images((1, 40, 40, 3))[0]
    right, down = one_way("translate_x", 16, image), one_way("translate_y", -16, image)
    np.testing.assert_array_equal(right[:, 16:], image[:, :-16])
    assert not right[:, :16].any()
    np.testing.assert_array_equal(down[:-16], image[16:])
    # Sheared about the upper left corner by 0.99, each row is taken from about its own number further right.
    sheared = one_way("shear_x", 0.99, image)
    for row in (0, 1, 7, 20):
        start = round(0.99 * (row + 0.5))
        np.testing.assert_array_equal(sheared[row, : 39 - start], image[row, start:39])
    np.testing.assert_array_equal(one_way("shear_y", 0.99, image), sheared_down(image))


def sheared_down(image: Array) -> Array:
    return one_way("shear_x", 0.99, image.transpose(1, 0, 2)).transpose(1, 0, 2)


def test_changes_are_those_of_pillow_which_the_paper_uses() -> None:
    image_of: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed").fromarray
    from PIL import Image, ImageEnhance, ImageOps

    pixels = some_images((1, 40, 44, 3))[0] // 2 + 30
    picture = image_of(pixels)
    expected = {
        ("autocontrast", 0.0): ImageOps.autocontrast(picture),
        ("equalize", 0.0): ImageOps.equalize(picture),
        ("posterize", 5.0): ImageOps.posterize(picture, 3),
        ("solarize", 255 * 20 / 30): ImageOps.solarize(picture, 85),
        ("brightness", 0.99 * 12 / 30): ImageEnhance.Brightness(picture).enhance(1 + 0.99 * 12 / 30),
        ("color", -0.99 * 12 / 30): ImageEnhance.Color(picture).enhance(1 - 0.99 * 12 / 30),
        ("contrast", 0.99 * 20 / 30): ImageEnhance.Contrast(picture).enhance(1 + 0.99 * 20 / 30),
        ("sharpness", 0.99): ImageEnhance.Sharpness(picture).enhance(1.99),
        ("shear_x", 0.99 * 9 / 30): picture.transform(
            picture.size, Image.Transform.AFFINE, (1, 0.99 * 9 / 30, 0, 0, 1, 0)
        ),
        ("rotate", 135 * 7 / 30): picture.rotate(135 * 7 / 30),
    }
    for (name, strength), theirs in expected.items():
        ours = one_way(name, strength, pixels).astype(int)
        off = np.abs(ours - np.asarray(theirs))
        if name in ("shear_x", "rotate"):
            assert (off > 0).mean() < 0.01, name
        else:
            assert off.max() <= (0 if name in ("equalize", "posterize", "solarize") else 2), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrivialAugmentWide(1), r"num_magnitude_bins 1 is not in 2\.\.1000"),
        (lambda: TrivialAugmentWide(10**6), r"num_magnitude_bins 1000000 is not in 2\.\.1000"),
        (lambda: TrivialAugmentWide(interpolation="x"), "'x' is not nearest or bilinear"),  # type: ignore[arg-type]
        (lambda: TrivialAugmentWide(fill=256), r"fill 256 is not in \[0, 255\]"),
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
