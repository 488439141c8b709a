"""Products of branches, number by number; gates, which have one number for each channel, multiply all pixels.

Squeeze-and-excitation is such a product of maps (N, H, W, C) and a gate (N, 1, 1, C) or (N, C): Hu et al. 2017,
arXiv:1709.01507.
"""

from collections.abc import Sequence

import numpy as np

from cnnlite.nn.kernels.channelwise import channel_rows, pixel_sums, repeated
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array


def multiply(factors: Sequence[Array]) -> Array:
    """Multiply ``factors``, maps (N, ..., C) and gates, to (N, ..., C), not in place."""
    if len(factors) == 1:
        return factors[0]
    largest = max(factors, key=lambda factor: (factor.size, factor.ndim))
    y = engine.empty(largest.shape, largest.dtype)

    def block(start: int, stop: int) -> None:
        _write_product([factor[start:stop] for factor in factors], y[start:stop])

    engine.for_blocks(block, len(y), (len(factors) + 1) * y[0].nbytes)
    return y


def gradient(dy: Array, factors: Sequence[Array], index: int) -> Array:
    """Gradient with respect to factor ``index``: ``dy`` times the others, for a gate summed over all pixels."""
    factor = factors[index]
    others = [dy, *factors[:index], *factors[index + 1 :]]
    if factor.size == dy.size:
        return multiply(others).reshape(factor.shape)
    out = engine.empty(factor.shape, dy.dtype)

    def block(start: int, stop: int) -> None:
        part = engine.scratch("products.part", dy[start:stop].shape, dy.dtype)
        _write_product([other[start:stop] for other in others], part)
        out[start:stop] = pixel_sums(channel_rows(part), dy.shape[-1]).reshape(out[start:stop].shape)

    shards.for_shards(block, len(dy), (len(factors) + 1) * dy[0].nbytes)
    return out


def _write_product(factors: Sequence[Array], out: Array) -> None:
    """Write the product of blocks of two or more ``factors`` to ``out`` (n, ..., C)."""
    rows = channel_rows(out)
    first, second, *others = sorted(factors, key=lambda factor: -factor.size)  # there is a map among them
    np.multiply(_rows_of(first, out), _rows_of(second, out), out=rows)
    for other in others:
        rows *= _rows_of(other, out)


def _rows_of(factor: Array, out: Array) -> Array:
    """View a factor as rows like those of ``out``; those of a gate are its numbers, repeated to that length."""
    if factor.size == out.size:
        return channel_rows(factor.reshape(out.shape))
    return repeated(factor.reshape(len(factor), -1), channel_rows(out).shape[-1], "products.gate")
