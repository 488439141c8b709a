"""How weights begin: draws scaled to the number of inputs and outputs of a unit."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from cnnlite.types import Array, Shape

Initializer: TypeAlias = Literal["he", "glorot", "normal"]


def he(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Normal with variance 2 / fan_in (He et al. 2015, arXiv:1502.01852)."""
    return rng.standard_normal(shape) * math.sqrt(2 / fan_in)


def glorot(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


def normal(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Normal with standard deviation 0.01, whatever the shape."""
    return rng.standard_normal(shape) * 0.01


initializers: dict[str, Callable[[np.random.Generator, Shape, int, int], Array]] = {
    "he": he,
    "glorot": glorot,
    "normal": normal,
}
