from typing import Any

import numpy as np
import pytest
import yaml

from cnnlite.config.load import Config, config_from_data
from cnnlite.data import Normalizer
from cnnlite.data.normalize import Mode, Statistics
from cnnlite.errors import ConfigError
from cnnlite.runtime import engine
from cnnlite.utils.types import Array
from tests.support.small_runs import TINY


def skewed_images(count: int = 700, shape: tuple[int, ...] = (8, 9, 3)) -> Array:
    """Channels of different level and spread, so that a mix-up shows."""
    rng = np.random.default_rng(0)
    levels = rng.normal([40, 120, 200], [10, 30, 20], (count, *shape)) + np.arange(shape[0])[:, None, None]
    return np.clip(levels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("mode", "axes"), [("per_channel", (0, 1, 2)), ("per_pixel", (0,))])
@pytest.mark.parametrize("count", [2, 256, 257, 700])
def test_statistics_and_result_equal_float64(mode: Mode, axes: tuple[int, ...], count: int) -> None:
    images = skewed_images(count)
    reference = images.astype(np.float64)
    mean, std = reference.mean(axis=axes), reference.std(axis=axes)
    std = np.where(std < 1, 255, std)
    normalizer = Normalizer.fit(images, mode)
    np.testing.assert_allclose(normalizer.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(normalizer.std, std, rtol=1e-6)
    out = normalizer(images)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (reference - mean) / std, rtol=0, atol=2e-5 if count == 2 else 3e-6)


def test_statistics_of_many_bright_images_are_exact() -> None:
    images = np.full((3000, 2, 2, 1), 255, np.uint8)
    images[::2] = 252
    normalizer = Normalizer.fit(images)
    assert normalizer.mean.tolist() == [253.5]
    assert normalizer.std.tolist() == [1.5]


def test_none_only_scales_to_one() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(Normalizer.fit(images, "none")(images).ravel(), [0, 0.2, 1], atol=1e-7)


@pytest.mark.parametrize("mode", ["per_channel", "per_pixel"])
def test_constant_values_do_not_divide_by_zero(mode: Mode) -> None:
    images = skewed_images(50)
    images[..., 1] = 7
    normalizer = Normalizer.fit(images, mode)
    np.testing.assert_allclose(normalizer(images)[..., 1], 0, atol=1e-6)
    other = images.copy()
    other[..., 1] = 255
    assert np.abs(normalizer(other)[..., 1]).max() <= 1


def test_all_bits_are_the_same_for_any_number_of_threads() -> None:
    images = skewed_images(300, (32, 32, 3))
    found = []
    for threads in (1, 2, 4):
        engine.set_threads(threads)
        normalizer = Normalizer.fit(images)
        found.append(normalizer(images).tobytes() + normalizer.mean.tobytes() + normalizer.std.tobytes())
    assert found[0] == found[1] == found[2]


def test_checkpoint_state_gives_the_same_normalization() -> None:
    images = skewed_images(20)
    normalizer = Normalizer.fit(images, "per_pixel")
    again = Normalizer.from_state(normalizer.state())
    np.testing.assert_array_equal(again(images), normalizer(images))


def test_images_that_do_not_fit_are_refused() -> None:
    images = skewed_images(20)
    with pytest.raises(ValueError, match="do not fit"):
        Normalizer.fit(images, "per_pixel")(images[:, :4])
    with pytest.raises(ValueError, match="do not fit"):
        Normalizer.fit(images)(images[..., :1])
    assert Normalizer.fit(images)(images[:, :4]).shape == (20, 4, 9, 3)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [([0.0], [0.0], "positive"), ([np.nan], [1.0], "finite"), ([0.0], [1.0, 1.0], r"must both be"), (0.0, 1.0, "must")],
)
def test_impossible_statistics_are_refused(mean: object, std: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalizer(np.array(mean), np.array(std))
    with pytest.raises(ValueError, match="no images"):
        Normalizer.fit(np.empty((0, 2, 2, 3), np.uint8))


@pytest.mark.parametrize("mode", ["per_channel", "per_pixel", "none"])
def test_undoing_gives_every_byte_back(mode: Mode) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 5, 7, 3), dtype=np.uint8)
    images[:, 0, 0] = 9  # constant, so of no deviation
    normalizer = Normalizer.fit(images, mode)
    np.testing.assert_array_equal(normalizer.undo(normalizer(images)), images)


def test_undoing_rounds_to_the_nearest_byte_and_stays_in_their_range() -> None:
    normalizer = Normalizer(np.full(1, 100.0), np.full(1, 50.0))
    x = np.array([-9.0, -2.0, 0.0, 0.011, 3.1, 9.0], np.float32).reshape(1, 1, 6, 1)
    np.testing.assert_array_equal(normalizer.undo(x).reshape(-1), [0, 0, 100, 101, 255, 255])


def test_given_statistics_are_in_units_where_white_is_one() -> None:
    images = np.array([[[[0, 128, 255]]]], np.uint8)
    normalize = Normalizer.fit(images, Statistics([0.5, 0.5, 0.25], [0.25, 0.5, 0.125]))
    np.testing.assert_allclose(normalize(images)[0, 0, 0], [-2, (128 / 255 - 0.5) / 0.5, 6], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ({"mean": [0.5], "std": [0.5, 0.5]}, r"data.normalize.std: has 2 numbers, mean has 1"),
        ({"mean": [], "std": []}, r"data.normalize.std: has 0 numbers"),
        ({"mean": [0.5], "std": [0]}, r"data.normalize.std: must be above 0"),
        ({"mean": [0.5]}, r"'std' is missing"),
        ({"mean": ["a"], "std": [1]}, r"data.normalize.mean\[0\]: expected a number"),
        ("per_image", r"data.normalize: expected one of per_channel"),
    ],
)
def test_statistics_that_cannot_be_are_errors_of_the_config(mode: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny_data(mode)


def tiny_data(mode: Any) -> Config:
    data = yaml.safe_load(TINY)
    data["data"]["normalize"] = mode
    return config_from_data(data)


def test_statistics_of_another_number_of_channels_are_named_with_their_place() -> None:
    config = tiny_data({"mean": [0.5], "std": [0.5]})
    with pytest.raises(ConfigError, match=r"data.normalize: has 1 channels, the images have 3"):
        Normalizer.fit(np.zeros((2, 4, 4, 3), np.uint8), config.data.normalize)
