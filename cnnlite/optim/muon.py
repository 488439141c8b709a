"""Muon: momentum made orthogonal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnlite.errors import ConfigError, Problem
from cnnlite.nn.network import Parameter
from cnnlite.optim.base import Group, Options, Rule, optimizers
from cnnlite.runtime import engine
from cnnlite.utils.types import Array

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c that take small singular values up fastest (Jordan 2024)."""


@optimizers.register("muon")
@dataclass(eq=False)
class Muon(Rule):
    """Momentum whose matrices are made nearly orthogonal: ``m = momentum * m + g``, ``w -= lr * O(m)``.

    A weight (..., in, out) is the matrix (everything else, out). ``O(M)`` is ``M / (|M| + eps)`` with each singular
    value s taken to ``a s + b s^3 + c s^5``, as often as ``iterations`` says, by Newton-Schulz steps
    ``X = a X + X (b A + c A^2)``, ``A = X^T X``; they end up near 1. With ``nesterov``, ``O(g + momentum * m)``.
    ``weight_decay`` is decoupled. ``normalize_weights`` first scales each weight to the norm ``sqrt(out)``, so that
    its filters have a mean square norm of 1.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; normalized weights: its airbench94_muon.

    Only for weights of two or more axes: ConfigError for others.

    Args:
        lr: the learning rate.
        momentum: weight of the old direction.
        nesterov: look ahead along the momentum.
        weight_decay: of parameters called ``weight``; apart from the gradient.
        normalize_weights: keep the length of the weights.
        iterations: Newton-Schulz steps in an update.
        eps: added to the length of a matrix before it is divided by that.
    """

    lr: float
    momentum: float = 0.95
    nesterov: bool = True
    weight_decay: float = 0.0
    normalize_weights: bool = False
    iterations: int = 5
    eps: float = 1e-7

    def check(self, parameters: Sequence[Parameter]) -> None:
        """ConfigError if one of ``parameters`` is no matrix, or a group is left without any."""
        if flat := [parameter.name for parameter in parameters if len(parameter.shape) < 2]:
            names = f"{', '.join(flat[:3])}{', ...' if len(flat) > 3 else ''}"
            hint = "give the others an optimizer of their own with `composite`"
            raise ConfigError([Problem(self.path, f"is for weights of two or more axes, not {names}; {hint}")])
        super().check(parameters)

    def slots_for(self, options: Options) -> tuple[str, ...]:
        """One for the momentum, if there is any."""
        return ("momentum",) if options["momentum"] else ()

    def step_group(self, group: Group, options: Options) -> None:
        """Update the matrices of a group, each on one thread, the largest first."""
        stops = np.cumsum([parameter.value.size for parameter in group.parameters]).tolist()
        shapes = [parameter.value.shape for parameter in group.parameters]
        pieces = sorted(zip([0, *stops], stops, shapes, strict=False), key=lambda piece: piece[0] - piece[1])

        def task(index: int) -> None:
            start, stop, shape = pieces[index]
            self.update_piece(group, start, stop, options, (-1, shape[-1]))

        engine.run(task, len(pieces))

    def update(self, values: Array, grads: Array, slots: Mapping[str, Array], scratch: Array, options: Options) -> None:
        """One step of the formula above for one weight, a matrix."""
        momentum, direction = options["momentum"], scratch
        if momentum:
            total = slots["momentum"]
            total *= momentum
            total += grads
            if options["nesterov"]:
                np.multiply(total, momentum, out=direction)
                direction += grads
            else:
                np.copyto(direction, total)
        else:
            np.copyto(direction, grads)
        if options["weight_decay"]:
            values *= 1 - options["lr"] * options["weight_decay"]
        if options["normalize_weights"] and (norm := _norm(values)):
            values *= math.sqrt(values.shape[1]) / norm
        orthogonalize(direction, options["iterations"], options["eps"])
        direction *= options["lr"]
        values -= direction


def orthogonalize(matrix: Array, iterations: int, eps: float) -> None:
    """Replace ``matrix`` by its ``O`` as described in `Muon`, on this thread: contiguous (m, n), any m and n."""
    a, b, c = QUINTIC
    tall, small = matrix.shape[0] >= matrix.shape[1], min(matrix.shape)
    matrix /= _norm(matrix) + eps  # so that no singular value is above 1
    gram = engine.scratch("muon.gram", (small, small), matrix.dtype)
    polynomial = engine.scratch("muon.polynomial", gram.shape, matrix.dtype)
    product = engine.scratch("muon.product", matrix.shape, matrix.dtype)
    for _ in range(iterations):
        np.matmul(*((matrix.T, matrix) if tall else (matrix, matrix.T)), out=gram)
        np.matmul(gram, gram, out=polynomial)
        polynomial *= c
        gram *= b
        polynomial += gram
        np.matmul(*((matrix, polynomial) if tall else (polynomial, matrix)), out=product)
        matrix *= a
        matrix += product


def _norm(array: Array) -> float:
    flat = array.reshape(-1)
    return math.sqrt(float(np.vdot(flat, flat)))
