"""Batch normalization."""

import math

import numpy as np

from cnnlite.kernels import normalization
from cnnlite.kernels.normalization import Transform
from cnnlite.kernels.rows import row_length
from cnnlite.layers.activations import Activation
from cnnlite.layers.base import Layer, layers
from cnnlite.layers.pooling import MaxPool2d
from cnnlite.types import Array, DType, Shape


@layers.register("batch_norm")
class BatchNorm(Layer):
    """Normalize each channel over the batch (and over the pixels of images): y = gamma * (x - mean) / sqrt(var + eps) + beta.

    Any shape ``(N, ..., C)``, so it serves images and flat features. In evaluation the running statistics stand in for the
    batch's. Source: Ioffe & Szegedy 2015, arXiv:1502.03167.

    Args:
        momentum: weight of a new batch in the running statistics: running = (1 - momentum) * running + momentum * batch.
        eps: added to the variance, in training and in evaluation.
        affine: whether gamma and beta are trained; without, y is the normalized x.

    Parameters: ``gamma``, ``beta`` (C,). Buffers: ``running_mean``, ``running_var`` (C,), the latter unbiased.
    """  # noqa: E501

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], not {momentum}")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be positive, not {eps}")
        self.momentum = momentum
        self.eps = eps
        self.affine = affine
        self.activation: Activation | None = None
        self.pool: MaxPool2d | None = None
        self._kept: tuple[Array, Array, Transform, Array, Array] | None = None

    def absorb(self, following: Layer) -> bool:
        """Take on an activation, then a max pooling: both work on blocks that have just been normalized."""
        if self.pool is None and isinstance(following, MaxPool2d):
            self.pool = following
        elif self.pool is None and self.activation is None and isinstance(following, Activation):
            self.activation = following
        else:
            return False
        return True

    def build(self, in_shape: Shape, rng: np.random.Generator, dtype: DType) -> Shape:
        channels = in_shape[-1]
        self.activation = self.pool = None
        if self.affine:
            self.params = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
            self.grads = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.buffers = {"running_mean": np.zeros(channels, dtype), "running_var": np.ones(channels, dtype)}
        return in_shape

    def forward(self, x: Array, *, training: bool) -> Array:
        if training:
            mean, variance = normalization.moments(x)
            self._update_running(mean, variance, x.size // x.shape[-1])
        else:
            mean, variance = self.buffers["running_mean"], self.buffers["running_var"].astype(np.float64)
        inv_std = 1 / np.sqrt(variance + self.eps)
        scale = inv_std * self.params["gamma"] if self.affine else inv_std
        shift = self.params["beta"] - mean * scale if self.affine else -mean * scale
        windows = None if self.pool is None else self.pool.windows
        transform = Transform(
            scale.astype(x.dtype), shift.astype(x.dtype), self.activation, windows, row_length(x.shape[1:])
        )
        y = normalization.forward(x, transform)
        self._kept = (x, y, transform, mean, inv_std) if training else None
        return y

    def _update_running(self, mean: Array, variance: Array, count: int) -> None:
        unbiased = variance * (count / max(count - 1, 1))
        for name, value in (("running_mean", mean), ("running_var", unbiased)):
            running = self.buffers[name]
            running[...] = (1 - self.momentum) * running + self.momentum * value

    def backward(self, dy: Array) -> Array | None:
        kept, self._kept = self.kept(self._kept), None
        dx, dgamma, dbeta = normalization.backward(dy, *kept)
        if self.affine:
            self.grads["gamma"][...] = dgamma
            self.grads["beta"][...] = dbeta
        return dx
