"""Muon: against its definition by singular values, against PyTorch, and the promises every optimizer makes."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import ConfigError
from cnnlite.nn.network import Parameter
from cnnlite.optim import Muon
from cnnlite.optim.base import scale_gradients
from cnnlite.optim.muon import QUINTIC, orthogonalize
from cnnlite.runtime import engine
from cnnlite.utils.types import Array
from tests.support.optimizer_parts import fill_gradients, make_parameters, train

SHAPES = {"0.weight": (3, 3, 4, 8), "1.weight": (3, 3, 8, 8), "2.weight": (1, 1, 3, 20), "3.weight": (5, 12)}


def by_singular_values(matrix: Array, iterations: int, eps: float) -> Array:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) + eps)
    a, b, c = QUINTIC
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    result: Array = (u * s) @ vt
    return result


@pytest.mark.parametrize("shape", [(7, 7), (30, 6), (6, 30), (1, 5), (5, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_each_singular_value_goes_through_the_polynomial(
    shape: tuple[int, int], dtype: Any, tolerance: float, iterations: int
) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape)
    found = matrix.astype(dtype)
    orthogonalize(found, iterations, 0.1)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, by_singular_values(matrix, iterations, 0.1), atol=tolerance)


def test_the_polynomial_and_the_defaults_are_those_of_the_source() -> None:
    assert QUINTIC == (3.4445, -4.7750, 2.0315)
    muon = Muon(lr=1)
    assert (muon.momentum, muon.nesterov, muon.weight_decay, muon.normalize_weights) == (0.95, True, 0, False)
    assert (muon.iterations, muon.eps) == (5, 1e-7)


def test_five_iterations_bring_singular_values_near_one_and_zeros_stay_zero() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 40))
    orthogonalize(matrix, 5, 1e-7)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert 0.6 < values.min() < values.max() < 1.3
    nothing = np.zeros((4, 3), np.float32)
    orthogonalize(nothing, 5, 1e-7)
    np.testing.assert_array_equal(nothing, 0)


def torch_steps(torch: Any, parameters: list[Parameter], steps: int, options: dict[str, Any]) -> list[Array]:
    """The source's rule in its own layout, (out, in, kernel_h, kernel_w), with decoupled decay before it."""
    tensors = []
    for parameter in parameters:
        axes = (3, 2, 0, 1) if parameter.value.ndim == 4 else (1, 0)
        tensors.append((axes, torch.tensor(parameter.value.copy()).permute(*axes).contiguous()))
    moments = [torch.zeros_like(tensor) for _, tensor in tensors]
    a, b, c = QUINTIC
    for step in range(steps):
        fill_gradients(parameters, step)
        lr = options["lr"] / (1 + step)
        for (axes, w), m, parameter in zip(tensors, moments, parameters, strict=True):
            g = torch.tensor(parameter.grad.copy()).permute(*axes)
            m.mul_(options["momentum"]).add_(g)
            g = g.add(m, alpha=options["momentum"]) if options["nesterov"] else m
            w.mul_(1 - lr * options["weight_decay"])
            if options["normalize_weights"]:
                w.mul_(len(w) ** 0.5 / w.norm())
            x = g.reshape(len(g), -1)
            x = x / (x.norm() + options["eps"])
            if tall := x.size(0) > x.size(1):
                x = x.T
            for _ in range(options["iterations"]):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            w.add_((x.T if tall else x).reshape(w.shape), alpha=-lr)
    return [w.permute(*((2, 3, 1, 0) if w.ndim == 4 else (1, 0))).numpy() for _, w in tensors]


@pytest.mark.parametrize(
    "changed", [{}, {"nesterov": False}, {"normalize_weights": False, "weight_decay": 0.3}, {"iterations": 5}]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 2e-4)])
