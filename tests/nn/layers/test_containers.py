import copy
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import ConfigError
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import Activation, ReLU, Tanh
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Parallel, Repeat, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.gelu import GELU
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.utils.types import Array, Shape
from tests.support.gradcheck import backward
from tests.support.layer_cases import build_fused

ACTIVATIONS = [name for name in layers if issubclass(layers[name], Activation)]


build = build_fused


def by_hand(parts: list[Layer], x: Array, dy: Array) -> tuple[Array, Array]:
    """Output and gradient of layers, one after the other."""
    for part in parts:
        x = part.forward(x, Context(training=True))
    for part in reversed(parts):
        dy = backward(part, dy)
    return x, dy


def apart(parts: list[Layer], in_shape: Shape, dtype: Any) -> list[Layer]:
    """Copies of the layers, each built by itself, so that none does the work of another."""
    copies, shape, rng = copy.deepcopy(parts), in_shape, np.random.default_rng(0)
    for part in copies:
        shape = part.build(shape, rng, np.dtype(dtype))
    return copies


def assert_equal_to_layers_apart(parts: list[Layer], x: Array, rtol: float) -> None:
    """Fail if a sequence computes something else than its layers do, called one after the other."""
    whole, alone = Sequential(copy.deepcopy(parts)), apart(parts, x.shape[1:], x.dtype)
    build(whole, x.shape[1:], x.dtype)
    rng = np.random.default_rng(1)
    for ours, theirs in zip(whole.layers, alone, strict=True):
        for key, value in ours.params.items():
            value[...] = rng.standard_normal(value.shape)
            if key == "gamma":
                value[0] = -1  # turns the order of numbers round, which a max pooling before it has to make up for
            theirs.params[key][...] = value
    y = whole.forward(x, Context(training=True))
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    expected_y, expected_dx = by_hand(alone, x, dy)
    np.testing.assert_allclose(y, expected_y, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(backward(whole, dy), expected_dx, rtol=rtol, atol=rtol)
    for ours, theirs in zip(whole.layers, alone, strict=True):
        for key, grad in ours.grads.items():
            np.testing.assert_allclose(grad, theirs.grads[key], rtol=rtol, atol=rtol * np.abs(grad).max())
    evaluated = x
    for part in alone:
        evaluated = part.forward(evaluated, Context())
    np.testing.assert_allclose(whole.forward(x, Context()), evaluated, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 3e-4)])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(6, 5, 4), (20,)])
def test_batch_norm_fused_with_an_activation_is_the_two_layers(
    name: str, shape: Shape, dtype: Any, rtol: float
) -> None:
    x = np.random.default_rng(0).standard_normal((30, *shape)).astype(dtype)
    assert_equal_to_layers_apart([BatchNorm(), layers[name]()], x, rtol)
    assert_equal_to_layers_apart([BatchNorm(affine=False), layers[name]()], x, rtol)


