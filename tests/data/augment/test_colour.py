import colorsys
from typing import Any

import numpy as np
import pytest

from cnnlite.data.augment import colour
from cnnlite.data.augment.colour import ColorJitter, to_images, to_planes
from cnnlite.utils.types import Array
from tests.support.transform_cases import COLOURS, named, pick, some_images

NAMES = ("brightness", "contrast", "saturation", "hue")


def naive(name: str, image: Array, amount: float) -> Array:
    """One image (H, W, C) in 0..255, float64."""
    grey = image @ [0.299, 0.587, 0.114] if image.shape[-1] == 3 else image.mean(axis=-1)
    if name == "hue":
        out = np.empty_like(image)
        for place in np.ndindex(image.shape[:2]):
            h, s, v = colorsys.rgb_to_hsv(*(image[place] / 255))
            out[place] = colorsys.hsv_to_rgb((h + amount) % 1, s, v)
        return 255 * out
    if name == "sharpness":
        other = image.copy()
        for y in range(1, image.shape[0] - 1):
            for x in range(1, image.shape[1] - 1):
                other[y, x] = (image[y - 1 : y + 2, x - 1 : x + 2].sum(axis=(0, 1)) + 4 * image[y, x]) / 13
    else:
        other = {"brightness": np.zeros(1), "contrast": grey.mean(), "saturation": grey[..., None]}[name]
    return np.clip(amount * image + (1 - amount) * other, 0, 255)


@pytest.mark.parametrize("shape", [(40, 7, 9, 3), (40, 2, 2, 3), (40, 7, 9, 1), (40, 5, 7, 4)])
@pytest.mark.parametrize("name", [*NAMES, "sharpness"])
def test_change_equals_float64_image_by_image(name: str, shape: tuple[int, ...]) -> None:
    if name in ("saturation", "hue") and shape[-1] != 3:
        shape = (*shape[:-1], 3)
    images = some_images(shape)
    images[::5] = images[::5, ..., :1]  # greys among them, which have no hue
    amounts = np.random.default_rng(0).uniform(-0.5, 0.5, len(images)) * (1 if name == "hue" else 4)
    if name != "hue":
        amounts = np.abs(amounts)
    planes = to_planes(images)
    getattr(colour, name)(planes, amounts)
    expected = [naive(name, image.astype(float), amount) for image, amount in zip(images, amounts, strict=True)]
    np.testing.assert_allclose(planes.transpose(1, 2, 3, 0), expected, atol=2e-3)
    np.testing.assert_allclose(to_images(planes), expected, atol=0.51)


@pytest.mark.parametrize("transform", COLOURS, ids=named)
def test_jitter_makes_its_changes_in_the_order_that_was_drawn(transform: ColorJitter) -> None:
    images = some_images((60, 6, 5, 3))
    options = transform.draw(np.random.default_rng(0), pick(60, (6, 5, 3)))
    chosen = [name for name in NAMES if getattr(transform, name) != 0.0]
    amounts, orders = np.split(options, 2, axis=1)
    expected = []
    for image, values, order in zip(images, amounts, orders, strict=True):
        changed = image.astype(float)
        for number in order.astype(int):
            changed = naive(chosen[number], changed, values[number])
        expected.append(changed)
    np.testing.assert_allclose(transform.apply(images, options), expected, atol=0.52)


def test_amounts_are_even_in_their_range_and_orders_alike() -> None:
    options = ColorJitter(0.4, (0.5, 3.0), 2.0, 0.1).draw(np.random.default_rng(0), pick(24000))
    ends = [(0.6, 1.4), (0.5, 3.0), (0.0, 3.0), (-0.1, 0.1)]
    for amounts, (low, high) in zip(options.T, ends, strict=False):
        expected = np.linspace(low, high, 5)
        np.testing.assert_allclose(np.quantile(amounts, [0, 0.25, 0.5, 0.75, 1]), expected, atol=0.02 * (high - low))
    orders, counts = np.unique(options[:, 4:], axis=0, return_counts=True)
    assert len(orders) == 24
    np.testing.assert_allclose(counts / 1000, 1, atol=0.12)


