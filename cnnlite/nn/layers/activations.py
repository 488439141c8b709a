"""Activations: functions of each number by itself; `gelu` and `hard` have more of them."""

import math
from abc import abstractmethod

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels.channelwise import for_rows
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


class Activation(Layer):
    """y = f(x) for each number; a subclass writes f and its derivative for a block."""

    by_shards = True

    from_output = False
    """True if `gradient` needs only the output ``y``; the input is not kept then."""
    monotonic = False
    """True if f(a) <= f(b) for all a < b; a max pooling may come first then, see `fusion`."""

    @abstractmethod
    def apply(self, x: Array, out: Array) -> None:
        """Write f(x) to ``out``, which may be ``x``; both (rows, length)."""

    @abstractmethod
    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        """Write dy * f'(x) to ``out``, which may be none of the others."""

    def forward(self, x: Array, context: Context) -> Array:
        y = engine.empty(x.shape, x.dtype)
        for_rows(self.apply, x, y)
        self._kept = (y if self.from_output else x, y) if context.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        return self.backward_from(dy, *self.kept())

    def backward_from(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient with respect to ``x``, dy * f'(x), in a new array; all of shape (N, ...)."""
        dx = engine.empty(dy.shape, dy.dtype)
        for_rows(self.gradient, dy, x, y, dx)
        return dx


@layers.register("relu")
class ReLU(Activation):
    """y = max(x, 0); the gradient at 0 is 0."""

    from_output = monotonic = True

    def apply(self, x: Array, out: Array) -> None:
        # A row of zeros instead of the number 0: NumPy's maximum has vector code for two arrays only.
        np.maximum(x, np.zeros(x.shape[1], x.dtype), out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.multiply(dy, np.greater(y, 0, out=engine.scratch("relu.mask", y.shape, np.bool_)), out=out)


@layers.register("leaky_relu")
class LeakyReLU(Activation):
    """y = x for x > 0, slope * x otherwise (Maas, Hannun & Ng 2013).

    Args:
        slope: between 0 and 1.
    """

    from_output = monotonic = True

    def __init__(self, slope: float = 0.01):
        super().__init__()
        if not 0 < slope < 1:
            raise OptionError(f"slope must be in (0, 1), not {slope}", "slope")
        self.slope = slope

    def apply(self, x: Array, out: Array) -> None:
        part = engine.scratch("activation.part", x.shape, x.dtype)
        np.multiply(x, x.dtype.type(self.slope), out=part)
        np.maximum(x, part, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        factor = engine.scratch("activation.part", y.shape, y.dtype)
        np.copyto(factor, y > 0)
        factor *= y.dtype.type(1 - self.slope)
        factor += y.dtype.type(self.slope)
        np.multiply(dy, factor, out=out)


@layers.register("elu")
class ELU(Activation):
    """y = x for x > 0, alpha * (exp(x) - 1) otherwise (Clevert, Unterthiner & Hochreiter 2015, arXiv:1511.07289).

    Args:
        alpha: minus the value at minus infinity; positive.
    """

    from_output = monotonic = True

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        if not 0 < alpha < math.inf:
            raise OptionError(f"alpha must be positive, not {alpha}", "alpha")
        self.alpha = alpha

    def apply(self, x: Array, out: Array) -> None:
        part = engine.scratch("activation.part", x.shape, x.dtype)
        np.expm1(np.minimum(x, 0, out=part), out=part)
        part *= x.dtype.type(self.alpha)
        np.maximum(x, 0, out=out)
        out += part  # one of the two is 0

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        factor = engine.scratch("activation.part", y.shape, y.dtype)
        np.minimum(y, 0, out=factor)
        factor += np.where(y > 0, y.dtype.type(1), y.dtype.type(self.alpha))
        np.multiply(dy, factor, out=out)


def _sigmoid(x: Array, out: Array) -> Array:
    half = x.dtype.type(0.5)
    np.tanh(np.multiply(x, half, out=out), out=out)
    out *= half
    out += half
    return out


@layers.register("sigmoid")
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), computed as (1 + tanh(x / 2)) / 2, which cannot overflow."""

    from_output = monotonic = True

    def apply(self, x: Array, out: Array) -> None:
        _sigmoid(x, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.subtract(1, y, out=out)
        out *= y
        out *= dy


@layers.register("tanh")
class Tanh(Activation):
    """y = tanh(x)."""

    from_output = monotonic = True

    def apply(self, x: Array, out: Array) -> None:
        np.tanh(x, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.multiply(y, y, out=out)
        np.subtract(1, out, out=out)
        out *= dy


@layers.register("silu")
class SiLU(Activation):
    """y = x * sigmoid(x) (Elfwing, Uchibe & Doya 2017, arXiv:1702.03118)."""

    def apply(self, x: Array, out: Array) -> None:
        np.multiply(x, _sigmoid(x, engine.scratch("activation.part", x.shape, x.dtype)), out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        # f' = s + y * (1 - s) with s = sigmoid(x)
        s = _sigmoid(x, engine.scratch("activation.part", x.shape, x.dtype))
        np.subtract(1, s, out=out)
        out *= y
        out += s
        out *= dy


@layers.register("softplus")
class Softplus(Activation):
    """y = log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(-abs(x))), which cannot overflow."""

    from_output = monotonic = True

    def apply(self, x: Array, out: Array) -> None:
        part = engine.scratch("activation.part", x.shape, x.dtype)
        np.negative(np.abs(x, out=part), out=part)
        np.log1p(np.exp(part, out=part), out=part)
        np.maximum(x, 0, out=out)
        out += part

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        # f' = sigmoid(x) = 1 - exp(-y)
        np.negative(np.expm1(np.negative(y, out=out), out=out), out=out)
        out *= dy
