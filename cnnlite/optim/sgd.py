"""Gradient descent with momentum."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnlite.optim.base import Options, Rule, optimizers
from cnnlite.utils.types import Array


@optimizers.register("sgd")
@dataclass(eq=False)
class SGD(Rule):
    """Stochastic gradient descent with momentum: ``m = momentum * m + g``, ``w -= lr * m``, where ``g`` includes decay.

    With ``nesterov``, ``w -= lr * (g + momentum * m)`` (Sutskever et al. 2013).

    Args:
        lr: the learning rate.
        momentum: weight of the old direction.
        nesterov: look ahead along the momentum.
        weight_decay: of parameters called ``weight``; part of the gradient.
    """

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def slots_for(self, options: Options) -> tuple[str, ...]:
        """One for the momentum, if there is any."""
        return ("momentum",) if options["momentum"] else ()

    def update(self, values: Array, grads: Array, slots: Mapping[str, Array], scratch: Array, options: Options) -> None:
        """One step of the formula above."""
        lr, momentum, direction = options["lr"], options["momentum"], grads
        if options["weight_decay"]:
            direction = np.multiply(values, options["weight_decay"], out=scratch)
            direction += grads
        if momentum:
            total = slots["momentum"]
            total *= momentum
            total += direction
            if options["nesterov"]:
                values -= np.multiply(direction, lr, out=scratch)
                lr *= momentum
            direction = total
        values -= np.multiply(direction, lr, out=scratch)
