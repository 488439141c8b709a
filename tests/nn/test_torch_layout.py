"""PyTorch's names and layouts: there and back, and the same outputs as the networks that PyTorch builds."""

from typing import Any

import numpy as np
import pytest

from cnnlite.config.construct import construct
from cnnlite.config.load import load_config
from cnnlite.config.problem_list import Problems
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.network import Network
from cnnlite.nn.torch_layout import layouts

CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}


def network(model: list[Any], shape: tuple[int, ...] = (6, 5, 3)) -> Network:
    problems = Problems()
    made, _ = construct(Layer, model, ("model",), problems)
    problems.raise_any()
    built = Network(made, shape, seed=0)
    rng = np.random.default_rng(1)
    for array in built.state().values():
        array[...] = rng.uniform(0.2, 0.8, array.shape)
    return built


BRANCHES = {"parallel": {"branches": [["flatten", "batch_norm"], [CONV, "flatten"]]}}


@pytest.mark.parametrize(
    "model",
    [
        [CONV, "batch_norm", "flatten", {"linear": {"out_features": 7}}, "relu", {"linear": {"out_features": 2}}],
        [CONV, "flatten", "batch_norm", "relu", {"linear": {"out_features": 7}}, "batch_norm"],
        [{"parallel": {"branches": [[CONV], [CONV]]}}, "flatten", "batch_norm"],
        [BRANCHES, {"linear": {"out_features": 2}}],
        [CONV, "global_avg_pool2d", "flatten", {"linear": {"out_features": 2}}],
    ],
)
def test_every_array_comes_back_from_pytorchs_layout(model: list[Any]) -> None:
    built = network(model)
    places = layouts(built.model)
    state = {name.partition("/")[2]: array for name, array in built.state().items()}
    assert places.keys() == state.keys()
    assert len({place.name for place in places.values()}) == len(places)
    for name, array in state.items():
        np.testing.assert_array_equal(places[name].to_ours(places[name].to_torch(array)), array)


def test_arrays_of_other_shapes_are_turned_without_errors() -> None:
    places = layouts(network([CONV, "flatten", {"linear": {"out_features": 2}}]).model)
    for shape in ((), (3,), (2, 3), (2, 120), (2, 3, 4), (2, 3, 4, 5), (1, 1, 1, 1, 1), (0,), (0, 120)):
        for place in places.values():
            place.to_ours(np.zeros(shape, np.float32))


def test_the_bias_of_a_square_layer_behind_a_flatten_is_in_the_order_of_its_outputs() -> None:
    places = layouts(
        network([CONV, "flatten", {"linear": {"out_features": 120}}, {"linear": {"out_features": 2}}]).model
    )
    assert places["2.weight"].order is not None
    assert places["2.bias"].order is None


def test_networks_of_the_same_layers_in_pytorch_give_the_same_outputs(torch: Any) -> None:
    nn = torch.nn
    built = network(
        [
            CONV,
            "batch_norm",
            {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 2}},
            "relu",
            {"group_norm": {"num_groups": 2}},
            {"prelu": {"per_channel": True}},
            {"max_pool2d": {"kernel_size": 2}},
            "flatten",
            "batch_norm",
            {"linear": {"out_features": 7}},
            "layer_norm",
            "relu",
            {"linear": {"out_features": 2}},
        ],
        (6, 4, 3),
    )
    theirs = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)),
        *(nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.ReLU(), nn.GroupNorm(2, 4), nn.PReLU(4)),
        *(nn.MaxPool2d(2), nn.Flatten()),
        *(nn.BatchNorm1d(24), nn.Linear(24, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 2)),
    ).eval()
    places = layouts(built.model)
    state = {name.partition("/")[2]: array for name, array in built.state().items()}
    theirs.load_state_dict(
        {places[name].name: torch.from_numpy(places[name].to_torch(array).copy()) for name, array in state.items()}
    )
    x = np.random.default_rng(2).standard_normal((3, 6, 4, 3)).astype(np.float32)
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(built.forward(x, training=False), expected, rtol=1e-5, atol=1e-5)


def test_features_of_joined_branches_are_in_the_order_of_each(torch: Any) -> None:
    nn, built = torch.nn, network([BRANCHES, {"linear": {"out_features": 2}}])

    class Theirs(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(90))
            self.other = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten())
            self.last = nn.Linear(90 + 120, 2)

        def forward(self, x: Any) -> Any:
            return self.last(torch.cat([self.one(x), self.other(x)], dim=1))

    names = {"0.0.1.": "one.1.", "0.1.0.": "other.0.", "1.": "last."}
    places, state = layouts(built.model), {}
    for name, array in built.state().items():
        place = places[name.partition("/")[2]]
        (ours,) = [prefix for prefix in names if place.name.startswith(prefix)]
        state[names[ours] + place.name.removeprefix(ours)] = torch.from_numpy(place.to_torch(array).copy())
    theirs = Theirs().eval()
    theirs.load_state_dict(state)
    x = np.random.default_rng(2).standard_normal((3, 6, 5, 3)).astype(np.float32)
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(built.forward(x, training=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["small", "resnet20", "vgg11", "inception", "10-minutes", "seed-advanced"])
def test_arrays_of_the_bundled_networks_have_names_of_their_own(name: str) -> None:
    config = load_config(name)
    built = Network(config.model, (32, 32, 3), seed=None)
    assert len({place.name for place in layouts(built.model).values()}) == len(layouts(built.model))
