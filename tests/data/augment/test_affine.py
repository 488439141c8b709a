import math
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Transform
from cnnlite.data.augment.affine import RandomResizedCrop, RandomRotation, RandomTranslation, rotation, sample, warp
from cnnlite.utils.types import Array
from tests.support.transform_cases import SHAPES, WARPS, named, pick, some_images


def look_up(image: Array, row: float, column: float, interpolation: str, fill: int) -> Array:
    """The pixel of one image at a place, float64, with ``fill`` around the image."""
    height, width, channels = image.shape

    def pixel(y: int, x: int) -> Array:
        inside = 0 <= y < height and 0 <= x < width
        return image[y, x].astype(float) if inside else np.full(channels, float(fill))

    if interpolation == "nearest":
        return pixel(math.floor(row + 0.5), math.floor(column + 0.5))
    y, x = math.floor(row), math.floor(column)
    down, right = row - y, column - x
    upper = (1 - right) * pixel(y, x) + right * pixel(y, x + 1)
    lower = (1 - right) * pixel(y + 1, x) + right * pixel(y + 1, x + 1)
    return (1 - down) * upper + down * lower


def naive(transform: Transform, image: Array, option: Array) -> Array:
    """One image, one pixel at a time, float64, not rounded."""
    height, width, _ = image.shape
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            if isinstance(transform, RandomRotation):
                (a, b, c), (d, e, f) = option
                place = (a * row + b * column + c, d * row + e * column + f)
                out[row, column] = look_up(image, *place, transform.interpolation, transform.fill)
            elif isinstance(transform, RandomTranslation):
                out[row, column] = look_up(image, row - option[0], column - option[1], "nearest", transform.fill)
            else:
                assert isinstance(transform, RandomResizedCrop)
                top, left, h, w = option.tolist()
                piece = image[top : top + h, left : left + w]
                y = min(max((row + 0.5) * h / height - 0.5, 0), h - 1)
                x = min(max((column + 0.5) * w / width - 0.5, 0), w - 1)
                out[row, column] = look_up(piece, y, x, transform.interpolation, 0)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", WARPS, ids=named)
def test_transform_equals_a_loop_over_pixels(transform: Transform, shape: tuple[int, ...]) -> None:
    images = some_images(shape)[:8]
    options = transform.draw(np.random.default_rng(0), pick(len(images), shape[1:]))
    out = transform.apply(images, options)
    expected = np.array([naive(transform, *pair) for pair in zip(images, options, strict=True)])
    if getattr(transform, "interpolation", "nearest") == "bilinear":
        np.testing.assert_allclose(out, expected, atol=0.51)  # the nearest byte, but for float32
        assert out.size < 5000 or abs((out - expected).mean()) < 0.03  # and not the one below
    else:
        # Halfway between two pixels float32 may choose the other one.
        assert (out == expected).mean() > 0.995


@pytest.mark.parametrize("shape", [(5, 9, 9, 3), (4, 12, 7, 1), (3, 7, 12, 4)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_quarter_turns_are_exact_and_counter_clockwise(shape: tuple[int, ...], interpolation: Any) -> None:
    images = some_images(shape)
    turned = {
        angle: warp(images, rotation(np.full(len(images), float(angle)), shape[1:]), interpolation, 7)
        for angle in (0, 90, 180, -90, 360)
    }
    np.testing.assert_array_equal(turned[0], images)
    np.testing.assert_array_equal(turned[360], images)
    np.testing.assert_array_equal(turned[180], images[:, ::-1, ::-1])
    if shape[1] == shape[2]:
        np.testing.assert_array_equal(turned[90], np.rot90(images, axes=(1, 2)))
        np.testing.assert_array_equal(turned[-90], np.rot90(images, -1, axes=(1, 2)))


def test_an_image_of_one_grey_turns_into_itself_if_that_is_the_fill() -> None:
    images = np.full((6, 11, 14, 3), 77, np.uint8)
    for transform in (RandomRotation(180.0, fill=77), RandomTranslation(1.0, fill=77), RandomResizedCrop()):
        options = transform.draw(np.random.default_rng(3), pick(6, (11, 14, 3)))
        np.testing.assert_array_equal(transform.apply(images, options), images)


def test_nothing_turns_moves_or_grows_where_there_is_nothing_to_draw() -> None:
    images = some_images((6, 11, 14, 3))
    for transform in (RandomRotation(0.0), RandomTranslation(0.0), RandomResizedCrop((1.0, 1.0), (14 / 11, 14 / 11))):
        options = transform.draw(np.random.default_rng(3), pick(6, (11, 14, 3)))
        np.testing.assert_array_equal(transform.apply(images, options), images)


def test_rotation_is_that_of_torchvision(torch: Any) -> None:
    images = some_images((4, 20, 28, 3))
    degrees = np.array([10.0, -33.0, 90.0, 181.0])
    ours = warp(images, rotation(degrees, (20, 28, 3)), "bilinear", 0)
    angles = torch.tensor(degrees).deg2rad()
    cosine, sine, nought = angles.cos(), angles.sin(), torch.zeros(4)
    # Its matrices are in coordinates of -1..1 across (x) and down (y).
    theta = torch.stack([cosine, -sine * 20 / 28, nought, sine * 28 / 20, cosine, nought], 1).reshape(4, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, (4, 3, 20, 28), align_corners=False)
    theirs = torch.nn.functional.grid_sample(
        torch.tensor(images).permute(0, 3, 1, 2).double(), grid, "bilinear", "zeros", align_corners=False
    )
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=0.51)


def test_resized_crop_is_that_of_torchvision(torch: Any) -> None:
    images = some_images((9, 20, 28, 3))
    transform = RandomResizedCrop()
    options = transform.draw(np.random.default_rng(0), pick(9, (20, 28, 3)))
    for image, (top, left, h, w), ours in zip(images, options.tolist(), transform.apply(images, options), strict=True):
        piece = torch.tensor(image[top : top + h, left : left + w]).permute(2, 0, 1)[None].double()
        theirs = torch.nn.functional.interpolate(piece, (20, 28), mode="bilinear", antialias=True)
        np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0).numpy(), atol=0.51)