def test_twenty_steps_equal_torch(changed: dict[str, Any], dtype: Any, tolerance: float, torch: Any) -> None:
    options: dict[str, Any] = {
        "lr": 0.24, "momentum": 0.6, "nesterov": True, "weight_decay": 0.0, "normalize_weights": True,
        "iterations": 3, "eps": 1e-3,
    } | changed  # fmt: skip
    expected = torch_steps(torch, make_parameters(SHAPES, dtype), 20, options)
    parameters = make_parameters(SHAPES, dtype)
    optimizer = Muon(**options)
    optimizer.bind(parameters)
    train(optimizer, parameters, range(20))
    for parameter, theirs in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.value, theirs, atol=tolerance, err_msg=parameter.name)


def test_without_momentum_there_is_no_state_and_the_gradient_itself_is_made_orthogonal() -> None:
    parameters = make_parameters(SHAPES, np.float64)
    before = [parameter.value.copy() for parameter in parameters]
    optimizer = Muon(lr=0.1, momentum=0.0, nesterov=False)
    optimizer.bind(parameters)
    assert optimizer.state() == {}
    fill_gradients(parameters, 0)
    optimizer.step(0, 1.0)
    for parameter, old in zip(parameters, before, strict=True):
        matrix = parameter.grad.reshape(-1, parameter.grad.shape[-1])
        moved = (old - parameter.value).reshape(matrix.shape)
        np.testing.assert_allclose(moved, 0.1 * by_singular_values(matrix, 5, 1e-7), atol=1e-12)


def test_the_size_of_gradients_does_not_matter_if_eps_goes_with_it() -> None:
    results = []
    for scale in (1, 2.0**-11):
        parameters = make_parameters(SHAPES)
        optimizer = Muon(lr=0.1, eps=1e-3 * scale)
        optimizer.bind(parameters)
        for step in range(3):
            fill_gradients(parameters, step)
            scale_gradients(optimizer.bound, scale)
            optimizer.step(step, 1.0)
        results.append(np.concatenate([parameter.value.ravel() for parameter in parameters]))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_steps_have_the_same_bits_on_any_number_of_threads() -> None:
    results = []
    for count in (1, 2, 4):
        engine.set_threads(count)
        parameters = make_parameters({f"{i}.weight": (3, 3, 40, 64) for i in range(5)})
        optimizer = Muon(lr=0.1, normalize_weights=True)
        optimizer.bind(parameters)
        train(optimizer, parameters, range(3))
        results.append(np.concatenate([parameter.value.ravel() for parameter in parameters]))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_no_step_allocates_large_arrays() -> None:
    parameters = make_parameters({"0.weight": (3, 3, 64, 128), "1.weight": (3, 3, 128, 128)})
    optimizer = Muon(lr=0.1, normalize_weights=True, weight_decay=0.1)
    optimizer.bind(parameters)
    optimizer.step(0, 1.0)
    tracemalloc.start()
    optimizer.step(1, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000


def test_training_goes_on_bit_for_bit_from_its_state() -> None:
    parameters, copies = make_parameters(SHAPES), make_parameters(SHAPES)
    optimizer, resumed = Muon(lr=0.1), Muon(lr=0.1)
    optimizer.bind(parameters)
    resumed.bind(copies)
    train(optimizer, parameters, range(4))
    resumed.load_state({name: array.copy() for name, array in optimizer.state().items()})
    for copied, parameter in zip(copies, parameters, strict=True):
        copied.value[...] = parameter.value
    train(optimizer, parameters, range(4, 7))
    train(resumed, copies, range(4, 7))
    for copied, parameter in zip(copies, parameters, strict=True):
        np.testing.assert_array_equal(copied.value, parameter.value)


def test_biases_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"two or more axes, not 0\.bias, 1\.gamma, 1\.beta, \.\.\.; .*composite"):
        Muon(lr=0.1).bind(make_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr 0"),
        ({"iterations": 0}, r"iterations 0 is not a whole number in \[1, 100\]"),
        ({"iterations": 2.5}, "iterations 2.5"),
        ({"iterations": True}, "iterations True"),
        ({"momentum": 0.0}, "nesterov needs a momentum"),
        ({"eps": 0.0}, r"eps 0.0 is not in \(0"),
        ({"groups": [{"match": "a", "iterations": 1.5}]}, r"groups\[0\]: iterations 1.5"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(**{"lr": 0.1, **options})
