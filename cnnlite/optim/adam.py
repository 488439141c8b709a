"""Adam and AdamW."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnlite.optim.base import Options, Rule, optimizers
from cnnlite.utils.types import Array


@optimizers.register("adam")
@dataclass(eq=False)
class Adam(Rule):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with L2 regularization: ``g`` includes ``weight_decay * w``.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``, ``w -= lr * m' / (sqrt(v') + eps)``, where
    ``m' = m / (1 - b1^t)`` and ``v' = v / (1 - b2^t)`` at update ``t``, counted from 1.

    Args:
        lr: the learning rate.
        betas: b1 and b2, the weights of the old means of gradients and of their squares.
        eps: added to the root, which keeps small gradients from making large steps.
        weight_decay: of parameters called ``weight``.
    """

    decoupled: ClassVar[bool] = False
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def slots_for(self, options: Options) -> tuple[str, ...]:
        """The two means."""
        return ("m", "v")

    def update(self, values: Array, grads: Array, slots: Mapping[str, Array], scratch: Array, options: Options) -> None:
        """One step of the formulas above; ``scratch`` holds each intermediate in turn."""
        m, v, lr, decay = slots["m"], slots["v"], options["lr"], options["weight_decay"]
        (b1, b2), t, direction = options["betas"], options["step"] + 1, grads
        if decay and self.decoupled:
            values *= 1 - lr * decay
        elif decay:
            direction = np.multiply(values, decay, out=scratch)
            direction += grads
        np.multiply(direction, 1 - b1, out=scratch)
        m *= b1
        m += scratch
        np.square(scratch, out=scratch)  # (1 - b1)^2 g^2; g itself is gone where `direction` was `scratch`
        scratch *= (1 - b2) / (1 - b1) ** 2
        v *= b2
        v += scratch
        np.sqrt(v, out=scratch)
        unbias = math.sqrt(1 - b2**t)  # m' / (sqrt(v') + eps), times and divided by this to save a pass
        scratch += options["eps"] * unbias
        np.divide(m, scratch, out=scratch)
        scratch *= lr * unbias / (1 - b1**t)
        values -= scratch


@optimizers.register("adamw")
@dataclass(eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101): ``w -= lr * weight_decay * w``."""

    decoupled = True
    weight_decay: float = 0.01
