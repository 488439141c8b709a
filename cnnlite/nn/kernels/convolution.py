"""Convolution and its gradients, by the cheapest algorithm for the shape."""

import math
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from cnnlite.nn.kernels import depthwise, im2col, winograd
from cnnlite.nn.kernels.channelwise import channel_sums, row_length
from cnnlite.nn.kernels.geometry import Axis, Windows
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array

Algorithm: TypeAlias = Literal["auto", "unfold", "unfold_rows", "winograd", "depthwise"]

COPY, TRANSFORM = 8, 1.6
"""Costs in `choose`, measured."""
LEAST_COPIED, LEAST_HEIGHT = 16, 8
"""Numbers in a row of a window, and rows of the output; with fewer, `unfold_rows` takes longer than its costs say."""
PREPARED_BYTES = 2**21
"""Largest weights that are kept transformed, which takes four times as many bytes."""
FEW_CHANNELS = 16
"""With at most so many, adding windows to pixels (col2im) takes longer than multiplying by zeros."""


def fits(algorithm: Algorithm, windows: Windows) -> bool:
    """True if ``algorithm`` supports convolutions of this geometry."""
    if algorithm == "winograd":
        return winograd.fits(windows)
    if algorithm == "depthwise":
        return depthwise.fits(windows)
    return algorithm != "unfold_rows" or (windows.stride[0] == 1 and windows.groups == 1)


@lru_cache(maxsize=1024)
def choose(windows: Windows, filters: int, algorithm: Algorithm = "auto") -> Algorithm:
    """Choose the algorithm: the given one, or for ``auto`` the one of least cost.

    Costs are multiply-adds of a large matrix product per image; copying one number costs as much as `COPY` of them, and
    the small products of Winograd's transforms run at 1 / `TRANSFORM` of the speed of large ones.
    """
    if algorithm != "auto":
        return algorithm
    if depthwise.fits(windows):
        return "depthwise"
    if windows.is_reshape:
        return "unfold"
    kh, kw = windows.kernel
    channels, pixels = windows.channels, math.prod(windows.out)
    direct = pixels * kh * kw * channels * filters // windows.groups
    costs: dict[Algorithm, float] = {"unfold": direct + COPY * pixels * kh * kw * channels}
    if fits("unfold_rows", windows) and kw * channels >= LEAST_COPIED and windows.out[0] >= LEAST_HEIGHT:
        sums = 2 * COPY * (kh - 1) * pixels * filters
        costs["unfold_rows"] = direct + COPY * windows.padded[0] * windows.out[1] * kw * channels + sums
    if fits("winograd", windows):
        tiles = math.prod(winograd.tile_counts(windows))
        # For the input, 6 multiply-adds for each of 36 numbers, twice: as slow, in such small products, as 26.
        transforms = 26 * 36 * channels + 16 * 36 * filters
        copies = 36 * channels + 16 * filters + 36 * filters
        costs["winograd"] = tiles * (36 * channels * filters + TRANSFORM * transforms + COPY * copies)
    return min(costs, key=lambda name: costs[name])


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    windows: Windows,
    algorithm: Algorithm = "auto",
    *,
    keep: bool = False,
) -> tuple[Array, Array | None]:
    """Convolve ``x`` with ``weight`` and add ``bias``.

    y[n, i, j, f] = bias[f] + sum over r, s, c of x[n, i*stride + r, j*stride + s, c] * weight[r, s, c, f]; with
    dilation, r * dilation and s * dilation in x; with groups, for channels c of the group of f.

    ``x`` is (N, H, W, C), padded as ``windows`` say; ``weight`` (kernel_h, kernel_w, C / groups, F); ``bias`` (F,); the
    result (N, out_h, out_w, F). A convolution as the field calls it: a cross-correlation, the kernel is not flipped.

    Returns:
        y, and with ``keep`` the im2col matrix for `weight_gradient`; None if it is large or was not computed.
    """
    algorithm = choose(windows, weight.shape[-1], algorithm)
    if algorithm == "winograd":
        return winograd.forward(x, weight, bias, windows), None
    if algorithm == "unfold_rows":
        return im2col.forward_rows(x, weight, bias, windows), None
    if algorithm == "depthwise":
        return depthwise.forward(x, weight, bias, windows), None
    return im2col.forward(x, weight, bias, windows, keep=keep)


def prepared(weight: Array, windows: Windows, algorithm: Algorithm = "auto") -> Array:
    """Transform ``weight`` as `forward` would, for many calls; `forward` alone takes the result, in its place."""
    is_transformed = choose(windows, weight.shape[3], algorithm) == "winograd" and weight.nbytes <= PREPARED_BYTES
    return winograd.transform_weight(weight) if is_transformed else weight


