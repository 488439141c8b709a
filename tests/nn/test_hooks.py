import numpy as np
import pytest

from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.network import Network


def test_each_call_is_seen_with_what_went_in_and_came_out_and_inner_ones_before_outer_ones() -> None:
    network = Network(Sequential([Linear(5), Linear(3)]), (4,), seed=0)
    x, dy = np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)
    calls: list[Call] = []
    with watched(network.model, calls.append):
        y = network.forward(x, training=True)
        network.backward(dy)

    assert [(call.name, call.way) for call in calls] == [
        (name, way) for way, names in (("forward", "01"), ("backward", "10")) for name in (*names, "")
    ]
    first, second, whole = calls[:3]
    assert first.given is x
    assert first.returned is second.given
    assert second.returned is whole.returned is y
    assert [call.layer for call in calls[:3]] == [*network.model.children.values(), network.model]
    assert calls[3].given is dy
    assert calls[4].returned is None  # nobody needs the gradient for the input
    assert whole.seconds >= first.seconds + second.seconds > 0


def test_layers_are_left_as_they_were_even_by_an_error() -> None:
    network = Network(Sequential([Linear(5), ReLU()]), (4,), seed=0)
    before = [set(vars(layer)) for _, layer in network.model.walk()]
    with pytest.raises(ValueError, match=r"broadcast|matmul"), watched(network.model, lambda _: None):
        network.forward(np.ones((2, 3), np.float32), training=True)
    assert [set(vars(layer)) for _, layer in network.model.walk()] == before
