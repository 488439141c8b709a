import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import ConfigError, StorageError
from cnnlite.nn.layers.containers import Parallel, Repeat, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import GlobalAvgPool2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.memory import count_parameters, images_at_once, refuse_if_too_large
from cnnlite.nn.network import Network, inferred
from cnnlite.runtime import machine


def linear(features: int) -> list[Any]:
    return [Flatten(), Linear(features), Linear(10)]


TOO_LARGE = {
    "10^12 parameters": ([*linear(10**12)], "its parameters and their gradients would take"),
    "10^9 parameters in small layers": (
        [Flatten(), Repeat(400, Linear(3072)), Linear(10)],
        "its parameters and their gradients would take 30.2 GB of memory",
    ),
    "wide padding": ([Conv2d(400, 3, padding=4000), GlobalAvgPool2d(), Linear(10)], "the output of"),
    "2^100 channels": ([Repeat(100, Parallel([Sequential([]), Sequential([])]))], "the output of"),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_network_that_does_not_fit_is_refused_before_anything_is_allocated(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, words = TOO_LARGE[case]
    monkeypatch.setattr(machine, "memory", lambda: 20 * 10**9)

    def draw(*_: object) -> np.random.Generator:
        raise AssertionError("the network is being built")

    monkeypatch.setattr("cnnlite.nn.network.stream", draw)
    with pytest.raises(ConfigError, match=words):
        Network(Sequential(model), (32, 32, 3), seed=0)


def test_estimates_take_no_memory_however_many_channels_there_are() -> None:
    doubled = Repeat(29, Parallel([Sequential([]), Sequential([])]))
    for model in (
        [doubled, BatchNorm(), GlobalAvgPool2d(), Linear(10)],
        [Conv2d(10**8, 1), BatchNorm()],
        linear(10**8),
    ):
        tracemalloc.start()
        try:
            count_parameters(inferred(Sequential(model), (4, 4, 1)))
            assert tracemalloc.get_traced_memory()[1] < 10**6
        finally:
            tracemalloc.stop()


def test_the_batch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 10**6)
    model = inferred(Sequential([Conv2d(8, 3), GlobalAvgPool2d(), Linear(10)]), (32, 32, 3))
    refuse_if_too_large(model, 30)
    with pytest.raises(StorageError, match=r"batch size 40: the output of .* would take 1.2 MB, .*batch_size=20"):
        refuse_if_too_large(model, 40)


def test_an_image_that_does_not_fit_is_refused_however_small_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 10**8)
    with pytest.raises(ConfigError, match=r"an image would take 768\.0 MB of memory; there are 100\.0 MB"):
        Network(Sequential([GlobalAvgPool2d(), Linear(10)]), (8000, 8000, 3), seed=0)


def test_so_many_images_are_shown_at_once_as_their_largest_array_allows() -> None:
    network = Network(Sequential([Conv2d(64, 3, padding=1), GlobalAvgPool2d(), Linear(10)]), (256, 256, 3), seed=0)
    assert network.at_once(250) == 64
    assert network.at_once(6) == 6
    assert images_at_once(250, (8000, 8000, 3)) == images_at_once(250, (10**5, 10**5, 3)) == 1
    assert Network(Sequential([Flatten(), Linear(10)]), (32, 32, 3), seed=0).at_once(250) == 250


def test_the_memory_is_no_more_than_a_limit_of_the_process() -> None:
    resource = pytest.importorskip("resource")
    assert 10**8 < machine.memory() < sys.maxsize
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**40, limits[1]))
    try:
        assert machine.memory() <= 2**40
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_inference_makes_no_arrays_and_does_not_touch_the_model() -> None:
    model = Sequential([Conv2d(8, 3), GlobalAvgPool2d(), Linear(10)])
    network = Network(model, (32, 32, 3), seed=None)
    assert network.size == count_parameters(network.model) == 8 * (27 + 1) + 8 * 10 + 10
    assert not any(layer.params for _, layer in network.model.walk())
    assert not model.layers[0].specs