@pytest.mark.parametrize(
    "parts",
    [
        [BatchNorm(), ReLU(), Tanh()],
        [BatchNorm(), Tanh(), ReLU()],
        [BatchNorm(), BatchNorm(), ReLU()],
        [ReLU(), BatchNorm(), Tanh(), BatchNorm(), Tanh()],
        [BatchNorm(), MaxPool2d(2)],
        [BatchNorm(), MaxPool2d(2), ReLU()],
        [BatchNorm(), ReLU(), MaxPool2d(2)],
        [BatchNorm(), ReLU(), MaxPool2d(2, ceil_mode=True)],
        [BatchNorm(), MaxPool2d(3, stride=2, padding=1, ceil_mode=True), GELU()],
        [Conv2d(6, 3, groups=3, padding=1, padding_mode="reflect", bias=False), BatchNorm(), MaxPool2d(2), ReLU()],
        [BatchNorm(), GELU(), MaxPool2d(3, stride=1, padding=1), MaxPool2d(2), ReLU()],
        [Conv2d(4, 3), ReLU(), Conv2d(2, 2), BatchNorm()],
        [BatchNorm(), Sequential([ReLU()])],
        [Sequential([BatchNorm()]), ReLU()],
        [Parallel([Conv2d(4, 3)], merge="sum"), ReLU()],
    ],
    ids=lambda parts: "-".join(type(part).__name__ for part in parts),
)
def test_a_sequence_is_its_layers_one_after_the_other(parts: list[Layer]) -> None:
    assert_equal_to_layers_apart(parts, np.random.default_rng(0).standard_normal((6, 7, 6, 3)), 1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_sum_fused_with_an_activation_is_the_two_layers(name: str) -> None:
    parts = [Residual(Linear(4)), layers[name](), Parallel([Linear(4), Linear(4), Tanh()], merge="sum"), ReLU()]
    assert_equal_to_layers_apart(parts, np.random.default_rng(2).standard_normal((5, 4)), 1e-12)


def test_a_sum_takes_on_one_activation_only() -> None:
    parts: list[Layer] = [Residual(Linear(4)), ReLU(), Tanh()]
    assert_equal_to_layers_apart(parts, np.random.default_rng(2).standard_normal((5, 4)), 1e-12)


def test_a_model_inferred_twice_is_the_same_as_inferred_once() -> None:
    x = np.random.default_rng(0).standard_normal((5, 4))
    once, twice = (Sequential([BatchNorm(), Tanh(), ReLU(), Linear(3)]) for _ in range(2))
    build(once, (4,))
    twice.infer((7,))
    build(twice, (4,))
    np.testing.assert_array_equal(twice.forward(x, Context(training=True)), once.forward(x, Context(training=True)))


def test_nobody_needs_the_gradient_for_the_input_before_the_first_parameters() -> None:
    head = Conv2d(3, 3)
    model = Sequential([Dropout(0.2), head, ReLU(), Conv2d(2, 3)])
    build(model, (8, 8, 2))
    model.skip_dx()
    y = model.forward(np.ones((2, 8, 8, 2)), Context(training=True))
    assert model.backward(np.ones_like(y)) is None
    assert head.grads["weight"].any()


def test_the_backward_pass_ends_behind_layers_that_are_trained_no_more() -> None:
    first, second = Conv2d(3, 3), Conv2d(2, 3)
    model = Sequential([first, ReLU(), second, ReLU()])
    build(model, (8, 8, 2))
    first.is_frozen = True
    model.skip_dx()
    y = model.forward(np.ones((2, 8, 8, 2)), Context(training=True))
    assert model.backward(np.ones_like(y)) is None
    assert second.grads["weight"].any()
    assert not first.grads["weight"].any()


def test_nothing_is_kept_of_layers_that_the_backward_pass_does_not_reach() -> None:
    frozen, trained = Residual(Sequential([Conv2d(2, 3, padding=1), Tanh()])), Conv2d(2, 3)
    model = Sequential([Dropout(0.2), frozen, BatchNorm(affine=False), GELU(), trained, ReLU()])
    build(model, (8, 8, 2))
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 2))
    for layer in frozen.children.values():
        for _, part in layer.walk():
            part.is_frozen = True
    model.skip_dx()
    y = model.forward(x, Context(training=True))
    keeping = {type(layer).__name__ for _, layer in model.walk() if layer._kept is not None}
    assert keeping == {"Conv2d", "ReLU"}
    assert sum(layer._kept is not None for _, layer in model.walk()) == 2
    assert model.backward(np.ones_like(y)) is None
    assert trained.grads["weight"].any()


@pytest.mark.parametrize("merge", ["sum", "concat", "multiply"])
def test_branches_without_use_for_dx_still_get_their_gradients(merge: Any) -> None:
    x, results = np.random.default_rng(0).standard_normal((2, 6, 6, 2)), []
    for skip in (False, True):
        model = Parallel([Conv2d(2, 3, padding=1), Sequential([]), Sequential([ReLU(), Conv2d(2, 1)])], merge)
        build(model, (6, 6, 2))
        if skip:
            model.skip_dx()
        y = model.forward(x, Context(training=True))
        assert (model.backward(np.cos(y)) is None) == skip
        results.append([grad.copy() for _, part in model.walk() for grad in part.grads.values()])
    for with_dx, without in zip(*results, strict=True):
        np.testing.assert_array_equal(with_dx, without)


def test_concat_keeps_the_order_of_the_branches() -> None:
    model = Parallel([Linear(2), Sequential([]), Linear(1)])
    assert build(model, (3,)) == (6,)
    x = np.random.default_rng(0).standard_normal((4, 3))
    first, _, last = model.branches
    y = model.forward(x, Context(training=True))
    np.testing.assert_array_equal(y[:, 2:5], x)
    np.testing.assert_allclose(y[:, :2], x @ first.params["weight"])
    np.testing.assert_allclose(y[:, 5:], x @ last.params["weight"])
    dy = np.random.default_rng(1).standard_normal(y.shape)
    expected = dy[:, :2] @ first.params["weight"].T + dy[:, 2:5] + dy[:, 5:] @ last.params["weight"].T
    np.testing.assert_allclose(backward(model, dy), expected)


def test_sum_adds_the_branches_and_hands_all_of_them_the_gradient() -> None:
    model = Parallel([Linear(3), Sequential([]), Sequential([])], merge="sum")
    assert build(model, (3,)) == (3,)
    x = np.random.default_rng(0).standard_normal((4, 3))
    weight = model.branches[0].params["weight"]
    np.testing.assert_allclose(model.forward(x, Context(training=True)), x @ weight + 2 * x)
    np.testing.assert_allclose(backward(model, x), x @ weight.T + 2 * x)


