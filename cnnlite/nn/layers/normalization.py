"""Batch normalization."""

import math

import numpy as np

from cnnlite.nn.kernels import normalization
from cnnlite.nn.kernels.normalization import Transform
from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import Layer, layers
from cnnlite.nn.layers.pooling import MaxPool2d
from cnnlite.runtime import distributed
from cnnlite.utils.types import Array, DType, Shape


@layers.register("batch_norm")
class BatchNorm(Layer):
    """Normalize each channel over the batch: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    Any shape ``(N, ..., C)``: flat features, or images, whose statistics are over pixels too. In evaluation the running
    statistics stand in for the batch's. Source: Ioffe & Szegedy 2015, arXiv:1502.03167.

    Args:
        momentum: weight of a new batch in running statistics: running = (1 - momentum) * running + momentum * batch.
        eps: added to the variance, in training and in evaluation.
        affine: whether gamma and beta are trained; without, y is the normalized x.
        scale: whether there is a gamma beside beta; without, it is 1.

    Parameters: ``gamma``, ``beta`` (C,). Buffers: ``running_mean``, ``running_var`` (C,), the latter unbiased.
    """

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True, scale: bool = True):
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], not {momentum}")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be positive, not {eps}")
        self.momentum = momentum
        self.eps = eps
        self.affine = affine
        self.scale = affine and scale
        self.activation: Activation | None = None
        self.pool: MaxPool2d | None = None

    def absorb(self, following: Layer) -> bool:
        """Take on an activation, applied to blocks that have just been normalized, and a max pooling.

        Scale, shift and an activation that never falls keep the order of numbers, or turn it round: so the pooling can
        come first, and all that follows has less to do.
        """
        if isinstance(following, MaxPool2d) and self.pool is None:
            if self.activation is not None and not self.activation.never_falls:
                return False
            self.pool = following
        elif isinstance(following, Activation) and self.activation is None:
            self.activation = following
        else:
            return False
        return True

    def build(self, in_shape: Shape, rng: np.random.Generator, dtype: DType) -> Shape:
        channels = in_shape[-1]
        self.least_batch = 1 if math.prod(in_shape[:-1]) > 1 else 2  # a single number has no variance
        self.activation = self.pool = None
        if self.scale:
            self.add_param("gamma", np.ones(channels, dtype))
        if self.affine:
            self.add_param("beta", np.zeros(channels, dtype))
        self.buffers = {"running_mean": np.zeros(channels, dtype), "running_var": np.ones(channels, dtype)}
        return in_shape

    def forward(self, x: Array, *, training: bool) -> Array:
        if training:
            mean, variance = distributed.current().moments(*normalization.moments(x))
            self._update_running(mean, variance, _numbers(x))
        else:
            mean, variance = (self.buffers[name].astype(np.float64) for name in ("running_mean", "running_var"))
        inv_std = 1 / np.sqrt(variance + self.eps)
        scale = inv_std * self.params["gamma"] if self.scale else inv_std
        shift = self.params["beta"] - mean * scale if self.affine else -mean * scale
        windows = None if self.pool is None else self.pool.windows
        transform = Transform(mean, inv_std, scale, shift, self.activation, windows)
        pooled, y = transform.forward(x)
        self._kept = (x, pooled, y, transform) if training else None
        return y

    def _update_running(self, mean: Array, variance: Array, count: int) -> None:
        unbias = count / max(count - 1, 1)
        for name, value, factor in (("running_mean", mean, 1.0), ("running_var", variance, unbias)):
            running = self.buffers[name]
            running *= 1 - self.momentum
            running += value * (self.momentum * factor)

    def backward(self, dy: Array) -> Array | None:
        x, pooled, y, transform = self.kept()
        dz, own = normalization.parameter_gradients(dy, pooled, y, transform)
        if self.affine:
            self.grads["beta"][...] = own[0]
        if self.scale:
            self.grads["gamma"][...] = own[1]
        sums = distributed.current().batch_sums(own)
        return normalization.input_gradient(dz, x, pooled, sums, _numbers(x), transform)


def _numbers(x: Array) -> int:
    """How many numbers a channel has in the whole batch, of which ``x`` (N, ..., C) is this rank's part."""
    return distributed.current().samples(len(x)) * math.prod(x.shape[1:-1])