def input_gradient(dy: Array, weight: Array, windows: Windows, algorithm: Algorithm = "auto") -> Array:
    """Gradient with respect to ``x``: a convolution of ``dy``.

    On the padded image, dx[i*s + a] = sum over r of dy[i - r] * weight[r*s + a] for each phase a < s (of each axis):
    for all phases together one convolution of stride 1 with the kernel turned by 180 degrees and s * s * C outputs.
    Zeros fill up the kernel where the stride does not divide its size; with many channels that is more work than adding
    each window's gradient to its pixels (col2im).
    """
    turned = None if windows.is_reshape else _turned(windows, weight.shape[3])
    if turned is None:
        return im2col.input_gradient(dy, weight, windows)
    (kh, kw), (sh, sw), (channels, filters), groups = turned.kernel, windows.stride, weight.shape[2:], windows.groups
    if (kh * sh, kw * sw) != windows.kernel:
        whole = np.zeros((kh * sh, kw * sw, channels, filters), weight.dtype)
        whole[: windows.kernel[0], : windows.kernel[1]] = weight
        weight = whole
    phases = weight.reshape(kh, sh, kw, sw, channels, groups, -1)[::-1, :, ::-1].transpose(0, 2, 6, 5, 1, 3, 4)
    kernel = np.ascontiguousarray(phases).reshape(kh, kw, filters // groups, -1)
    z, _ = forward(dy, kernel, None, turned, algorithm if fits(algorithm, turned) else "auto")
    if (sh, sw) == (1, 1):
        return z
    dx = engine.empty((len(dy), *windows.size, windows.channels), dy.dtype)
    (top, left), (height, width), (out_h, out_w) = windows.top_left, windows.size, turned.out

    def block(start: int, stop: int) -> None:
        n = stop - start
        image = engine.scratch("convolution.image", (n, out_h, sh, out_w, sw, groups, channels), dy.dtype)
        phases = z[start:stop].reshape(n, out_h, out_w, groups, sh, sw, channels)
        np.copyto(image, phases.transpose(0, 1, 4, 2, 5, 3, 6))
        whole = image.reshape(n, out_h * sh, out_w * sw, windows.channels)
        dx[start:stop] = whole[:, top % sh : top % sh + height, left % sw : left % sw + width]

    engine.for_blocks(block, len(dy), 3 * dx[0].nbytes)
    return dx


@lru_cache(maxsize=1024)
def _turned(windows: Windows, filters: int) -> Windows | None:
    """Geometry of the convolution in `input_gradient`; None where col2im is to be used."""
    axes = []
    for size, kernel, stride, top, out, dilation in zip(
        windows.size, windows.kernel, windows.stride, windows.top_left, windows.out, windows.dilation, strict=True
    ):
        k = -(-kernel // stride)
        first, end = top // stride, -(-(top + size) // stride)
        before, after = (k - 1) * dilation - first, end - out
        if stride > kernel or min(before, after) < 0 or (stride > 1 and dilation > 1):
            return None
        if windows.channels // windows.groups > FEW_CHANNELS and k * stride != kernel:
            return None
        axes.append(Axis(out, k, 1, before, after, end - first, dilation))
    return Windows.of_axes(filters, *axes, groups=windows.groups)


def weight_gradient(
    x: Array, dy: Array, windows: Windows, dweight: Array, algorithm: Algorithm = "auto", columns: Array | None = None
) -> None:
    """Write the gradient of the weights to ``dweight``; ``columns`` is the im2col matrix that `forward` kept."""
    algorithm = choose(windows, dweight.shape[3], algorithm)
    if algorithm == "winograd":
        winograd.weight_gradient(x, dy, windows, dweight)
    elif algorithm == "unfold_rows":
        im2col.weight_gradient_rows(x, dy, windows, dweight)
    elif algorithm == "depthwise":
        depthwise.weight_gradient(x, dy, windows, dweight)
    else:
        im2col.weight_gradient(x, dy, windows, dweight, columns)


def bias_gradient(dy: Array, dbias: Array) -> None:
    """Write the sum of ``dy`` (N, ..., F) over all axes but the last to ``dbias`` (F,)."""
    length = row_length(dy.shape[1:])

    def block(start: int, stop: int) -> Array:
        return channel_sums(dy[start:stop].reshape(-1, length), len(dbias))

    sums = shards.for_shards(block, len(dy), dy[0].nbytes)
    dbias[...] = shards.sum_by_pairs(np.array([np.add.reduce(parts, axis=0) for parts in sums]))