def test_multiply_takes_numbers_of_channels_for_all_pixels() -> None:
    gate = Sequential([GlobalAvgPool2d(), Linear(2)])
    model = Parallel([gate, Sequential([]), MaxPool2d((6, 5))], merge="multiply")
    assert build(model, (6, 5, 2)) == (6, 5, 2)
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 2))
    gates = x.mean(axis=(1, 2), keepdims=True) @ gate.layers[1].params["weight"] * x.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(model.forward(x, Context(training=True)), x * gates)


@pytest.mark.parametrize("shapes", [((6, 5, 2), (2,), (1, 1, 2)), ((1, 1, 2), (2,)), ((2,), (1, 1, 2)), ((2,), (2,))])
def test_multiply_gives_the_shape_with_most_pixels(shapes: tuple[Shape, ...]) -> None:
    model = Parallel([Sequential([]) for _ in shapes], merge="multiply")
    assert model.joined(shapes) == max(shapes, key=lambda shape: (np.prod(shape), len(shape)))
    with pytest.raises(ValueError, match=r"cannot multiply branches with outputs of shapes .*\(3,\)"):
        model.joined((*shapes, (3,)))


@pytest.mark.parametrize("merge", ["sum", "concat", "multiply"])
def test_branches_that_cannot_be_joined_are_an_error_with_their_shapes(merge: Any) -> None:
    model = Parallel([Conv2d(4, 3), Conv2d(4, 1)], merge)
    with pytest.raises(ValueError, match=rf"cannot {merge} branches.*\(4, 4, 4\), \(6, 6, 4\)"):
        build(model, (6, 6, 2))


def test_no_branches_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one branch"):
        Parallel([])


def test_a_residual_whose_shapes_differ_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 4\), \(6, 6, 4\).*`shortcut`.*1x1 conv2d"):
        build(Residual(Conv2d(4, 3, stride=2, padding=1)), (6, 6, 4))


def test_a_fault_inside_a_residual_is_reported_as_the_layer_s_own() -> None:
    body = Conv2d(4, 9)
    body.path = "model[3].residual.body[0].conv2d"
    with pytest.raises(ConfigError, match=r"^model\[3\]\.residual\.body\[0\]\.conv2d: a window of 9"):
        build(Residual(Sequential([body])), (6, 6, 4))


def test_a_residual_adds_the_input() -> None:
    model = Residual(Linear(3))
    build(model, (3,))
    x = np.random.default_rng(0).standard_normal((4, 3))
    np.testing.assert_allclose(model.forward(x, Context(training=True)), x + x @ model.branches[0].params["weight"])


def test_a_residual_does_not_change_what_its_branches_keep() -> None:
    # tanh needs its own output for the gradient; a sum written into it would spoil it.
    model = Residual(Tanh())
    build(model, (3,))
    x = np.random.default_rng(0).standard_normal((4, 3))
    model.forward(x, Context(training=True))
    np.testing.assert_allclose(backward(model, np.ones_like(x)), 2 - np.tanh(x) ** 2)


def test_repeat_gives_each_copy_parameters_of_its_own() -> None:
    model = Repeat(3, Sequential([Linear(5), Tanh()]))
    assert build(model, (5,)) == (5,)
    weights = [layer.params["weight"] for _, layer in model.walk() if "weight" in layer.params]
    assert len(weights) == 3
    assert not np.array_equal(weights[0], weights[1])
    x = np.random.default_rng(0).standard_normal((2, 5))
    expected = x
    for weight in weights:
        expected = np.tanh(expected @ weight)
    np.testing.assert_allclose(model.forward(x, Context(training=True)), expected)


@pytest.mark.parametrize("times", [0, -1])
def test_repeating_less_than_once_is_an_error(times: int) -> None:
    with pytest.raises(ValueError, match=f"times must be at least 1, not {times}"):
        Repeat(times, Tanh())


def test_names_are_dotted_places() -> None:
    model = Sequential(
        [
            Conv2d(2, 1),
            Residual(Sequential([Conv2d(2, 1), BatchNorm()]), Conv2d(2, 1)),
            Parallel([Conv2d(2, 1), Sequential([])]),
            Repeat(2, Conv2d(4, 1, bias=False)),
            Flatten(),
        ]
    )
    build(model, (3, 3, 2))
    names = [f"{prefix}.{key}" for prefix, layer in model.walk() for key in layer.params]
    assert names == [
        "0.weight", "0.bias",
        "1.body.0.weight", "1.body.0.bias", "1.body.1.gamma", "1.body.1.beta",
        "1.shortcut.weight", "1.shortcut.bias",
        "2.0.weight", "2.0.bias",
        "3.0.weight", "3.1.weight",
    ]  # fmt: skip


def test_an_empty_sequence_passes_everything_on() -> None:
    model = Sequential([])
    assert build(model, (3, 2)) == (3, 2)
    x = np.ones((2, 3, 2))
    np.testing.assert_array_equal(model.forward(x, Context(training=True)), x)
    np.testing.assert_array_equal(model.backward(x), x)
