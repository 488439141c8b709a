import numpy as np
import pytest

from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.nn import network as networks
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import GlobalAvgPool2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.network import Network, pack
from cnnlite.utils.types import Array, Shape
from tests.support.gradcheck import assert_gradients, spread

SHAPE = (6, 5, 2)


def model() -> Sequential:
    return Sequential(
        [
            Conv2d(4, 3, padding="same", bias=False),
            BatchNorm(),
            ReLU(),
            Residual(Sequential([Conv2d(4, 3, padding=1), BatchNorm()])),
            GlobalAvgPool2d(),
            Linear(3),
        ]
    )


def network(seed: int = 0, dtype: type = np.float32) -> Network:
    return Network(model(), SHAPE, seed=seed, dtype=dtype, classes=3)


def batch(dtype: type = np.float32) -> Array:
    return np.random.default_rng(0).standard_normal((7, *SHAPE)).astype(dtype)


def train(trained: Network, steps: int = 2) -> None:
    for step in range(steps):
        y = trained.forward(batch(), training=True, step=step)
        trained.backward(np.cos(y))
        for parameter in trained.parameters.values():
            parameter.value[...] -= 0.1 * parameter.grad


def test_parameters_and_buffers_have_dotted_names_in_the_order_of_the_layers() -> None:
    built = network()
    assert list(built.parameters) == [
        "0.weight",
        "1.gamma", "1.beta",
        "3.body.0.weight", "3.body.0.bias",
        "3.body.1.gamma", "3.body.1.beta",
        "5.weight", "5.bias",
    ]  # fmt: skip
    names = ["1.running_mean", "1.running_var", "3.body.1.running_mean", "3.body.1.running_var"]
    assert list(built.buffers) == names
    assert list(built.state()) == [f"param/{n}" for n in built.parameters] + [f"buffer/{n}" for n in names]
    assert all(parameter.name == name for name, parameter in built.parameters.items())
    assert (built.in_shape, built.out_shape, built.dtype) == (SHAPE, (3,), np.float32)


def test_a_single_layer_is_a_network_too() -> None:
    assert list(Network(Linear(2), (3,), seed=0, classes=2).parameters) == ["weight", "bias"]


def test_gradients_of_a_whole_network_are_right() -> None:
    built = network(dtype=np.float64)
    rng = np.random.default_rng(1)
    x = spread(rng, (4, *SHAPE))
    y = built.forward(x, training=True)
    dy = rng.standard_normal(y.shape)
    built.backward(dy)
    values = {name: parameter.value for name, parameter in built.parameters.items()}
    grads = {name: parameter.grad.copy() for name, parameter in built.parameters.items()}
    assert_gradients(lambda: float(np.vdot(built.forward(x, training=True), dy)), values, grads, rng)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    first, same, other = (network(seed).state() for seed in (3, 3, 4))
    for name, array in first.items():
        np.testing.assert_array_equal(array, same[name])
    assert not np.array_equal(first["param/0.weight"], other["param/0.weight"])
    assert not np.array_equal(first["param/0.weight"].ravel()[:9], first["param/5.weight"].ravel()[:9])


def test_the_model_given_stays_unbuilt() -> None:
    unbuilt = model()
    first, second = (Network(unbuilt, SHAPE, seed=0) for _ in range(2))
    assert unbuilt.children == {}
    assert unbuilt.layers[0].params == {}
    first.parameters["0.weight"].value[...] = 0
    assert second.parameters["0.weight"].value.any()


def test_a_network_may_be_built_without_fusion_and_is_the_same() -> None:
    fused, apart = network(), Network(model(), SHAPE, seed=0, fused=False)
    assert [type(layer) for layer in apart.model.children.values()] == [type(layer) for layer in model().layers]
    assert [type(layer) for layer in fused.model.children.values()] != [type(layer) for layer in model().layers]
    assert fused.state().keys() == apart.state().keys()
    for training in (False, True):
        y = fused.forward(batch(), training=training)
        np.testing.assert_allclose(y, apart.forward(batch(), training=training), rtol=1e-4, atol=1e-5)


def test_evaluation_leaves_no_trace() -> None:
    built = network()
    before = {name: array.copy() for name, array in built.state().items()}
    built.forward(batch(), training=False)
    for name, array in built.state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(RuntimeError, match="training=True"):
        built.backward(np.ones((7, 3), np.float32))


# What cannot be built


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Flatten(), Linear(7)], "7 numbers for each image, but the dataset has 10 classes"),
        ([Conv2d(10, 3)], r"shape \(4, 3, 10\); end it with flatten or global_avg_pool2d"),
        ([], r"shape \(6, 5, 2\); end it with"),
    ],
)
def test_an_output_that_is_not_one_number_a_class_is_an_error(layers: list[Layer], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Network(Sequential(layers), SHAPE, seed=0, classes=10)
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].path == "model"


def test_a_layer_that_does_not_fit_is_named_by_its_path() -> None:
    layer = Conv2d(4, 5)
    layer.path = "model[4].conv2d"
    with pytest.raises(ConfigError, match=r"^model\[4\]\.conv2d: a window of 5 does not fit on height: \(4 \+ 0 - 5\)"):
        Network(Sequential([Conv2d(3, 3), layer]), SHAPE, seed=0)


class Fickle(Flatten):
    """Fits but the first time."""

    def infer(self, in_shape: Shape) -> Shape:
        if "fits" not in vars(self):
            self.fits = True
            raise ValueError("not today")
        return super().infer(in_shape)


