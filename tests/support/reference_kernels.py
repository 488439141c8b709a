"""Convolution and pooling written twice more, in float64, for comparison only.

First as loops over every number, as one would explain them; then, for realistic sizes, as a few products over
NumPy's window view, which the loops vouch for. Images are padded by the caller, so windows never leave them.
"""

import itertools
import math
from fractions import Fraction

import numpy as np

from cnnlite.nn.kernels.geometry import Windows
from cnnlite.utils.types import Array


def pad(x: Array, windows: Windows, value: float = 0.0) -> Array:
    """``x`` in float64 with a border."""
    (top, left), (bottom, right) = windows.top_left, windows.bottom_right
    edges = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x.astype(np.float64), edges, constant_values=value)


def crop(image: Array, windows: Windows) -> Array:
    """What is left of a padded image without its border."""
    (top, left), (height, width) = windows.top_left, windows.size
    return image[:, top : top + height, left : left + width]


def convolve_by_loops(x: Array, weight: Array, dy: Array, windows: Windows) -> tuple[Array, Array, Array]:
    """Output, gradient for ``x`` and gradient for ``weight``: six loops around one multiplication."""
    image = pad(x, windows)
    (kh, kw, channels, filters), (sh, sw), (dh, dw) = weight.shape, windows.stride, windows.dilation
    y, dimage, dweight = np.zeros((len(x), *windows.out, filters)), np.zeros_like(image), np.zeros(weight.shape)
    for n in range(len(x)):
        for i, j in itertools.product(*map(range, windows.out)):
            for r, s in itertools.product(range(kh), range(kw)):
                for f in range(filters):
                    first = f // (filters // windows.groups) * channels  # of the channels in the group of f
                    pixel = (n, i * sh + r * dh, j * sw + s * dw, slice(first, first + channels))
                    y[n, i, j, f] += image[pixel] @ weight[r, s, :, f]
                    dimage[pixel] += dy[n, i, j, f] * weight[r, s, :, f]
                    dweight[r, s, :, f] += dy[n, i, j, f] * image[pixel]
    return y, crop(dimage, windows), dweight


def convolve(x: Array, weight: Array, dy: Array, windows: Windows) -> tuple[Array, Array, Array]:
    """The same, tap by tap and group by group."""
    image = pad(x, windows)
    weight, dy = weight.astype(np.float64), dy.astype(np.float64)
    (kh, kw, _, filters), (sh, sw), (oh, ow) = weight.shape, windows.stride, windows.out
    y, dimage, dweight = np.zeros((len(x), *windows.out, filters)), np.zeros_like(image), np.zeros(weight.shape)
    groups = [np.split(array, windows.groups, axis=3) for array in (image, weight, dy, y, dimage, dweight)]  # views
    for a, w, d, out, da, dw in zip(*groups, strict=True):
        for r, s in itertools.product(range(kh), range(kw)):
            top, left = r * windows.dilation[0], s * windows.dilation[1]
            place = (slice(None), slice(top, top + sh * (oh - 1) + 1, sh), slice(left, left + sw * (ow - 1) + 1, sw))
            out += a[place] @ w[r, s]
            da[place] += d @ w[r, s].T
            dw[r, s] = np.tensordot(a[place], d, axes=([0, 1, 2], [0, 1, 2]))
    return y, crop(dimage, windows), dweight


def max_pool_by_loops(x: Array, dy: Array, windows: Windows) -> tuple[Array, Array]:
    """Output and gradient for ``x``; of equal numbers, the first in reading order is the greatest."""
    image = pad(x, windows, -np.inf)
    (kh, kw), (sh, sw) = windows.kernel, windows.stride
    y, dimage = np.zeros(dy.shape), np.zeros_like(image)
    for n, i, j, c in np.ndindex(dy.shape):
        window = image[n, i * sh : i * sh + kh, j * sw : j * sw + kw, c]
        row, column = np.unravel_index(np.argmax(window), window.shape)
        y[n, i, j, c] = window[row, column]
        dimage[n, i * sh + row, j * sw + column, c] += dy[n, i, j, c]
    return y, crop(dimage, windows)


def average_pool_by_loops(x: Array, dy: Array, windows: Windows) -> tuple[Array, Array]:
    """Output and gradient for ``x``; padding counts, what is beyond it does not."""
    image = pad(x, windows)
    (kh, kw), (sh, sw) = windows.kernel, windows.stride
    bottom, right = (size - beyond for size, beyond in zip(windows.padded, windows.overhang, strict=True))
    y, dimage = np.zeros(dy.shape), np.zeros_like(image)
    for n, i, j, c in np.ndindex(dy.shape):
        place = (n, slice(i * sh, min(i * sh + kh, bottom)), slice(j * sw, min(j * sw + kw, right)), c)
        y[n, i, j, c] = image[place].mean()
        dimage[place] += dy[n, i, j, c] / image[place].size
    return y, crop(dimage, windows)


def adaptive_average_by_loops(x: Array, dy: Array) -> tuple[Array, Array]:
    """Output and gradient for ``x``: means of the windows from floor(i * in / out) to ceil((i + 1) * in / out)."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for n, i, j, c in np.ndindex(dy.shape):
        edges = [
            (math.floor(Fraction(k * size, out)), math.ceil(Fraction((k + 1) * size, out)))
            for k, size, out in zip((i, j), x.shape[1:3], dy.shape[1:3], strict=True)
        ]
        place = (n, *(slice(*edge) for edge in edges), c)
        y[n, i, j, c] = x[place].mean()
        dx[place] += dy[n, i, j, c] / x[place].size
    return y, dx


def reflect_by_loops(x: Array, dpadded: Array, windows: Windows) -> tuple[Array, Array]:
    """Mirrored padding and the gradient for ``x``: walk from pixel to pixel, and turn at the edge."""
    padded, dx = np.zeros(dpadded.shape), np.zeros(x.shape)

    def source(place: int, before: int, size: int) -> int:
        at, step = 0, -1 if place < before else 1
        for _ in range(abs(place - before)):
            if not 0 <= at + step < size:
                step = -step
            at += step
        return at

    for i, j in itertools.product(*map(range, windows.padded)):
        row, column = (source(p, *axis) for p, *axis in zip((i, j), windows.top_left, windows.size, strict=True))
        padded[:, i, j] = x[:, row, column]
        dx[:, row, column] += dpadded[:, i, j]
    return padded, dx
