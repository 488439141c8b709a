"""What the layer protocol promises, for every registered layer; one added later is tested without being named here."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnlite.nn.layers import layers
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Parallel
from cnnlite.runtime import engine
from cnnlite.utils.types import Array
from tests.support.gradcheck import assert_layer_gradients, backward, spread
from tests.support.layer_cases import KEEPS_NOTHING, Case, big_case, cases_of, generator

NAMES = list(layers)
CASES = [case for name in NAMES for case in cases_of(name)]

every_layer = pytest.mark.parametrize("name", NAMES)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def draw(case: Case, batch: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    """A batch of inputs and one of gradients for the output, both read-only."""
    rng = generator(case, batch)
    x = rng.standard_normal((batch, *case.in_shape)).astype(dtype)
    dy = rng.standard_normal((batch, *case.out_shape())).astype(dtype)
    x.flags.writeable = dy.flags.writeable = False
    return x, dy


def train(layer: Layer, x: Array, dy: Array) -> dict[str, Array]:
    """Everything that a forward and a backward pass compute."""
    y = layer.forward(x, Context(training=True))
    results = {"y": y.copy()}
    dx = layer.backward(dy)
    if dx is not None:
        results["dx"] = dx.copy()
    for prefix, part in layer.walk():
        results |= {f"grad {prefix}.{key}": grad.copy() for key, grad in part.grads.items()}
        results |= {f"buffer {prefix}.{key}": buffer.copy() for key, buffer in part.buffers.items()}
    return results


def assert_same_bits(first: dict[str, Array], second: dict[str, Array]) -> None:
    assert first.keys() == second.keys()
    for key, array in first.items():
        assert array.dtype == second[key].dtype, key
        np.testing.assert_array_equal(array, second[key], err_msg=key)


@every_case
@pytest.mark.parametrize("batch", [1, 4])
def test_gradients_are_those_of_the_output(case: Case, batch: int) -> None:
    rng = generator(case, batch)
    assert_layer_gradients(case.layer(), spread(rng, (batch, *case.in_shape)), rng)


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_build_returns_the_shape_that_comes_out(case: Case, training: bool) -> None:
    x, dy = draw(case, 2)
    layer = case.layer()
    y = layer.forward(x, Context(training=training))
    assert y.shape == (2, *case.out_shape())
    assert all(isinstance(size, int) for size in case.out_shape())
    if training:
        assert backward(layer, dy).shape == x.shape


@every_case
def test_input_and_output_gradient_are_only_read(case: Case) -> None:
    x, dy = draw(case, 3)
    layer, x_before, dy_before = case.layer(), x.copy(), dy.copy()
    layer.forward(x, Context())
    train(layer, x, dy)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(dy, dy_before)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays_what_it_is(case: Case, dtype: Any) -> None:
    x, dy = draw(case, 3, dtype)
    layer = case.layer(dtype)
    assert layer.forward(x, Context()).dtype == dtype
    assert {key: array.dtype for key, array in train(layer, x, dy).items() if array.dtype != dtype} == {}
    assert all(value.dtype == dtype for _, part in layer.walk() for value in part.params.values())


@every_case
def test_float32_agrees_with_float64(case: Case) -> None:
    x, dy = draw(case, 5, np.float32)
    narrow = train(case.layer(np.float32), x, dy)
    layer = case.layer(np.float64)
    for (_, part), (_, rounded) in zip(layer.walk(), case.layer(np.float32).walk(), strict=True):
        for key, value in part.params.items():
            value[...] = rounded.params[key]
    for key, wide in train(layer, x.astype(np.float64), dy.astype(np.float64)).items():
        np.testing.assert_allclose(narrow[key], wide, rtol=1e-4, atol=2e-5 * (1 + np.abs(wide).max()), err_msg=key)


@every_layer
def test_a_second_backward_raises(name: str) -> None:
    for case in cases_of(name):
        x, dy = draw(case, 2)
        layer = case.layer()
        first = train(layer, x, dy)
        if name in KEEPS_NOTHING:
            np.testing.assert_array_equal(layer.backward(dy), first["dx"])
        else:
            with pytest.raises(RuntimeError, match="training=True"):
                layer.backward(dy)


@every_layer
def test_backward_after_evaluation_raises(name: str) -> None:
    for case in cases_of(name):
        x, dy = draw(case, 2)
        layer = case.layer()
        layer.forward(x, Context())
        if name not in KEEPS_NOTHING:
            with pytest.raises(RuntimeError, match="training=True"):
                layer.backward(dy)


@every_case
def test_nothing_is_kept_after_evaluation_or_after_backward(case: Case) -> None:
    layer = case.layer(np.float32)
    for training in (False, True):
        drawn = draw(case, 2, np.float32)
        watched = [weakref.ref(array) for array in drawn]
        y = layer.forward(drawn[0], Context(training=training))
        if training:
            layer.backward(drawn[1])
        watched.append(weakref.ref(y))
        del drawn, y
        assert [ref() for ref in watched] == [None, None, None]


@every_case
def test_evaluation_is_a_pure_function(case: Case) -> None:
    x, dy = draw(case, 3)
    layer = case.layer()
    train(layer, x, dy)
    before = {f"{prefix}.{key}": value.copy() for prefix, part in layer.walk() for key, value in part.buffers.items()}
    first = layer.forward(x, Context())
    second = layer.forward(x, Context())
    np.testing.assert_array_equal(first, second)
    alone = layer.forward(x[:1], Context())
    np.testing.assert_allclose(alone, first[:1], rtol=1e-12, atol=1e-12, strict=True)
    after = {f"{prefix}.{key}": value for prefix, part in layer.walk() for key, value in part.buffers.items()}
    assert_same_bits(before, after)


@every_case
def test_backward_writes_gradients_and_does_not_add(case: Case) -> None:
    x, dy = draw(case, 3)
    layer = case.layer()
    first = train(layer, x, dy)
    for _, part in layer.walk():
        for grad in part.grads.values():
            grad[...] = np.nan
    second = train(layer, x, dy)
    assert_same_bits(*({k: v for k, v in run.items() if "buffer" not in k} for run in (first, second)))


@every_case
def test_batches_may_shrink_and_grow(case: Case) -> None:
    layer = case.layer(np.float32)
    for batch in (4, 1, 7):
        x, dy = draw(case, batch, np.float32)
        fresh = train(case.layer(np.float32), x, dy)
        used = train(layer, x, dy)
        assert_same_bits(*({k: v for k, v in run.items() if "buffer" not in k} for run in (fresh, used)))


def _lone_axes_far_apart(array: Array) -> Array:
    """``array`` with strides of its own choice where an axis has the length 1: NumPy calls that contiguous."""
    strides = [800 if size == 1 else stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(array, strides=strides)


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "sliced": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "fortran": np.asfortranarray,
    "channels first": lambda array: np.moveaxis(np.moveaxis(array, -1, 1).copy(), 1, -1),
    "backwards": lambda array: np.flip(np.flip(array).copy()),
    "broadcast batch": lambda array: np.broadcast_to(array[:1], array.shape),
    "broadcast channels": lambda array: np.broadcast_to(array[..., :1], array.shape),
    "lone axes far apart": _lone_axes_far_apart,
}


@pytest.mark.parametrize("batch", [1, 4])
@every_case
def test_memory_order_of_the_arguments_does_not_matter(case: Case, batch: int) -> None:
    for layout, laid_out in LAYOUTS.items():
        arguments = [laid_out(array) for array in draw(case, batch)]
        plain, odd = train(case.layer(), *(array.copy("C") for array in arguments)), train(case.layer(), *arguments)
        for key, array in plain.items():
            np.testing.assert_allclose(odd[key], array, rtol=1e-9, atol=1e-12, err_msg=f"{key}, {layout}")


@every_case
def test_branches_may_share_an_input(case: Case) -> None:
    x, _ = draw(case, 3)
    unbuilt = layers[case.name](**copy.deepcopy(dict(case.options)))
    both = Parallel([unbuilt, copy.deepcopy(unbuilt)])
    both.build(case.in_shape, np.random.default_rng(0), np.dtype(np.float64))
    y = both.forward(x, Context(training=True))
    dy = np.random.default_rng(1).standard_normal(y.shape)
    dx = backward(both, dy)
    alone, total = copy.deepcopy(both.branches), np.zeros(x.shape)
    width = case.out_shape()[-1]
    for index, layer in enumerate(alone):
        part = slice(index * width, (index + 1) * width)
        np.testing.assert_array_equal(layer.forward(x, Context(training=True)), y[..., part])
        total += backward(layer, np.ascontiguousarray(dy[..., part]))
    np.testing.assert_array_equal(dx, total)


@every_case
def test_parameters_get_the_same_gradients_where_nobody_needs_dx(case: Case) -> None:
    x, dy = draw(case, 3)
    layer = case.layer()
    layer.skip_dx()
    whole, part = train(case.layer(), x, dy), train(layer, x, dy)
    assert_same_bits({k: v for k, v in whole.items() if k in part}, part)
    assert whole.keys() - part.keys() <= {"dx"}


@every_layer
def test_results_have_the_same_bits_on_1_2_and_4_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, batch = big_case(name)
    x, dy = draw(case, batch, np.float32)
    pieces, results, run = [1], [], engine.run

    def counted(task: Callable[[int], None], count: int) -> None:
        pieces.append(count)
        run(task, count)

    monkeypatch.setattr(engine, "run", counted)
    for threads in (1, 2, 4):
        engine.set_threads(threads)
        layer = case.layer(np.float32)
        results.append(train(layer, x, dy) | {"evaluation": layer.forward(x, Context()).copy()})
    assert name in {"flatten", "global_avg_pool2d"} or max(pieces) > 1, "this test needs a larger batch"
    for other in results[1:]:
        assert_same_bits(results[0], other)


def test_samples_of_all_layers_may_be_shared_among_workers() -> None:
    assert [name for name in layers if not layers[name].by_shards] == []
