"""Gradients against differences of the loss along random directions, in float64.

A wrong gradient agrees with the slope along a random direction with probability 0, so a handful of directions check an
array of any size. Functions with kinks (relu, max pooling) need inputs that stay on one side: see `spread`.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from cnnlite.nn.gradients import slope
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.utils.types import Array, Shape

TRAINING = Context(training=True)
STEP = 1e-5
LEAST_GAP = 4e-3


def spread(rng: np.random.Generator, shape: Shape) -> Array:
    """Different numbers in random order: no two closer than `LEAST_GAP`, none closer than half of it to 0."""
    count = math.prod(shape)
    values = (np.arange(count) - count // 2 + 0.5) * max(4 / count, LEAST_GAP)
    return rng.permutation(values).reshape(shape)


def backward(layer: Layer, dy: Array) -> Array:
    """The gradient for the input, of a layer that gives one."""
    dx = layer.backward(dy)
    assert dx is not None
    return dx


def slope_along(loss: Callable[[], float], array: Array, direction: Array) -> float:
    """The derivative of ``loss()`` as ``array`` moves along ``direction``."""
    origin = array.copy()

    def at(distance: float) -> float:
        array[...] = origin + distance * direction
        return loss()

    found = slope(at, STEP)
    array[...] = origin
    return found


def assert_gradients(
    loss: Callable[[], float],
    arrays: Mapping[str, Array],
    gradients: Mapping[str, Array],
    rng: np.random.Generator,
    *,
    directions: int = 3,
    tolerance: float = 1e-7,
) -> None:
    """Fail if one of ``gradients`` is not that of ``loss()`` for the array of the same name, which it reads."""
    for name, array in arrays.items():
        gradient = gradients[name]
        assert gradient.shape == array.shape, name
        assert array.dtype == gradient.dtype == np.float64, name
        # Along a standard normal direction, the slope itself has the size of the gradient's norm.
        allowed = tolerance * (0.1 + float(np.linalg.norm(gradient)))
        for _ in range(directions):
            direction = rng.standard_normal(array.shape)
            numeric, exact = slope_along(loss, array, direction), float(np.vdot(gradient, direction))
            assert abs(numeric - exact) <= allowed, f"{name}: {exact} should be {numeric}"


def assert_layer_gradients(layer: Layer, x: Array, rng: np.random.Generator, context: Context = TRAINING) -> None:
    """Fail if a built float64 ``layer`` has a wrong gradient at ``x``, for its input or one of its parameters."""
    parts = dict(layer.walk())
    y = layer.forward(x, context)
    dy = rng.standard_normal(y.shape)
    dx = backward(layer, dy)
    arrays, gradients = {"x": x}, {"x": dx.copy()}
    for prefix, part in parts.items():
        assert part.params.keys() == part.grads.keys()
        arrays |= {f"{prefix}.{key}": value for key, value in part.params.items()}
        gradients |= {f"{prefix}.{key}": value.copy() for key, value in part.grads.items()}
    assert_gradients(lambda: float(np.vdot(layer.forward(x, context), dy)), arrays, gradients, rng)