def test_angles_and_shifts_are_spread_over_their_range() -> None:
    rng = np.random.default_rng(0)
    matrices = RandomRotation((-20.0, 40.0)).draw(rng, pick(20000, (9, 9, 1)))
    angles = np.rad2deg(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    np.testing.assert_allclose(np.quantile(angles, [0, 0.25, 0.5, 0.75, 1]), [-20, -5, 10, 25, 40], atol=0.6)
    assert abs(RandomRotation(30.0).draw(rng, pick(20000))[:, 0, 1].mean()) < 0.01
    shifts = RandomTranslation((0.5, 0.25)).draw(rng, pick(20000, (40, 10, 1)))
    for axis, most in ((0, 10), (1, 5)):
        shares = np.bincount((shifts[:, axis] + most).astype(int), minlength=2 * most + 1) / len(shifts)
        np.testing.assert_allclose(shares[1:-1], 0.5 / most, atol=0.01)
        np.testing.assert_allclose(shares[[0, -1]], 0.25 / most, atol=0.01)  # half as much is rounded to the ends


def test_where_no_rectangle_fits_the_largest_one_in_the_centre_is_taken() -> None:
    wide, high = RandomResizedCrop((0.9, 1.0), (1.0, 1.0)), RandomResizedCrop((0.9, 1.0), (1.0, 2.0))
    np.testing.assert_array_equal(wide.draw(np.random.default_rng(0), pick(3, (10, 31, 3))), [[0, 10, 10, 10]] * 3)
    np.testing.assert_array_equal(high.draw(np.random.default_rng(0), pick(3, (31, 10, 3))), [[10, 0, 10, 10]] * 3)
    np.testing.assert_array_equal(wide.draw(np.random.default_rng(0), pick(2, (1, 90, 3))), [[0, 44, 1, 1]] * 2)


def test_places_far_outside_are_fill_and_those_at_the_border_blend_with_it() -> None:
    image = np.full((1, 2, 2, 1), 200, np.uint8)
    places = np.array([-1e9, -1.0, -0.75, -0.25, 0.0, 1.0, 1.5, 2.0, 1e9])[None, None]
    found = sample(image, np.zeros((1, 1, 1)), places, "bilinear", 100)
    np.testing.assert_array_equal(found[0, 0, :, 0], [100, 100, 125, 175, 200, 200, 150, 100, 100])


def test_defaults_are_those_of_torchvision() -> None:
    assert (RandomResizedCrop().scale, RandomResizedCrop().ratio) == ((0.08, 1.0), (0.75, 4 / 3))
    assert (RandomRotation().fill, RandomTranslation().fill) == (0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomRotation(-1.0), r"degrees -1.0 is not in \[0, 360\]"),
        (lambda: RandomRotation(361.0), r"degrees 361.0 is not in \[0, 360\]"),
        (lambda: RandomRotation((20.0, 10.0)), r"degrees \[20.0, 10.0\] is not an interval within \[-360, 360\]"),
        (lambda: RandomRotation(fill=300), r"fill 300 is not in \[0, 255\]"),
        (lambda: RandomRotation(interpolation="cubic"), "'cubic' is not nearest or bilinear"),  # type: ignore[arg-type]
        (lambda: RandomTranslation(1.5), r"translate 1.5 is not in \[0, 1\]"),
        (lambda: RandomTranslation((0.1, -0.1)), r"translate -0.1 is not in \[0, 1\]"),
        (lambda: RandomTranslation(fill=-1), r"fill -1 is not in \[0, 255\]"),
        (lambda: RandomResizedCrop((0.0, 1.0)), r"scale \[0.0, 1.0\] is not an interval within \(0, 1\]"),
        (lambda: RandomResizedCrop(ratio=(-1.0, 1.0)), r"ratio \[-1.0, 1.0\] is not an interval within \(0, inf\)"),
        (lambda: RandomResizedCrop(interpolation=""), "'' is not nearest or bilinear"),  # type: ignore[arg-type]
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
