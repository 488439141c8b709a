"""Weight initializers, scaled to fan_in and fan_out: the number of weights of an output and of an input.

Shapes are (kernel_h, kernel_w, in, out) or (in, out); those of groups, `for_groups`.
"""

import math
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from cnnlite.nn.layers.base import Init
from cnnlite.utils.types import Array, Shape

Initializer: TypeAlias = Literal["he", "glorot", "normal", "unit", "dirac"]


def he(rng: np.random.Generator, shape: Shape) -> Array:
    """Normal with variance 2 / fan_in (He et al. 2015, arXiv:1502.01852)."""
    return rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[:-1]))


def glorot(rng: np.random.Generator, shape: Shape) -> Array:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""
    *area, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(area) * (inputs + outputs)))
    return rng.uniform(-limit, limit, shape)


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Normal with standard deviation 0.01, whatever the shape."""
    return rng.standard_normal(shape) * 0.01


def unit(rng: np.random.Generator, shape: Shape) -> Array:
    """Uniform around 0, scaled so that the standard deviation of just these numbers is 1 (Jordan 2024, airbench94)."""
    draws = rng.uniform(-1, 1, shape)
    return draws / draws.std(ddof=1) if draws.size > 1 else draws


def within_fan_in(rng: np.random.Generator, shape: Shape, fan_in: int) -> Array:
    """Uniform in +-1 / sqrt(fan_in): the variance is 1 / (3 fan_in) (LeCun et al. 1998)."""
    limit = 1 / math.sqrt(fan_in)
    return rng.uniform(-limit, limit, shape)


def dirac(rng: np.random.Generator, shape: Shape) -> Array:
    """Outputs copy inputs: filter c passes on channel c; filters without a channel are `within_fan_in`.

    Source: Zagoruyko & Komodakis 2017, arXiv:1706.00388; for filters beyond the channels Jordan 2024, arXiv:2404.00498,
    section 3.3.
    """
    weight = within_fan_in(rng, shape, math.prod(shape[:-1]))
    copies = min(shape[-2:])
    weight[..., :copies] = 0
    centre = tuple(size // 2 for size in shape[:-2])
    weight[centre][range(copies), range(copies)] = 1
    return weight


def for_groups(init: Init, groups: int) -> Init:
    """Make an initializer that draws the weights of each group as ``init`` draws those of one convolution."""
    return init if groups == 1 else partial(_draw_groups, init, groups)


def _draw_groups(init: Init, groups: int, rng: np.random.Generator, shape: Shape) -> Array:
    part = (*shape[:-1], shape[-1] // groups)
    return np.concatenate([init(rng, part) for _ in range(groups)], axis=-1)


initializers: dict[str, Init] = {draw.__name__: draw for draw in (he, glorot, normal, unit, dirac)}
