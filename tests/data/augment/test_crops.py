from typing import Any

import numpy as np
import pytest

from cnnlite.data import Transform
from cnnlite.data.augment import Pick
from cnnlite.data.augment.crops import AlternatingFlip, CenterCrop, RandomCrop, RandomFlip
from cnnlite.utils.types import Array
from tests.support.transform_cases import MOVES, SHAPES, named, pick, some_images


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
            else:
                assert isinstance(transform, RandomCrop)
                y, x = row + option[0] - transform.padding, column + option[1] - transform.padding
                if transform.mode == "reflect":
                    y = -y if y < 0 else 2 * (height - 1) - y if y >= height else y
                    x = -x if x < 0 else 2 * (width - 1) - x if x >= width else x
                if 0 <= y < height and 0 <= x < width:
                    out[row, column] = image[y, x]
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", MOVES, ids=named)
def test_transform_equals_a_loop_over_pixels(transform: Transform, shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    options = transform.draw(np.random.default_rng(0), pick(shape[0], shape[1:]))
    out = transform.apply(images, options)
    np.testing.assert_array_equal(out, [naive(transform, *pair) for pair in zip(images, options, strict=True)])


def test_absurd_padding_is_refused() -> None:
    for padding in (1001, 2**62):
        with pytest.raises(ValueError, match="is more than 1000 pixels"):
            RandomCrop(padding)


def test_draws_reach_all_choices_evenly() -> None:
    rng = np.random.default_rng(2)
    assert abs(RandomFlip(0.25).draw(rng, pick(20000)).mean() - 0.25) < 0.015
    options = RandomCrop(2).draw(rng, pick(20000))
    for axis in (0, 1):
        np.testing.assert_allclose(np.bincount(options[:, axis]) / len(options), [0.2] * 5, atol=0.015)
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


def test_a_crop_pads_with_four_black_pixels_unless_told_otherwise() -> None:
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
        (lambda: CenterCrop(9).out_shape((8, 10, 3)), "cannot take the centre 9x9 of 8x10 images"),
        (lambda: RandomCrop(8, "reflect").out_shape((8, 10, 3)), "cannot reflect 8 pixels of 8x10 images"),
    ],
)
def test_bad_option_says_rule_and_value(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
