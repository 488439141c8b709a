"""Normalization of each sample by itself: of the channels of each pixel, or of groups of channels over all pixels.

Layer normalization (Ba, Kiros & Hinton 2016, arXiv:1607.06450) and group normalization (Wu & He 2018,
arXiv:1803.08494): xhat = (x - mean) * inv_std, y = xhat * gamma + beta, inv_std = 1 / sqrt(variance + eps), with the
biased variance. ``gamma`` and ``beta`` are (C,), or None for 1 and 0. With g = dy * gamma, and means over what was
normalized together,

    dx = inv_std * (g - mean(g) - xhat * mean(g * xhat)).

Each block of samples is read once; all passes after that are in the cache.
"""

import math

import numpy as np

from cnnlite.nn.kernels.channelwise import (
    channel_rows,
    channel_sums,
    per_row,
    pixel_sums,
    repeated,
    row_length,
)
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array


def layer_forward(x: Array, gamma: Array | None, beta: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """Normalize the channels of each pixel of ``x`` (N, ..., C); returns y, and mean and inv_std (N, ..., 1)."""
    y = engine.empty(x.shape, x.dtype)
    mean, inv_std = (engine.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    share = np.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)
    affine = _affine_rows(x, gamma, beta)

    def block(start: int, stop: int) -> None:
        part, out, m, s = (array[start:stop].reshape(-1, array.shape[-1]) for array in (x, y, mean, inv_std))
        np.matmul(part, share, out=m)
        np.subtract(part, m, out=out)
        squares = engine.scratch("normalization.squares", out.shape, out.dtype)
        np.matmul(np.multiply(out, out, out=squares), share, out=s)
        _invert(s, eps)
        out *= s
        if affine is not None:
            rows = y[start:stop].reshape(-1, affine.shape[1])
            rows *= affine[0]
            rows += affine[1]

    shards.for_shards(block, len(x), 3 * x[0].nbytes)
    return y, mean, inv_std


def layer_backward(dy: Array, x: Array, mean: Array, inv_std: Array, gamma: Array | None) -> tuple[Array, Array]:
    """Gradient with respect to ``x``, and dbeta and dgamma of each shard, (shards, 2, C) in float64."""
    channels = x.shape[-1]
    dx = engine.empty(x.shape, x.dtype)
    scale = np.ones(channels, x.dtype) if gamma is None else gamma
    share = scale[:, None] * x.dtype.type(1 / channels)
    scales = per_row(row_length(x.shape[1:]), x.dtype, scale)[0]

    def block(start: int, stop: int) -> tuple[Array, Array]:
        gradient, part, m, s, out = (
            array[start:stop].reshape(-1, array.shape[-1]) for array in (dy, x, mean, inv_std, dx)
        )
        xhat, products = (engine.scratch(f"normalization.{name}", part.shape, part.dtype) for name in ("xhat", "part"))
        np.subtract(part, m, out=xhat)
        xhat *= s
        np.multiply(gradient, xhat, out=products)
        sums = channel_sums(gradient, channels), channel_sums(products, channels)
        xhat *= np.matmul(products, share)
        if gamma is None:
            np.subtract(gradient, xhat, out=out)
        else:
            np.multiply(gradient.reshape(-1, len(scales)), scales, out=out.reshape(-1, len(scales)))
            out -= xhat
        out -= np.matmul(gradient, share)
        out *= s
        return sums

    found = shards.for_shards(block, len(x), 5 * x[0].nbytes)
    return dx, _sums(found)


def group_forward(
    x: Array, groups: int, gamma: Array | None, beta: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Normalize ``groups`` of neighbouring channels of ``x`` (N, ..., C) over all pixels of a sample.

    Returns:
        y, and mean and inv_std of the channels' groups, (N, C).
    """
    channels = x.shape[-1]
    y = engine.empty(x.shape, x.dtype)
    mean, inv_std = (engine.empty((len(x), channels), x.dtype) for _ in range(2))
    numbers = math.prod(x.shape[1:]) // groups
    shift = None if beta is None else per_row(channel_rows(x[:1]).shape[-1], x.dtype, beta)[0]

    def block(start: int, stop: int) -> None:
        part, out = channel_rows(x[start:stop]), channel_rows(y[start:stop])
        m, s = mean[start:stop], inv_std[start:stop]
        m[...] = _over_groups(pixel_sums(part, channels), groups, numbers)
        np.subtract(part, repeated(m, part.shape[-1], "normalization.row"), out=out)
        squares = engine.scratch("normalization.squares", out.shape, out.dtype)
        s[...] = _over_groups(pixel_sums(np.multiply(out, out, out=squares), channels), groups, numbers)
        _invert(s, eps)
        out *= repeated(s if gamma is None else s * gamma, part.shape[-1], "normalization.row")
        if shift is not None:
            out += shift

    shards.for_shards(block, len(x), 3 * x[0].nbytes)
    return y, mean, inv_std


def group_backward(
    dy: Array, x: Array, groups: int, mean: Array, inv_std: Array, gamma: Array | None
) -> tuple[Array, Array]:
    """Gradient with respect to ``x``, and dbeta and dgamma of each shard, (shards, 2, C) in float64."""
    channels = x.shape[-1]
    dx = engine.empty(x.shape, x.dtype)
    numbers = math.prod(x.shape[1:]) // groups
    scale = np.ones(channels, x.dtype) if gamma is None else gamma

    def block(start: int, stop: int) -> tuple[Array, Array]:
        gradient, part, out = (channel_rows(array[start:stop]) for array in (dy, x, dx))
        m, s, length = mean[start:stop], inv_std[start:stop], part.shape[-1]
        centred = engine.scratch("normalization.xhat", part.shape, part.dtype)
        np.subtract(part, repeated(m, length, "normalization.row"), out=centred)
        dbeta = pixel_sums(gradient, channels)
        dgamma = pixel_sums(np.multiply(gradient, centred, out=out), channels) * s
        slope = _over_groups(dgamma * scale, groups, numbers) * s * s
        offset = _over_groups(dbeta * scale, groups, numbers) * s
        np.multiply(gradient, repeated(s * scale, length, "normalization.row"), out=out)
        centred *= repeated(slope, length, "normalization.row")
        out -= centred
        out -= repeated(offset, length, "normalization.row")
        return np.add.reduce(dbeta, axis=0), np.add.reduce(dgamma, axis=0)

    found = shards.for_shards(block, len(x), 4 * x[0].nbytes)
    return dx, _sums(found)


def _affine_rows(x: Array, gamma: Array | None, beta: Array | None) -> Array | None:
    """Gamma and beta repeated to long rows, (2, length); None without them."""
    if gamma is None or beta is None:
        return None
    return per_row(row_length(x.shape[1:]), x.dtype, gamma, beta)


def _invert(variance: Array, eps: float) -> None:
    """Turn ``variance`` into 1 / sqrt(variance + eps), in place."""
    variance += variance.dtype.type(eps)
    np.sqrt(variance, out=variance)
    np.reciprocal(variance, out=variance)


def _over_groups(channels: Array, groups: int, numbers: int) -> Array:
    """Replace the sums of each channel, (n, C), by the mean of its group, of so many ``numbers``."""
    grouped = channels.reshape(len(channels), groups, -1)
    means = grouped.sum(axis=2, keepdims=True) * channels.dtype.type(1 / numbers)
    return np.broadcast_to(means, grouped.shape).reshape(channels.shape)


def _sums(found: list[list[tuple[Array, Array]]]) -> Array:
    """Sums of a shard's blocks, (shards, 2, C) in float64."""
    return np.array([np.add.reduce(np.array(parts, np.float64), axis=0) for parts in found])
