"""Activations without exponentials, for sigmoid and silu: MobileNetV3 (Howard et al. 2019, arXiv:1905.02244)."""

import numpy as np

from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import layers
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


@layers.register("hard_sigmoid")
class HardSigmoid(Activation):
    """y = x / 6 + 1 / 2, at least 0 and at most 1; the gradient at -3 and 3 is 0."""

    from_output = monotonic = True

    def apply(self, x: Array, out: Array) -> None:
        np.clip(x, -3, 3, out=out)
        out += 3
        out *= x.dtype.type(1 / 6)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.subtract(1, y, out=out)
        out *= y
        inside = np.greater(out, 0, out=engine.scratch("activation.mask", y.shape, np.bool_))
        np.multiply(dy, inside, out=out)
        out *= y.dtype.type(1 / 6)


@layers.register("hard_swish")
class HardSwish(Activation):
    """y = x * hard_sigmoid(x); the gradient at -3 is 0 and at 3 it is 1."""

    def apply(self, x: Array, out: Array) -> None:
        part = engine.scratch("activation.part", x.shape, x.dtype)
        np.clip(x, -3, 3, out=part)
        part += 3
        part *= x.dtype.type(1 / 6)
        np.multiply(x, part, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        # f' = (clip(x, -3, 3) + 3 + x) / 6, the last x only between -3 and 3
        np.clip(x, -3, 3, out=out)
        inside = np.equal(out, x, out=engine.scratch("activation.mask", x.shape, np.bool_))
        part = engine.scratch("activation.part", x.shape, x.dtype)
        np.multiply(out, inside, out=part)
        out += 3
        out += part
        out *= x.dtype.type(1 / 6)
        out *= dy
