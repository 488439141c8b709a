"""What all transforms promise, whatever they do."""

import numpy as np
import pytest
import yaml

from cnnlite.config.construct import construct
from cnnlite.config.options import to_plain
from cnnlite.config.problem_list import Problems
from cnnlite.data import Batches, Images, Normalizer, Transform, transforms
from cnnlite.data.augment import check_shapes
from cnnlite.data.augment.base import Spread, interval, spread
from cnnlite.data.augment.colour import ColorJitter
from cnnlite.data.augment.crops import AlternatingFlip, CenterCrop
from cnnlite.errors import ConfigError, OptionError
from cnnlite.runtime import engine
from tests.support.transform_cases import ALL, SHAPES, named, pairs, pick, some_images


def test_every_registered_transform_is_checked_here() -> None:
    assert {transforms[name] for name in transforms} == {type(transform) for transform in ALL}


@pytest.mark.parametrize(("transform", "shape"), pairs(*SHAPES, (2, 1, 1, 3), (3, 1, 40, 1), (3, 40, 2, 3)))
def test_images_come_out_new_as_bytes_in_the_shape_that_is_announced(
    transform: Transform, shape: tuple[int, ...]
) -> None:
    images = some_images(shape)
    before = images.copy()
    images.setflags(write=False)
    out = transform.apply(images, transform.draw(np.random.default_rng(0), pick(shape[0], shape[1:])))
    np.testing.assert_array_equal(images, before)
    assert not np.shares_memory(out, images)
    assert out.dtype == np.uint8
    assert out.shape == (shape[0], *transform.out_shape(shape[1:]))


@pytest.mark.parametrize(("transform", "shape"), pairs((29, 8, 8, 3), (29, 33, 21, 3), (29, 8, 8, 1)))
def test_slices_of_a_batch_give_slices_of_the_result(transform: Transform, shape: tuple[int, ...]) -> None:
    images = some_images(shape)
    options = transform.draw(np.random.default_rng(1), pick(29, shape[1:]))
    whole = transform.apply(images, options)
    parts = [slice(0, 4), slice(4, 9), slice(3, 3), slice(2, 29, 3), *(slice(n, n + 1) for n in range(29))]
    for part in parts:
        np.testing.assert_array_equal(transform.apply(images[part], options[part]), whole[part])


@pytest.mark.parametrize("transform", [each for each in ALL if not isinstance(each, CenterCrop)], ids=named)
def test_images_of_a_step_are_the_same_in_any_slice_on_any_number_of_threads(transform: Transform) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    labelled = Images(images, np.arange(80))
    source = Batches(labelled, 64, seed=3, transforms=[transform], normalizer=Normalizer.fit(images))
    whole = source.batch(2)[0]
    for threads in (1, 3):
        engine.set_threads(threads)
        np.testing.assert_array_equal(source.batch(2)[0], whole)
        parts = [source.batch(2, slice(*edges))[0] for edges in ((0, 21), (21, 22), (22, 64))]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("transform", ALL, ids=named)
def test_draws_depend_on_the_stream_of_the_step_alone(transform: Transform) -> None:
    def drawn(number: int) -> bytes:
        return transform.draw(np.random.default_rng(number), pick(50, (20, 20, 3))).tobytes()

    assert drawn(1) == drawn(1)
    constant = isinstance(transform, CenterCrop | AlternatingFlip) or named(transform) == "RandomFlip-1.0"
    assert (drawn(1) == drawn(2)) is constant


@pytest.mark.parametrize("transform", ALL, ids=named)
def test_a_config_with_all_options_makes_the_same_transform(transform: Transform) -> None:
    written = yaml.safe_load(yaml.safe_dump(to_plain(transform)))
    problems = Problems()
    again, resolved = construct(Transform, written, (), problems)
    problems.raise_any()
    assert resolved == written
    draws = [each.draw(np.random.default_rng(0), pick(9)).tobytes() for each in (transform, again)]
    assert draws[0] == draws[1]
    assert vars(again) == vars(transform)


def test_a_transform_that_does_not_fit_is_refused_with_its_option() -> None:
    chosen = [transforms["random_flip"](), ColorJitter(brightness=0.1, hue=0.1)]
    check_shapes(chosen, (8, 8, 3))
    for channels, text in ((1, "1 channel;"), (4, "4 channels;")):
        with pytest.raises(ConfigError) as caught:
            check_shapes(chosen, (8, 8, channels))
        place = "data.augment[1].color_jitter.hue"
        assert str(caught.value) == f"{place}: needs images of red, green and blue, not of {text} leave it out"


def test_a_spread_is_a_distance_or_an_interval() -> None:
    assert spread(0.4, "x", 1.0, 0.0) == (0.6, 1.4)
    assert spread(3, "x", 1.0, 0.0) == (0.0, 4.0)
    assert spread((0.5, 0.5), "x", 1.0, 0.0) == (0.5, 0.5)
    assert spread(0.25, "x", 0.0, -0.5, 0.5) == (-0.25, 0.25)
    assert interval((0.1, 1.0), "x", most=1.0) == (0.1, 1.0)
    wrong: list[Spread] = [(-0.1, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 0.5), (0.0, float("nan"))]
    for value in [-0.1, 1.5, float("nan"), *wrong]:
        with pytest.raises(OptionError, match=r"^x:? "):
            spread(value, "x", 0.0, 0.0, 1.0)
    for pair in [*wrong, (0.0, 0.5)]:
        assert isinstance(pair, tuple)
        with pytest.raises(OptionError, match=r"^x:? "):
            interval(pair, "x", most=1.0)
