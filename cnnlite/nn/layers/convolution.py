"""Convolution; its arithmetic is in `kernels.convolution`."""

import math
from typing import Literal

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import convolution, reflection
from cnnlite.nn.kernels.convolution import Algorithm
from cnnlite.nn.kernels.geometry import Padding, Pair, Windows, pair
from cnnlite.nn.kernels.matmul import is_large
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.nn.layers.initializers import Initializer, for_groups, initializers
from cnnlite.runtime import shards
from cnnlite.utils.types import Array, Shape


@layers.register("conv2d")
class Conv2d(Layer):
    """2-d convolution: ``(N, H, W, C) -> (N, out_h, out_w, out_channels)``.

    out = floor((in + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1, for height and width.

    Args:
        out_channels: number of filters.
        kernel_size: height and width of a filter; one number for both.
        stride: pixels from one window to the next.
        padding: pixels added on each side, or ``same`` (out = ceil(in / stride)), or ``valid`` (none).
        dilation: pixels from one weight of a filter to the next.
        groups: equal parts of the channels; a filter sees one of them. With as many as there are channels, the
            convolution is depthwise. It has to divide in_channels and out_channels.
        padding_mode: ``zeros``, or ``reflect``: padding mirrors the image at its first and last row and column.
        bias: add a bias to each channel; leave it out before a batch norm, which subtracts it again.
        init: ``he``, ``glorot``, ``normal`` (deviation 0.01), ``unit`` (deviation 1), or ``dirac`` (copies the input).
        exact: refuse an input whose last rows or columns no window reaches.
        algorithm: ``auto`` chooses the fastest for the shape; ``unfold``, ``unfold_rows`` (vertical stride 1, no
            groups), ``winograd`` (3x3 kernels, stride and dilation 1, no groups) and ``depthwise`` (each channel a
            group) give the same results within rounding. ``unfold`` is im2col. Where a
            window is all zero, ``winograd`` may leave up to 2e-5 of the greatest output instead of 0: behind it, with
            a bias of exactly 0, a ReLU passes the gradient at about half of these places, the others at none.

    Parameters: ``weight`` (kernel_h, kernel_w, in_channels / groups, out_channels), ``bias`` (out_channels,).
    """

    by_shards = True

    def __init__(
        self,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        padding_mode: Literal["zeros", "reflect"] = "zeros",
        bias: bool = True,
        init: Initializer = "he",
        exact: bool = False,
        algorithm: Algorithm = "auto",
    ):
        super().__init__()
        if out_channels < 1:
            raise OptionError(f"out_channels must be at least 1, not {out_channels}", "out_channels")
        if groups < 1:
            raise OptionError(f"groups must be at least 1, not {groups}", "groups")
        if out_channels % groups:
            raise OptionError(
                f"out_channels must be a multiple of groups ({groups}), not {out_channels}", "out_channels"
            )
        self.out_channels = out_channels
        self.groups = groups
        self.kernel = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", least=0)
        self.dilation = pair(dilation, "dilation")
        self.padding_mode = padding_mode
        self.has_bias = bias
        self.init = init
        self.exact = exact
        self.algorithm: Algorithm = algorithm

    def infer(self, in_shape: Shape) -> Shape:
        self.windows = Windows.fit(
            *(in_shape, self.kernel, self.stride, self.padding),
            exact=self.exact,
            dilation=self.dilation,
            groups=self.groups,
        )
        self.reflects = self.padding_mode == "reflect" and self.windows.padded != self.windows.size
        if self.reflects and not reflection.fits(self.windows):
            height, width = self.windows.size
            raise ValueError(f"padding_mode reflect needs padding smaller than the image, which is {height} x {width}")
        self.inner = self.windows.on_padded if self.reflects else self.windows
        if not convolution.fits(self.algorithm, self.inner):
            raise ValueError(
                f"algorithm {self.algorithm} cannot do kernel {self.kernel} with stride {self.stride}, "
                f"dilation {self.dilation}, groups {self.groups}"
            )
        shape = (*self.kernel, in_shape[2] // self.groups, self.out_channels)
        self.add_param("weight", shape, for_groups(initializers[self.init], self.groups))
        if self.has_bias:
            self.add_param("bias", (self.out_channels,))
        self.multiply_adds = math.prod(self.windows.out) * math.prod(shape)
        out_shape = (*self.windows.out, self.out_channels)
        way = convolution.choose(self.inner, self.out_channels, self.algorithm)
        per_sample = math.prod(in_shape) + math.prod(out_shape)
        self.is_large = way != "unfold_rows" and self.groups == 1 and is_large(math.prod(shape), per_sample)
        return out_shape

    def forward(self, x: Array, context: Context) -> Array:
        weight, bias = self.params["weight"], self.params.get("bias")
        keep = context.training and not (self.is_large or self.is_frozen)
        if self.reflects:
            x = reflection.pad(x, self.windows)
        if self.is_large:
            x = shards.whole(x)
        with shards.lockstep(self.is_large):
            y, columns = convolution.forward(x, weight, bias, self.inner, self.algorithm, keep=keep)
        self._kept = (x, columns) if context.training else None
        return shards.own(y) if self.is_large else y

    def backward(self, dy: Array) -> Array | None:
        x, columns = self.kept()
        if self.has_bias and not self.is_frozen:
            convolution.bias_gradient(dy, self.grads["bias"])
        if self.is_large:
            dy = shards.whole(dy)
        with shards.lockstep(self.is_large):
            if not self.is_frozen:
                convolution.weight_gradient(x, dy, self.inner, self.grads["weight"], self.algorithm, columns)
            if not self.needs_dx:
                return None
            dx = convolution.input_gradient(dy, self.params["weight"], self.inner, self.algorithm)
        dx = shards.own(dx) if self.is_large else dx
        return reflection.pad_gradient(dx, self.windows) if self.reflects else dx