def test_factors_of_one_and_no_turn_change_nothing() -> None:
    images = some_images((5, 9, 9, 3))
    for name in (*NAMES, "sharpness"):
        planes = to_planes(images)
        getattr(colour, name)(planes, np.full(5, 0.0 if name == "hue" else 1.0))
        np.testing.assert_array_equal(to_images(planes), images)


def test_factors_of_nought_leave_black_one_grey_and_greys() -> None:
    images = some_images((5, 9, 9, 3))
    found = {}
    for name in ("brightness", "contrast", "saturation"):
        planes = to_planes(images)
        getattr(colour, name)(planes, np.zeros(5))
        found[name] = to_images(planes)
    assert not found["brightness"].any()
    assert all(len(np.unique(image)) == 1 for image in found["contrast"])
    assert (found["saturation"] == found["saturation"][..., :1]).all()


def test_a_third_of_a_turn_exchanges_colours_and_greys_have_no_hue() -> None:
    images = some_images((5, 9, 9, 3))
    planes = to_planes(images)
    colour.hue(planes, np.full(5, 1 / 3))
    np.testing.assert_allclose(planes.transpose(1, 2, 3, 0), images[..., [2, 0, 1]], atol=1e-3)
    greys = np.repeat(images[..., :1], 3, axis=-1)
    planes = to_planes(greys)
    colour.hue(planes, np.linspace(-0.5, 0.5, 5))
    np.testing.assert_array_equal(to_images(planes), greys)


def test_changes_are_those_of_torchvision(torch: Any) -> None:
    images = some_images((4, 8, 9, 3))
    factors = [0.3, 0.9, 1.4, 2.5]

    def blend(image: Any, other: Any, factor: float) -> Any:  # as _blend of its functional_tensor
        return (factor * image + (1 - factor) * other).clamp(0, 255)

    def grey(image: Any) -> Any:
        return (0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2])[None]

    kernel = torch.ones(3, 3, dtype=torch.float64)
    kernel[1, 1] = 5

    def smooth(image: Any) -> Any:
        out = image.clone()
        weights = (kernel / 13).expand(3, 1, 3, 3)
        out[:, 1:-1, 1:-1] = torch.nn.functional.conv2d(image[None], weights, groups=3)[0]
        return out

    others = {
        "brightness": torch.zeros_like,
        "contrast": lambda image: grey(image).mean(),
        "saturation": grey,
        "sharpness": smooth,
    }
    for name, other in others.items():
        planes = to_planes(images)
        getattr(colour, name)(planes, np.array(factors))
        for ours, image, factor in zip(planes.transpose(1, 0, 2, 3), images, factors, strict=True):
            theirs = torch.tensor(image).permute(2, 0, 1).double()
            np.testing.assert_allclose(ours, blend(theirs, other(theirs), factor), atol=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (ColorJitter, "changes nothing: give it brightness, contrast, saturation or hue, such as brightness: 0.4"),
        (lambda: ColorJitter(saturation=(1.0, 1.0), hue=(0.0, 0.0)), "changes nothing"),
        (lambda: ColorJitter(-0.5), r"brightness -0.5 is not in \[0, inf\)"),
        (lambda: ColorJitter(contrast=(-0.5, 1.0)), r"contrast \[-0.5, 1.0\] is not an interval within \[0, inf\)"),
        (lambda: ColorJitter(saturation=(2.0, 1.0)), r"saturation \[2.0, 1.0\] is not an interval"),
        (lambda: ColorJitter(hue=0.6), r"hue 0.6 is not in \[0, 0.5\]"),
        (lambda: ColorJitter(hue=(-0.6, 0.0)), r"hue \[-0.6, 0.0\] is not an interval within \[-0.5, 0.5\]"),
        (lambda: ColorJitter(hue=0.1).out_shape((8, 8, 1)), "hue: needs images of red, green and blue, not of 1 ch"),
        (lambda: ColorJitter(saturation=0.1).out_shape((8, 8, 4)), "saturation: needs .*, not of 4 channels"),
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
