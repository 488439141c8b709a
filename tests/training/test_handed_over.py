"""Whatever a config may name can be handed to workers that are spawned, and computes the same bits there."""

import copy
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cnnlite.config.bundled import bundled_names
from cnnlite.config.load import load_config
from cnnlite.data import Transform
from cnnlite.data.augment import Pick
from cnnlite.nn.layers import layers
from cnnlite.nn.network import Network
from cnnlite.optim import optimizers
from cnnlite.runtime import arrays, handover
from cnnlite.utils.rng import stream
from tests.support.layer_cases import cases_of
from tests.support.optimizer_parts import FOR_ANY_SHAPE
from tests.support.transform_cases import ALL, named

CASES = {f"{case.name}-{number}": case for name in layers for number, case in enumerate(cases_of(name))}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="reads from its own descriptors what another process would")


def there(value: Any) -> Any:
    """The value as another process reads it."""
    handover._mapped.cache_clear()  # descriptors are those of other files by now
    packed = handover.pack(value)
    return eval(f"unpack({packed.arguments})", {"unpack": handover.unpack})


@pytest.fixture(autouse=True)
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory is shared as with workers that are spawned."""
    monkeypatch.setenv("CNNLITE_WORKERS", "spawn")
    arrays._forget_chunk()
    yield
    arrays._forget_chunk()


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    case = CASES[name]
    network = Network(layers[case.name](**copy.deepcopy(dict(case.options))), case.in_shape, seed=0)
    other = there(network)
    x = np.random.default_rng(0).standard_normal((4, *case.in_shape), np.float32)
    ours, theirs = (each.forward(x, training=True) for each in (network, other))
    assert ours.tobytes() == theirs.tobytes()
    for each in (network, other):
        each.backward(ours)
    for key, parameter in network.parameters.items():
        assert parameter.grad.tobytes() == other.parameters[key].grad.tobytes()


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_optimizers(name: str) -> None:
    network = Network(load_config("small.yaml").model, (32, 32, 3), seed=0)
    optimizer = optimizers[name](lr=0.01)  # type: ignore[call-arg]
    optimizer.bind(list(network.parameters.values()))
    state = optimizer.state()
    assert {key: array.tobytes() for key, array in there(optimizer).state().items()} == {
        key: array.tobytes() for key, array in state.items()
    }


@pytest.mark.parametrize("transform", ALL, ids=named)
def test_augmentations(transform: Transform) -> None:
    images = np.random.default_rng(0).integers(256, size=(4, 9, 9, 3), dtype=np.uint8)
    pick = Pick(np.arange(4), 4, (9, 9, 3), 0, 0)
    ours, theirs = (
        each.apply(images, each.draw(stream(0, "augment", 1), pick)) for each in (transform, there(transform))
    )
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_configs(name: str) -> None:
    config = load_config(name)
    other = there(config)
    assert other.resolved == config.resolved
    assert other.train.schedule.factor(3, 10, 5) == config.train.schedule.factor(3, 10, 5)
