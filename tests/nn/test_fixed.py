"""A network that is fixed, for predictions only: the same bits, and nothing that could be out of date."""

import copy

import numpy as np
import pytest

from cnnlite.config.load import load_config
from cnnlite.nn.kernels import convolution, winograd
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.network import Network
from cnnlite.optim import SGD
from cnnlite.utils.types import Array
from tests.support.layer_cases import cases_of

CASES = {f"{case.name}-{number}": case for name in layers for number, case in enumerate(cases_of(name))}


def trained(model: Layer, shape: tuple[int, ...]) -> Network:
    """A network after a pass in training, so that statistics are not those of the beginning."""
    network = Network(model, shape, seed=0)
    x = np.random.default_rng(0).standard_normal((5, *shape), np.float32)
    network.forward(3 * x + 1, training=True)
    return network


@pytest.mark.parametrize("name", CASES)
def test_each_layer_has_the_same_bits_once_it_is_fixed(name: str) -> None:
    case = CASES[name]
    layer = layers[case.name](**copy.deepcopy(dict(case.options)))
    network = trained(Sequential([layer]), case.in_shape)
    x = np.random.default_rng(1).standard_normal((3, *case.in_shape), np.float32)
    before = [network.forward(part, training=False) for part in (x, x[:1])]
    network.fix()
    for _ in range(2):
        after = [network.forward(part, training=False) for part in (x, x[:1])]
        assert [y.tobytes() for y in after] == [y.tobytes() for y in before]


@pytest.mark.parametrize("name", ["small", "resnet20", "vgg11", "10-minutes"])
def test_networks_have_the_same_bits_once_they_are_fixed(name: str) -> None:
    network = trained(load_config(name).model, (32, 32, 3))
    x = np.random.default_rng(1).standard_normal((1, 32, 32, 3), np.float32)
    before = network.forward(x, training=False)
    network.fix()
    assert network.forward(x, training=False).tobytes() == before.tobytes()
    assert network.forward(x, training=False).tobytes() == before.tobytes()


def test_parameters_of_a_fixed_network_cannot_be_changed_by_anybody() -> None:
    network = trained(Sequential([Conv2d(4, 3), BatchNorm(), Conv2d(4, 3)]), (9, 9, 2))
    optimizer = SGD(lr=0.1)
    optimizer.bind(list(network.parameters.values()))
    state = {name: array.copy() for name, array in network.state().items()}
    x = np.random.default_rng(1).standard_normal((2, 9, 9, 2), np.float32)
    before = network.forward(x, training=False).tobytes()
    network.fix()
    with pytest.raises(ValueError, match="read-only"):
        network.load_state(state)
    for array in network.state().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(ValueError, match="read-only"):
        network.forward(x, training=True)  # which would update statistics
    for group in optimizer.bound:
        group.values[...] = 0  # no longer those of the network
    assert network.forward(x, training=False).tobytes() == before
    assert all(np.array_equal(array, state[name]) for name, array in network.state().items())


def test_weights_are_transformed_once_unless_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    transform = winograd.transform_weight

    def counted(weight: Array) -> Array:
        calls.append(weight.shape)
        return transform(weight)

    monkeypatch.setattr(winograd, "transform_weight", counted)
    large = Conv2d(8, 3, padding=1, algorithm="winograd")
    network = Network(Sequential([Conv2d(16, 3, padding=1, algorithm="winograd"), large]), (12, 12, 8), seed=0)
    monkeypatch.setattr(convolution, "PREPARED_BYTES", 9 * 16 * 8 * 4)
    x = np.zeros((1, 12, 12, 8), np.float32)
    network.forward(x, training=False)
    assert calls == [(3, 3, 8, 16), (3, 3, 16, 8)]
    network.fix()
    calls.clear()
    network.forward(x, training=False)
    assert calls == []
    monkeypatch.setattr(convolution, "PREPARED_BYTES", 9 * 16 * 8 * 4 - 1)
    network.fix()
    network.forward(x, training=False)
    assert calls == [(3, 3, 8, 16), (3, 3, 16, 8)]
