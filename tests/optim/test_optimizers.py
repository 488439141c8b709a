"""Optimizers: the rules of the papers to the last digits, the same bits always, gradient norms."""

import math
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cnnlite.nn.network import Parameter
from cnnlite.optim import SGD, Adam, AdamW
from cnnlite.optim.base import Options, Rule, gradient_norm, scale_gradients
from cnnlite.runtime import engine
from cnnlite.utils.types import Array
from tests.support.optimizer_parts import FOR_ANY_SHAPE, SHAPES, Holder, fill_gradients, make, make_parameters, train


def one_weight(value: float = 1.0, name: str = "weight") -> list[Parameter]:
    return [Parameter(name, Holder(name, np.full(3, value, np.float32)), name)]


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_every_optimizer_descends_a_quadratic(name: str) -> None:
    parameters = make_parameters()
    optimizer = make(name)
    optimizer.bind(parameters)
    losses = []
    for step in range(100):
        losses.append(sum(float((parameter.value**2).sum()) for parameter in parameters))
        for parameter in parameters:
            parameter.grad[...] = parameter.value
        optimizer.step(step, 1.0)
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_every_optimizer_keeps_dtypes_shapes_and_gradients(name: str) -> None:
    for dtype in (np.float32, np.float64):
        parameters = make_parameters(dtype=dtype)
        optimizer = make(name, lr=np.float64(0.1))
        optimizer.bind(parameters)
        fill_gradients(parameters, 0)
        before = [parameter.grad.copy() for parameter in parameters]
        optimizer.step(0, np.float64(0.5))
        for parameter, grad in zip(parameters, before, strict=True):
            assert parameter.value.dtype == dtype
            assert parameter.value.shape == SHAPES[parameter.name]
            np.testing.assert_array_equal(parameter.grad, grad)
        assert all(array.dtype == dtype for array in optimizer.state().values())


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_every_optimizer_continues_bit_for_bit_from_its_state(name: str) -> None:
    options = {"momentum": 0.9} if name == "sgd" else {}
    parameters, copies = make_parameters(), make_parameters()
    optimizer, resumed = make(name, **options), make(name, **options)
    optimizer.bind(parameters)
    train(optimizer, parameters, range(4))
    resumed.bind(copies)
    saved = {key: array.copy() for key, array in optimizer.state().items()}
    assert {key.partition("/")[2] for key in saved} == set(SHAPES)
    for copied, parameter in zip(copies, parameters, strict=True):
        copied.value[...] = parameter.value
    train(optimizer, parameters, range(4, 9))
    resumed.load_state(saved)
    train(resumed, copies, range(4, 9))
    for copied, parameter in zip(copies, parameters, strict=True):
        np.testing.assert_array_equal(copied.value, parameter.value)
    for key, array in optimizer.state().items():
        np.testing.assert_array_equal(resumed.state()[key], array)


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_every_optimizer_computes_the_same_bits_on_any_number_of_threads(name: str) -> None:
    results = []
    for count in (1, 2, 4):
        engine.set_threads(count)
        parameters = make_parameters({"0.weight": (700, 1001), "0.bias": (1001,)})
        optimizer = make(name)
        optimizer.bind(parameters)
        train(optimizer, parameters, range(2))
        results.append((gradient_norm(optimizer.bound), [parameter.value.copy() for parameter in parameters]))
    for norm, values in results[1:]:
        assert norm == results[0][0]
        for value, first in zip(values, results[0][1], strict=True):
            np.testing.assert_array_equal(value, first)


