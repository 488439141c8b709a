"""Convolution; its arithmetic is in `kernels.convolution`."""

import math

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import convolution
from cnnlite.nn.kernels.convolution import Algorithm
from cnnlite.nn.kernels.geometry import Padding, Pair, Windows, pair
from cnnlite.nn.kernels.matmul import is_large
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.nn.layers.initializers import Initializer, initializers
from cnnlite.runtime import shards
from cnnlite.utils.types import Array, Shape


@layers.register("conv2d")
class Conv2d(Layer):
    """2-d convolution: ``(N, H, W, C) -> (N, out_h, out_w, out_channels)``.

    out = floor((in + 2 * padding - kernel) / stride) + 1, for height and width.

    Args:
        out_channels: number of filters.
        kernel_size: height and width of a filter; one number for both.
        stride: pixels from one window to the next.
        padding: zeros on each side, or ``same`` (out = ceil(in / stride)), or ``valid`` (none).
        bias: add a bias to each channel; leave it out before a batch norm, which subtracts it again.
        init: ``he``, ``glorot``, ``normal`` (deviation 0.01), ``unit`` (deviation 1), or ``dirac`` (copies the input).
        exact: refuse an input whose last rows or columns no window reaches.
        algorithm: ``auto`` chooses the fastest for the shape; ``unfold``, ``unfold_rows`` (vertical stride 1) and
            ``winograd`` (3x3 kernels, stride 1) give the same results within rounding. ``unfold`` is im2col. Where a
            window is all zero, ``winograd`` may leave up to 2e-5 of the greatest output instead of 0: behind it, with
            a bias of exactly 0, a ReLU passes the gradient at about half of these places, the others at none.

    Parameters: ``weight`` (kernel_h, kernel_w, in_channels, out_channels), ``bias`` (out_channels,).
    """

    by_shards = True
    _prepared: Array | None = None

    def __init__(
        self,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        bias: bool = True,
        init: Initializer = "he",
        exact: bool = False,
        algorithm: Algorithm = "auto",
    ):
        super().__init__()
        if out_channels < 1:
            raise OptionError(f"out_channels must be at least 1, not {out_channels}", "out_channels")
        self.out_channels = out_channels
        self.kernel = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", least=0)
        self.has_bias = bias
        self.init = init
        self.exact = exact
        self.algorithm: Algorithm = algorithm

    def infer(self, in_shape: Shape) -> Shape:
        self.windows = Windows.fit(in_shape, self.kernel, self.stride, self.padding, exact=self.exact)
        if not convolution.fits(self.algorithm, self.windows):
            raise ValueError(f"algorithm {self.algorithm} cannot do kernel {self.kernel} with stride {self.stride}")
        shape = (*self.kernel, in_shape[2], self.out_channels)
        self.add_param("weight", shape, initializers[self.init])
        if self.has_bias:
            self.add_param("bias", (self.out_channels,))
        self.multiply_adds = math.prod(self.windows.out) * math.prod(shape)
        out_shape = (*self.windows.out, self.out_channels)
        way = convolution.choose(self.windows, self.out_channels, self.algorithm)
        self.is_large = way != "unfold_rows" and is_large(math.prod(shape), math.prod(in_shape) + math.prod(out_shape))
        return out_shape

    def forward(self, x: Array, context: Context) -> Array:
        weight = self.params["weight"] if self._prepared is None else self._prepared
        bias, keep = self.params.get("bias"), context.training and not self.is_large
        if self.is_large:
            x = shards.whole(x)
        with shards.lockstep(self.is_large):
            y, columns = convolution.forward(x, weight, bias, self.windows, self.algorithm, keep=keep)
        self._kept = (x, columns) if context.training else None
        return shards.own(y) if self.is_large else y

    def fix(self) -> None:
        self._prepared = convolution.prepared(self.params["weight"], self.windows, self.algorithm)

    def backward(self, dy: Array) -> Array | None:
        x, columns = self.kept()
        if self.has_bias:
            convolution.bias_gradient(dy, self.grads["bias"])
        if self.is_large:
            dy = shards.whole(dy)
        with shards.lockstep(self.is_large):
            convolution.weight_gradient(x, dy, self.windows, self.grads["weight"], self.algorithm, columns)
            if not self.needs_dx:
                return None
            dx = convolution.input_gradient(dy, self.params["weight"], self.windows, self.algorithm)
        return shards.own(dx) if self.is_large else dx