def test_a_misfit_that_does_not_come_again_is_told_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"^model: not today$"):
        Network(Sequential([Fickle(), Linear(10)]), SHAPE, seed=0)


def test_a_model_of_one_layer_that_does_not_fit_is_named_too() -> None:
    with pytest.raises(ConfigError, match=r"^model: .*put `flatten` before it"):
        Network(Linear(10), SHAPE, seed=0)


def test_a_layer_that_knows_no_shards_keeps_the_batch_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SHARD_WORK", 1)
    whole = network()
    assert whole.shards(16) == 8
    next(layer for _, layer in whole.model.walk() if isinstance(layer, Conv2d)).by_shards = False
    assert whole.shards(16) == 1


def test_parameters_beyond_all_memory_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^model: its parameters and their gradients would take"):
        Network(Sequential([Flatten(), Linear(10**13)]), SHAPE, seed=0)


def test_parameters_that_memory_does_not_hold_after_all_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> None:
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(Linear, "allocate", starve)
    with pytest.raises(ConfigError, match=r"^model: the parameters do not fit in memory: Unable to allocate"):
        Network(Sequential([Flatten(), Linear(10)]), SHAPE, seed=0)


# State


def test_state_is_live_and_loading_it_gives_the_same_network() -> None:
    trained, fresh = network(seed=0), network(seed=1)
    train(trained)
    own = fresh.state()
    fresh.load_state({name: array.copy() for name, array in trained.state().items()})
    for name, array in fresh.state().items():
        assert array is own[name]
        np.testing.assert_array_equal(array, trained.state()[name])
    evaluated = fresh.forward(batch(), training=False)
    np.testing.assert_array_equal(evaluated, trained.forward(batch(), training=False))


def test_loading_names_everything_that_does_not_fit_and_changes_nothing() -> None:
    built = network()
    before = {name: array.copy() for name, array in built.state().items()}
    given = {name: array + 1 for name, array in before.items()}
    del given["param/0.weight"], given["buffer/1.running_var"]
    given["param/9.weight"] = np.zeros(3)
    given["param/5.bias"] = np.zeros(4, np.float32)
    given["buffer/1.running_mean"] = given["buffer/1.running_mean"].astype(np.float64)
    with pytest.raises(CheckpointError) as caught:
        built.load_state(given)
    for part in (
        "param/0.weight is missing",
        "buffer/1.running_var is missing",
        "param/9.weight is not in the network",
        "param/5.bias has shape (4,), not (3,)",
        "buffer/1.running_mean is float64, not float32",
    ):
        assert part in str(caught.value)
    for name, array in built.state().items():
        np.testing.assert_array_equal(array, before[name])


# Packing


def test_parameters_trained_no_more_have_no_gradients_and_cost_no_backward_pass() -> None:
    whole, part = network(), network()
    names = list(whole.parameters)
    whole.backward(np.cos(whole.forward(batch(), training=True)))
    for frozen, unreached in ((1, 1), (2, 1), (3, 3)):  # 2: the gamma of a layer whose beta is still trained
        part.backward(np.cos(part.forward(batch(), training=True)))
        part.freeze([part.parameters[name] for name in names[:frozen]])
        assert not any(part.parameters[name].grad.any() for name in names[:frozen])
        part.backward(np.cos(part.forward(batch(), training=True)))
        for index, name in enumerate(names):
            expected = whole.parameters[name].grad * (index >= unreached)
            np.testing.assert_array_equal(part.parameters[name].grad, expected)


def test_packing_keeps_values_and_the_network_works_on_with_views() -> None:
    plain, packed = network(), network()
    train(plain, 1)
    train(packed, 1)
    parameters = list(packed.parameters.values())
    values, grads = pack(parameters)
    assert values.ndim == grads.ndim == 1
    assert values.size == grads.size == sum(parameter.value.size for parameter in plain.parameters.values())
    assert values.dtype == grads.dtype == np.float32
    start = 0
    for parameter, other in zip(parameters, plain.parameters.values(), strict=True):
        part = slice(start, start + other.value.size)
        np.testing.assert_array_equal(parameter.value, other.value)
        np.testing.assert_array_equal(parameter.grad, other.grad)
        np.testing.assert_array_equal(values[part], other.value.ravel())
        np.testing.assert_array_equal(grads[part], other.grad.ravel())
        assert np.shares_memory(parameter.value, values[part])
        assert np.shares_memory(parameter.grad, grads[part])
        start = part.stop
    train(plain)
    train(packed)
    for name, array in packed.state().items():
        np.testing.assert_array_equal(array, plain.state()[name])
    np.testing.assert_array_equal(values, np.concatenate([p.value.ravel() for p in plain.parameters.values()]))
    np.testing.assert_array_equal(grads, np.concatenate([p.grad.ravel() for p in plain.parameters.values()]))


def test_changing_the_flat_values_changes_the_network() -> None:
    built = network()
    values, _ = pack(list(built.parameters.values()))
    values[...] = 0
    np.testing.assert_array_equal(built.forward(batch(), training=False), np.zeros((7, 3)))


def test_packed_groups_leave_each_other_alone() -> None:
    built = network()
    weights = [parameter for name, parameter in built.parameters.items() if name.endswith("weight")]
    others = [parameter for parameter in built.parameters.values() if parameter not in weights]
    first, second = pack(weights)[0], pack(others)[0]
    first[...], second[...] = 1, 2
    assert all((parameter.value == 1).all() for parameter in weights)
    assert all((parameter.value == 2).all() for parameter in others)
    built.load_state({name: np.full_like(array, 5) for name, array in built.state().items()})
    assert (first == 5).all()
