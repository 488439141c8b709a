from typing import Any

import numpy as np
import pytest

from cnnlite.data import transforms
from cnnlite.data.augment import AlternatingFlip, CenterCrop, Cutout, Pick, RandomCrop, RandomFlip, Transform
from cnnlite.utils.types import Array

SHAPES = [(1, 5, 5, 1), (7, 8, 6, 3), (4, 6, 9, 2), (3, 5, 7, 4), (64, 32, 32, 3)]


def some_images(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def pick(count: int, shape: tuple[int, ...] = (8, 8, 3), epoch: int = 0, seed: int = 0) -> Pick:
    return Pick(np.arange(count), count, shape, epoch, seed)


def naive(transform: Transform, image: Array, option: Array) -> Array:
    """One image, one pixel at a time."""
    height, width, _ = image.shape
    if isinstance(transform, CenterCrop):
        top, left = (height - transform.size) // 2, (width - transform.size) // 2
        return image[top : top + transform.size, left : left + transform.size]
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if isinstance(transform, RandomFlip | AlternatingFlip):
                out[row, column] = image[row, width - 1 - column if option else column]
            elif isinstance(transform, Cutout):
                low_row, low_column = option[0] - transform.size // 2, option[1] - transform.size // 2
                inside = 0 <= row - low_row < transform.size and 0 <= column - low_column < transform.size
                out[row, column] = transform.fill if inside else image[row, column]
            else:
                assert isinstance(transform, RandomCrop)
                y, x = row + option[0] - transform.padding, column + option[1] - transform.padding
                if transform.mode == "reflect":
                    y = -y if y < 0 else 2 * (height - 1) - y if y >= height else y
                    x = -x if x < 0 else 2 * (width - 1) - x if x >= width else x
                if 0 <= y < height and 0 <= x < width:
                    out[row, column] = image[y, x]
    return out


ALL = [
    RandomFlip(),
    RandomFlip(1.0),
    AlternatingFlip(),
    RandomCrop(1),
    RandomCrop(4),
    RandomCrop(40),
    RandomCrop(1, "reflect"),
    RandomCrop(4, "reflect"),
    CenterCrop(5),
    CenterCrop(2),
    Cutout(1),
    Cutout(4, fill=0),
    Cutout(5),
    Cutout(50, fill=255),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", ALL, ids=lambda t: f"{type(t).__name__}-{'-'.join(map(str, vars(t).values()))}")
def test_transform_equals_a_loop_over_pixels(transform: Transform, shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    before = images.copy()
    options = transform.draw(np.random.default_rng(0), pick(shape[0], shape[1:]))
    out = transform.apply(images, options)
    np.testing.assert_array_equal(out, [naive(transform, *pair) for pair in zip(images, options, strict=True)])
    np.testing.assert_array_equal(images, before)
    assert not np.shares_memory(out, images)
    assert out.dtype == np.uint8
    assert out.shape[1:] == transform.out_shape(shape[1:])


@pytest.mark.parametrize("transform", ALL, ids=lambda t: f"{type(t).__name__}-{'-'.join(map(str, vars(t).values()))}")
def test_slices_of_a_batch_give_slices_of_the_result(transform: Transform) -> None:
    images = some_images((9, 8, 8, 3))
    options = transform.draw(np.random.default_rng(1), pick(9))
    whole = transform.apply(images, options)
    for part in (slice(0, 4), slice(4, 9), slice(3, 3)):
        np.testing.assert_array_equal(transform.apply(images[part], options[part]), whole[part])


def test_absurd_padding_is_refused() -> None:
    for padding in (1001, 2**62):
        with pytest.raises(ValueError, match="is more than 1000 pixels"):
            RandomCrop(padding)


def test_every_registered_transform_is_checked_here() -> None:
    assert {transforms[name] for name in transforms} == {type(transform) for transform in ALL}


def test_draws_reach_all_choices_evenly() -> None:
    rng = np.random.default_rng(2)
    assert abs(RandomFlip(0.25).draw(rng, pick(20000)).mean() - 0.25) < 0.015
    for options, choices in (
        (RandomCrop(2).draw(rng, pick(20000)), (5, 5)),
        (Cutout(3).draw(rng, pick(20000, (4, 7, 3))), (4, 7)),
    ):
        for axis, count in enumerate(choices):
            shares = np.bincount(options[:, axis], minlength=count) / len(options)
            np.testing.assert_allclose(shares, 1 / count, atol=0.015)
        assert abs(np.corrcoef(options.T)[0, 1]) < 0.03


def test_alternating_flip_mirrors_half_of_the_images_and_in_the_next_epoch_the_others() -> None:
    rng = np.random.default_rng(0)
    draws = [AlternatingFlip().draw(rng, pick(2000, epoch=epoch)) for epoch in range(4)]
    assert abs(draws[0].mean() - 0.5) < 0.05
    np.testing.assert_array_equal(draws[1], ~draws[0])
    np.testing.assert_array_equal(draws[2:], draws[:2])
    other = AlternatingFlip().draw(rng, pick(2000, seed=1))
    assert abs((other == draws[0]).mean() - 0.5) < 0.05


def test_alternating_flip_belongs_to_the_image_whatever_batch_it_is_in() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(50)
    whole = AlternatingFlip().draw(rng, pick(50))
    for part in (order[:20], order[20:]):
        np.testing.assert_array_equal(AlternatingFlip().draw(rng, Pick(part, 50, (8, 8, 3), 0, 0)), whole[part])


def test_cutout_covers_with_grey_and_a_crop_pads_with_four_black_pixels_unless_told_otherwise() -> None:
    covered = Cutout(8).apply(np.zeros((1, 4, 4, 3), np.uint8), np.array([[2, 2]]))
    np.testing.assert_array_equal(covered, 128)
    assert (RandomCrop().padding, RandomCrop().mode) == (4, "zeros")


def test_flip_and_reflected_crop_are_those_of_the_speedrun(torch: Any) -> None:
    images = some_images((40, 32, 32, 3))
    flip, crop = AlternatingFlip(), RandomCrop(2, "reflect")
    rng = np.random.default_rng(0)
    shifts = crop.draw(rng, pick(40))
    for epoch in (0, 1):
        sides = flip.draw(rng, pick(40, epoch=epoch))
        ours = crop.apply(flip.apply(images, sides), shifts)
        theirs = torch.tensor(images).permute(0, 3, 1, 2).float()
        theirs = torch.where(torch.tensor(sides)[:, None, None, None], theirs.flip(-1), theirs)
        padded = torch.nn.functional.pad(theirs, (2, 2, 2, 2), "reflect")
        cut = [image[:, y : y + 32, x : x + 32] for image, (y, x) in zip(padded, shifts.tolist(), strict=True)]
        np.testing.assert_array_equal(ours, torch.stack(cut).permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFlip(1.5), r"probability 1.5 is not in \[0, 1\]"),
        (lambda: RandomFlip(float("nan")), "probability nan"),
        (lambda: RandomCrop(0), "padding must be at least 1, not 0"),
        (lambda: RandomCrop(4, "edge"), "mode 'edge' is not zeros or reflect"),  # type: ignore[arg-type]
        (lambda: CenterCrop(0), "size must be at least 1"),
        (lambda: Cutout(0), "size must be at least 1"),
        (lambda: Cutout(4, fill=256), r"fill 256 is not in \[0, 255\]"),
        (lambda: CenterCrop(9).out_shape((8, 10, 3)), "cannot take the centre 9x9 of 8x10 images"),
        (lambda: RandomCrop(8, "reflect").out_shape((8, 10, 3)), "cannot reflect 8 pixels of 8x10 images"),
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
