"""The Gaussian error linear unit, exact and with a tanh."""

import math
from typing import Literal

import numpy as np

from cnnlite.nn.kernels import normal
from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import layers
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


@layers.register("gelu")
class GELU(Activation):
    """y = x * Phi(x), Phi the distribution function of a normal variable (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    Args:
        approximate: ``tanh`` takes (1 + tanh(u)) / 2 for Phi(x), u = sqrt(2 / pi) * (x + 0.044715 * x^3), which is
            faster and off by less than 5e-4; ``none`` computes Phi itself.
    """

    SCALE = math.sqrt(2 / math.pi)
    CUBIC = 0.044715
    FAR = 10.0
    """Distance from 0 at which f' is 0 or 1 to the last digit, in float64 too."""

    def __init__(self, approximate: Literal["none", "tanh"] = "tanh"):
        super().__init__()
        self.approximate = approximate

    def apply(self, x: Array, out: Array) -> None:
        if self.approximate == "none":
            part = engine.scratch("activation.part", x.shape, x.dtype)
            normal.distribution(x, part)
            np.multiply(x, part, out=out)
            return
        t = self._tanh(x, np.multiply(x, x, out=engine.scratch("activation.part", x.shape, x.dtype)))
        t += 1
        t *= x.dtype.type(0.5)
        np.multiply(x, t, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        if self.approximate == "none":
            # f' = Phi(x) + x * phi(x)
            part = engine.scratch("activation.part", x.shape, x.dtype)
            normal.density(x, out)
            out *= x
            normal.distribution(x, part)
            out += part
            out *= dy
            return
        # f' = (1 + t) / 2 + x / 2 * (1 - t^2) * u', u' = scale * (1 + 3 * cubic * x^2)
        np.multiply(x, x, out=out)
        if not math.isfinite(np.vdot(out, out)):  # where x^3 may be infinite, and 1 - t^2 is 0
            x = np.clip(x, -self.FAR, self.FAR)
            np.multiply(x, x, out=out)
        t = self._tanh(x, out)
        out *= x.dtype.type(1.5 * self.SCALE * self.CUBIC)
        out += x.dtype.type(0.5 * self.SCALE)
        out *= x  # x / 2 * u'
        part = engine.scratch("activation.square", t.shape, t.dtype)
        np.multiply(t, t, out=part)
        np.subtract(1, part, out=part)
        out *= part
        t += 1
        t *= x.dtype.type(0.5)
        out += t
        out *= dy

    def _tanh(self, x: Array, square: Array) -> Array:
        t = engine.scratch("activation.part", x.shape, x.dtype)
        np.multiply(square, x.dtype.type(self.SCALE * self.CUBIC), out=t)
        t += x.dtype.type(self.SCALE)
        t *= x
        return np.tanh(t, out=t)
