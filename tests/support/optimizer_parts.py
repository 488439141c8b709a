"""Parameters without a network, and optimizers by name, for the tests of optimizers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.network import Parameter
from cnnlite.optim import Optimizer, optimizers
from cnnlite.utils.types import Array, Shape

SHAPES: dict[str, Shape] = {
    "0.weight": (3, 3, 2, 4),
    "0.bias": (4,),
    "1.gamma": (4,),
    "1.beta": (4,),
    "2.weight": (4, 3),
    "2.bias": (3,),
}

FOR_ANY_SHAPE = [name for name in optimizers if name not in ("composite", "muon")]
"""Optimizers that take all parameters and need no options but a learning rate; the others have tests of their own."""


class Holder(Layer):
    """Holds one parameter."""

    def __init__(self, key: str, value: Array):
        super().__init__()
        self.add_param(key, value.shape)
        self.params[key] = value
        self.grads[key] = np.zeros_like(value)

    def forward(self, x: Array, context: Context) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array | None:
        raise NotImplementedError


def make_parameters(shapes: Mapping[str, Shape] = SHAPES, dtype: Any = np.float32) -> list[Parameter]:
    rng = np.random.default_rng(1)
    parameters = []
    for name, shape in shapes.items():
        key = name.rpartition(".")[2]
        parameters.append(Parameter(name, Holder(key, rng.normal(size=shape).astype(dtype)), key))
    return parameters


def fill_gradients(parameters: list[Parameter], step: int) -> None:
    rng = np.random.default_rng([2, step])
    for parameter in parameters:
        parameter.grad[...] = rng.normal(size=parameter.grad.shape)


def train(optimizer: Optimizer, parameters: list[Parameter], steps: range) -> None:
    for step in steps:
        fill_gradients(parameters, step)
        optimizer.step(step, 1 / (1 + step))


def make(name: str, **options: Any) -> Optimizer:
    """Any registered optimizer with its defaults, whatever it is called and wherever it is defined."""
    cls: Callable[..., Optimizer] = optimizers[name]
    return cls(**({"lr": 0.05} | options))
