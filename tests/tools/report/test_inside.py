from typing import Any

import numpy as np
import pytest

from cnnlite.config.load import Config, config_from_data
from cnnlite.data import Images, Normalizer
from cnnlite.nn.filters import Filters, first_filters
from cnnlite.nn.network import Network
from cnnlite.tools.report.inside import dead_units, feature_stages, occlude, one_by_one

CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
HEAD = ["flatten", {"linear": {"out_features": 3}}]


def network(model: list[Any], shape: tuple[int, ...] = (8, 8, 3)) -> tuple[Network, Config]:
    train = {"epochs": 1, "optimizer": {"sgd": {"lr": 0.1}}}
    config = config_from_data({"data": {"dataset": "shapes"}, "model": model, "train": train})
    return Network(config.model, shape, seed=0), config


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_network_of_single_layers_gives_the_same_and_shows_what_was_absorbed() -> None:
    model = [
        CONV,
        "batch_norm",
        "relu",
        {"max_pool2d": {"kernel_size": 2}},
        {"residual": {"body": [CONV]}},
        "tanh",
        *HEAD,
    ]
    whole, config = network(model)
    for name, parameter in whole.parameters.items():
        parameter.value[...] += 0.1 * noise(*parameter.value.shape)
        assert parameter.value.any(), name
    for buffer in whole.buffers.values():
        buffer += 0.3
    plain = one_by_one(whole, config)
    x = noise(5, 8, 8, 3)
    expected = whole.forward(x, training=False).copy()
    assert np.allclose(plain.forward(x, training=False), expected, atol=1e-5)
    stages = feature_stages(plain, x)
    assert [stage.kind for stage in stages] == ["relu", "residual", "tanh"]
    assert (stages[0].maps >= 0).all()
    assert [stage.shape for stage in stages] == [(8, 8, 4), (4, 4, 4), (4, 4, 4)]


def test_feature_stages_are_few_and_hold_the_liveliest_channels() -> None:
    built, config = network([CONV, "relu"] * 9 + HEAD)
    weight = built.parameters["0.weight"].value
    weight[...] = 0
    weight[1, 1, 0, 2] = 5.0
    stages = feature_stages(one_by_one(built, config), noise(3, 8, 8, 3), most=4, channels=1)
    assert [stage.place for stage in stages] == [f"model[{index}].relu" for index in (1, 7, 11, 17)]
    assert stages[0].channels.tolist() == [2]
    assert stages[0].maps.shape == (3, 1, 8, 8)


def test_convolutions_are_the_stages_of_a_network_without_activations() -> None:
    built, config = network([CONV, *HEAD])
    assert [stage.kind for stage in feature_stages(one_by_one(built, config), noise(2, 8, 8, 3))] == ["conv2d"]


def test_a_network_without_maps_has_no_stages() -> None:
    built, config = network(["flatten", {"linear": {"out_features": 5}}, "relu", {"linear": {"out_features": 3}}])
    assert feature_stages(one_by_one(built, config), noise(2, 8, 8, 3)) == []


def test_first_filters_of_a_convolution() -> None:
    built, _ = network([{"repeat": {"times": 1, "body": [CONV]}}, "relu", *HEAD])
    found = first_filters(built)
    assert isinstance(found, Filters)
    assert not found.whole
    assert np.array_equal(found.weights[2], built.parameters["0.0.0.weight"].value[..., 2])


def test_first_filters_of_a_linear_layer_are_images() -> None:
    built, _ = network(HEAD, (2, 4, 1))
    found = first_filters(built)
    assert isinstance(found, Filters)
    assert found.whole
    weight = built.parameters["1.weight"].value
    assert np.array_equal(found.weights[1, 1, 3, 0], weight[7, 1])


@pytest.mark.parametrize(
    ("model", "shape", "word"),
    [
        ([CONV, *HEAD], (8, 8, 2), "colours"),
        (["global_avg_pool2d", {"linear": {"out_features": 3}}], (8, 8, 3), "one by one"),
        (["flatten"], (1, 1, 3), "neither"),
    ],
)
def test_filters_that_cannot_be_shown_are_explained(model: list[Any], shape: tuple[int, ...], word: str) -> None:
    found = first_filters(network(model, shape)[0])
    assert isinstance(found, str)
    assert word in found


def test_occlusion_finds_the_pixels_that_a_prediction_needs() -> None:
    built, _ = network(HEAD)
    weight = built.parameters["1.weight"].value.reshape(8, 8, 3, 3)
    weight[...] = 0
    weight[6:, 6:, :, 1] = 1  # class 1 if the lower right corner is bright
    x = np.zeros((8, 8, 3), np.float32)
    x[6:, 6:] = 1
    found = occlude(built, x)
    assert found.prediction == 1
    assert found.drop.shape == (8, 8)
    assert found.drop[7, 7] == found.drop.max() > 0.1
    assert np.abs(found.drop[:5, :5]).max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 1), (9, 7, 3)])
def test_occlusion_covers_every_pixel_of_images_of_any_size(shape: tuple[int, ...]) -> None:
    found = occlude(network(HEAD, shape)[0], noise(*shape))
    assert np.isfinite(found.drop).all()
    assert found.drop.shape == shape[:2]


def test_dead_units_are_counted_in_every_relu() -> None:
    built, config = network([CONV, "batch_norm", "relu", "flatten", {"linear": {"out_features": 6}}, "relu", *HEAD[1:]])
    built.parameters["1.beta"].value[:3] = -100
    built.parameters["4.bias"].value[0] = -100
    images = Images(np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8), np.zeros(300, np.int64))
    first, second = dead_units(one_by_one(built, config), images, Normalizer.fit(images.images))
    assert (first.place, first.dead, first.units, first.fraction) == ("model[2].relu", 3, 4, 0.75)
    assert second.place == "model[5].relu"
    assert 1 <= second.dead < 6


def test_a_unit_that_answers_to_a_single_image_is_not_dead() -> None:
    built, config = network(
        ["flatten", {"linear": {"out_features": 2}}, "relu", {"linear": {"out_features": 3}}], (1, 1, 1)
    )
    built.parameters["1.weight"].value[...] = 1
    built.parameters["1.bias"].value[...] = -9
    pixels = np.zeros((600, 1, 1, 1), np.uint8)
    pixels[599] = 255
    images = Images(pixels, np.zeros(600, np.int64))
    (layer,) = dead_units(one_by_one(built, config), images, Normalizer(np.zeros(1), np.ones(1)))
    assert layer.dead == 0
