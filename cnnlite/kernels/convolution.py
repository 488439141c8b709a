"""Convolution and its gradients: chooses the cheapest algorithm for the shape."""

import numpy as np

from cnnlite.kernels import unfold
from cnnlite.kernels.windows import Windows
from cnnlite.types import Array


def forward(x: Array, weight: Array, bias: Array | None, windows: Windows) -> Array:
    """y[n, i, j, f] = bias[f] + sum over r, s, c of x[n, i*stride + r, j*stride + s, c] * weight[r, s, c, f].

    Args:
        x: images (N, H, W, C), padded as ``windows`` says.
        weight: (kernel_h, kernel_w, C, F). A convolution as the field calls it: a cross-correlation, the kernel is not
            flipped.
        bias: (F,) or None.
        windows: the geometry.

    Returns:
        (N, out_h, out_w, F).
    """
    if unfold.cheaper_by_rows(windows):
        return unfold.forward_rows(x, weight, bias, windows)
    return unfold.forward(x, weight, bias, windows)


def input_gradient(dy: Array, weight: Array, windows: Windows) -> Array:
    """The gradient for ``x``: with stride 1, a convolution of ``dy`` with the kernel turned by 180 degrees."""
    kh, kw = windows.kernel
    top, left = windows.top_left
    if windows.is_pointwise or windows.stride != (1, 1) or top >= kh or left >= kw:
        return unfold.input_gradient_strided(dy, weight, windows)
    (bottom, right), (height, width) = windows.bottom_right, windows.size
    turned = Windows(
        size=windows.out,
        channels=weight.shape[3],
        kernel=windows.kernel,
        stride=(1, 1),
        top_left=(kh - 1 - top, kw - 1 - left),
        bottom_right=(kh - 1 - bottom, kw - 1 - right),
        out=(height, width),
    )
    return forward(dy, np.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2)), None, turned)


def weight_gradient(x: Array, dy: Array, windows: Windows, dweight: Array, dbias: Array | None) -> None:
    """Write the gradients for weight and bias into ``dweight`` and ``dbias``."""
    unfold.weight_gradient(x, dy, windows, dweight, dbias)