@pytest.mark.parametrize("name", FOR_ANY_SHAPE)
def test_no_step_of_an_optimizer_allocates_large_arrays(name: str) -> None:
    parameters = make_parameters({"0.weight": (2000, 1000)})
    optimizer = make(name, weight_decay=0.1)
    optimizer.bind(parameters)
    optimizer.step(0, 1.0)
    tracemalloc.start()
    optimizer.step(1, 1.0)
    gradient_norm(optimizer.bound)
    scale_gradients(optimizer.bound, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_options_that_are_numpy_numbers_compute_in_float32_too() -> None:
    values = []
    for number in (float, np.float64):
        parameters = make_parameters()
        optimizer = SGD(lr=number(0.1), momentum=number(0.9), nesterov=True, weight_decay=number(0.1))
        optimizer.bind(parameters)
        train(optimizer, parameters, range(5))
        values.append(np.concatenate([parameter.value.ravel() for parameter in parameters]))
    np.testing.assert_array_equal(values[0], values[1])


TORCH = [
    ("sgd", {}),
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("adam", {}),
    ("adam", {"betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.1}),
    ("adamw", {}),
    ("adamw", {"betas": (0.0, 0.9), "weight_decay": 0.3}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "groups"])
@pytest.mark.parametrize(("name", "options"), TORCH)
def test_twenty_steps_equal_torch(name: str, options: dict[str, Any], grouped: bool, dtype: Any, torch: Any) -> None:
    names = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
    parameters = make_parameters(dtype=dtype)
    tensors = {parameter.name: torch.tensor(parameter.value.copy()) for parameter in parameters}
    default_decay = 0.01 if name == "adamw" else 0.0
    their_groups = []
    for parameter in parameters:
        own = {"lr": 0.1, "weight_decay": default_decay} | options
        if not parameter.name.endswith("weight"):
            own["weight_decay"] = 0.0
        if grouped and parameter.name.startswith("2."):
            own |= {"lr": 0.03, "weight_decay": 0.2}
        elif grouped and parameter.name.endswith("bias"):
            own["lr"] = 0.5
        their_groups.append({"params": [tensors[parameter.name]]} | own)
    theirs = getattr(torch.optim, names[name])(their_groups, lr=0.1)
    groups = [{"match": r"^2\.", "lr": 0.03, "weight_decay": 0.2}, {"match": "bias$", "lr": 0.5}] if grouped else None
    ours = make(name, **({"lr": 0.1} | options), groups=groups)
    ours.bind(parameters)
    for step in range(20):
        fill_gradients(parameters, step)
        factor = 1 / (1 + step)
        for parameter in parameters:
            tensors[parameter.name].grad = torch.tensor(parameter.grad.copy())
        full = [group["lr"] for group in theirs.param_groups]
        for group in theirs.param_groups:
            group["lr"] *= factor
        theirs.step()
        for group, lr in zip(theirs.param_groups, full, strict=True):
            group["lr"] = lr
        ours.step(step, factor)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for parameter in parameters:
        np.testing.assert_allclose(
            parameter.value,
            tensors[parameter.name].numpy(),
            rtol=tolerance,
            atol=tolerance / 10,
            err_msg=parameter.name,
        )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e30])
def test_gradient_norm_is_that_of_all_gradients_together(scale: float) -> None:
    parameters = make_parameters({"0.weight": (500, 1001), "0.bias": (1001,)})
    optimizer = SGD(lr=0.1, weight_decay=0.1)
    optimizer.bind(parameters)
    fill_gradients(parameters, 0)
    for parameter in parameters:
        parameter.grad[...] *= np.float32(scale)
    exact = math.sqrt(sum(float((parameter.grad.astype(np.float64) ** 2).sum()) for parameter in parameters))
    assert gradient_norm(optimizer.bound) == pytest.approx(exact, rel=1e-6)
    scale_gradients(optimizer.bound, 0.25)
    assert gradient_norm(optimizer.bound) == pytest.approx(exact / 4, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gradient_norm_shows_a_gradient_that_is_not_finite(value: float) -> None:
    parameters = make_parameters()
    optimizer = SGD(lr=0.1)
    optimizer.bind(parameters)
    parameters[3].grad[2] = value
    assert not math.isfinite(gradient_norm(optimizer.bound))


def test_layers_see_the_update() -> None:
    parameters = one_weight()
    optimizer = SGD(lr=0.5)
    optimizer.bind(parameters)
    parameters[0].grad[...] = 1
    optimizer.step(0, 1.0)
    np.testing.assert_array_equal(parameters[0].layer.params["weight"], [0.5, 0.5, 0.5])


def test_adam_moves_by_the_learning_rate_at_first_whatever_the_gradient() -> None:
    for gradient in (1e-3, 1.0, 1e3):
        parameters = one_weight()
        optimizer = Adam(lr=0.01)
        optimizer.bind(parameters)
        parameters[0].grad[...] = gradient
        optimizer.step(0, 1.0)
        np.testing.assert_allclose(parameters[0].value, 0.99, rtol=1e-6)


def test_decoupled_decay_does_not_enter_the_moments() -> None:
    parameters = one_weight(2.0)
    optimizer = AdamW(lr=0.1, weight_decay=0.5)
    optimizer.bind(parameters)
    optimizer.step(0, 1.0)
    np.testing.assert_allclose(parameters[0].value, 2 * (1 - 0.1 * 0.5), rtol=1e-6)
    assert all((array == 0).all() for array in optimizer.state().values())


def test_a_rule_needs_no_state_and_says_its_rate_for_all_parameters() -> None:
    @dataclass(eq=False)
    class Signs(Rule):
        lr: float = 0.5

        def update(
            self, values: Array, grads: Array, slots: Mapping[str, Array], scratch: Array, options: Options
        ) -> None:
            values -= options["lr"] * np.sign(grads)

    parameters = one_weight()
    optimizer = Signs()
    optimizer.bind(parameters)
    parameters[0].grad[...] = 3.0
    optimizer.step(0, 0.5)
    assert parameters[0].value.tolist() == [0.75, 0.75, 0.75]
    assert optimizer.state() == {}
    assert optimizer.rates(0, 0.5) == {"": 0.25}
