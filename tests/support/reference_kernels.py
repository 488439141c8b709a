"""Convolution and pooling written twice more, in float64, for comparison only.

First as loops over every number, as one would explain them; then, for realistic sizes, as a few products over
NumPy's window view, which the loops vouch for. Images are padded by the caller, so windows never leave them.
"""

import itertools

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
    (kh, kw, _, filters), (sh, sw) = weight.shape, windows.stride
    y, dimage, dweight = np.zeros((len(x), *windows.out, filters)), np.zeros_like(image), np.zeros(weight.shape)
    for n in range(len(x)):
        for i, j in itertools.product(*map(range, windows.out)):
            for r, s in itertools.product(range(kh), range(kw)):
                for f in range(filters):
                    pixel = image[n, i * sh + r, j * sw + s]
                    y[n, i, j, f] += pixel @ weight[r, s, :, f]
                    dimage[n, i * sh + r, j * sw + s] += dy[n, i, j, f] * weight[r, s, :, f]
                    dweight[r, s, :, f] += dy[n, i, j, f] * pixel
    return y, crop(dimage, windows), dweight


def convolve(x: Array, weight: Array, dy: Array, windows: Windows) -> tuple[Array, Array, Array]:
    """The same, tap by tap."""
    image = pad(x, windows)
    weight, dy = weight.astype(np.float64), dy.astype(np.float64)
    (kh, kw, _, filters), (sh, sw), (oh, ow) = weight.shape, windows.stride, windows.out
    y, dimage, dweight = np.zeros((len(x), *windows.out, filters)), np.zeros_like(image), np.zeros(weight.shape)
    for r, s in itertools.product(range(kh), range(kw)):
        place = (slice(None), slice(r, r + sh * (oh - 1) + 1, sh), slice(s, s + sw * (ow - 1) + 1, sw))
        y += image[place] @ weight[r, s]
        dimage[place] += dy @ weight[r, s].T
        dweight[r, s] = np.tensordot(image[place], dy, axes=([0, 1, 2], [0, 1, 2]))
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
    """Output and gradient for ``x``; padding counts."""
    image = pad(x, windows)
    (kh, kw), (sh, sw) = windows.kernel, windows.stride
    y, dimage = np.zeros(dy.shape), np.zeros_like(image)
    for n, i, j, c in np.ndindex(dy.shape):
        place = (n, slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw), c)
        y[n, i, j, c] = image[place].sum() / (kh * kw)
        dimage[place] += dy[n, i, j, c] / (kh * kw)
    return y, crop(dimage, windows)
