"""Pooling: one number for each window of each channel."""

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import pooling
from cnnlite.nn.kernels.geometry import Padding, Pair, Windows, pair, refuse_flat
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import engine
from cnnlite.utils.types import Array, Shape


class _Pool2d(Layer):
    """Options and geometry that max and average pooling share."""

    by_shards = True

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        exact: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        if exact and ceil_mode:
            raise OptionError("exact is of no use with ceil_mode: windows then reach all rows and columns", "exact")
        self.kernel = pair(kernel_size, "kernel_size")
        self.stride = self.kernel if stride is None else pair(stride, "stride")
        if not isinstance(padding, str):
            for k, p in zip(self.kernel, pair(padding, "padding", least=0), strict=True):
                if 2 * p > k:
                    raise OptionError(f"padding {p} is more than half of the kernel size {k}", "padding")
        self.padding = padding
        self.exact = exact
        self.ceil_mode = ceil_mode

    def infer(self, in_shape: Shape) -> Shape:
        self.windows = Windows.fit(
            in_shape, self.kernel, self.stride, self.padding, exact=self.exact, ceil=self.ceil_mode
        )
        return (*self.windows.out, self.windows.channels)


@layers.register("max_pool2d")
class MaxPool2d(_Pool2d):
    """Maximum of each window: ``(N, H, W, C) -> (N, out_h, out_w, C)``, sizes as for conv2d.

    Args:
        kernel_size: height and width of a window; one number for both.
        stride: pixels from one window to the next; the kernel size if left out.
        padding: on each side, or ``same`` or ``valid``; padding never wins.
        exact: refuse an input whose last rows or columns no window reaches.
        ceil_mode: round sizes up; the last windows may reach beyond the image, unless they would begin behind it.
    """

    def forward(self, x: Array, context: Context) -> Array:
        y = pooling.max_forward(x, self.windows)
        self._kept = (x, y) if context.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        x, y = self.kept()
        return pooling.max_backward(dy, x, y, self.windows)


@layers.register("avg_pool2d")
class AvgPool2d(_Pool2d):
    """Mean of each window: ``(N, H, W, C) -> (N, out_h, out_w, C)``, sizes as for conv2d.

    Args:
        kernel_size: height and width of a window; one number for both.
        stride: pixels from one window to the next; the kernel size if left out.
        padding: zeros on each side, which count in the mean, or ``same`` or ``valid``.
        exact: refuse an input whose last rows or columns no window reaches.
        ceil_mode: round sizes up, as for max_pool2d; what is beyond the padding does not count in the mean.
    """

    def forward(self, x: Array, context: Context) -> Array:
        return pooling.average_forward(x, self.windows)

    def backward(self, dy: Array) -> Array | None:
        return pooling.average_backward(dy, self.windows)


@layers.register("adaptive_avg_pool2d")
class AdaptiveAvgPool2d(Layer):
    """Mean of each of ``output_size`` windows, whatever the image's size: ``(N, H, W, C) -> (N, out_h, out_w, C)``.

    Window i of height and of width is from floor(i * in / out) to ceil((i + 1) * in / out). Source: PyTorch.

    Args:
        output_size: height and width of the output; one number for both.
    """

    by_shards = True

    def __init__(self, output_size: Pair):
        super().__init__()
        self.output_size = pair(output_size, "output_size")

    def infer(self, in_shape: Shape) -> Shape:
        refuse_flat(in_shape)
        self.size = in_shape[0], in_shape[1]
        return (*self.output_size, in_shape[2])

    def forward(self, x: Array, context: Context) -> Array:
        return pooling.adaptive_forward(x, self.output_size)

    def backward(self, dy: Array) -> Array | None:
        return pooling.adaptive_backward(dy, self.size)


@layers.register("global_avg_pool2d")
class GlobalAvgPool2d(Layer):
    """Mean of each channel over all pixels: ``(N, H, W, C) -> (N, C)`` (Lin, Chen & Yan 2013, arXiv:1312.4400)."""

    by_shards = True

    def infer(self, in_shape: Shape) -> Shape:
        refuse_flat(in_shape)
        self.in_shape = in_shape
        return in_shape[2:]

    def forward(self, x: Array, context: Context) -> Array:
        pixels = self.in_shape[0] * self.in_shape[1]
        y: Array = np.matmul(np.full(pixels, 1 / pixels, x.dtype), x.reshape(len(x), pixels, -1))
        return y

    def backward(self, dy: Array) -> Array | None:
        height, width, _ = self.in_shape
        dx = engine.empty((len(dy), *self.in_shape), dy.dtype)
        dx[...] = (dy * dy.dtype.type(1 / (height * width)))[:, None, None, :]
        return dx
