"""Batch normalization; its arithmetic is in `kernels.normalization`."""

import math

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import normalization
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import engine, shards
from cnnlite.utils.types import Array, Shape


@layers.register("batch_norm")
class BatchNorm(Layer):
    """Normalize each channel over the batch: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    Any shape ``(N, ..., C)``: flat features, or images, whose statistics are over pixels too. In evaluation the running
    statistics stand in for the batch's; in training too, and without a change, where ``train.freeze`` names all
    parameters of the layer. Source: Ioffe & Szegedy 2015, arXiv:1502.03167.

    Args:
        momentum: weight of a new batch in running statistics: running = (1 - momentum) * running + momentum * batch.
        eps: added to the variance, in training and in evaluation.
        affine: train gamma and beta; without, y is the normalized x.
        scale: train gamma beside beta; without, gamma is 1.

    Parameters: ``gamma``, ``beta`` (C,). Buffers: ``running_mean``, ``running_var`` (C,), the latter unbiased.
    """

    by_shards = True

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True, scale: bool = True):
        super().__init__()
        if not 0 < momentum <= 1:
            raise OptionError(f"momentum must be in (0, 1], not {momentum}", "momentum")
        if not 0 < eps < math.inf:
            raise OptionError(f"eps must be positive, not {eps}", "eps")
        self.momentum = momentum
        self.eps = eps
        self.affine = affine
        self.scale = affine and scale

    def infer(self, in_shape: Shape) -> Shape:
        channels = in_shape[-1:]
        self.least_batch = 1 if math.prod(in_shape[:-1]) > 1 else 2  # a single number has no variance
        if self.scale:
            self.add_param("gamma", channels, 1.0)
        if self.affine:
            self.add_param("beta", channels)
        self.add_buffer("running_mean", channels)
        self.add_buffer("running_var", channels, 1.0)
        return in_shape

    def forward(self, x: Array, context: Context) -> Array:
        mean, inv_std = self.statistics(x, context)
        scale, shift = self.scale_and_shift(mean, inv_std)
        self._kept = (x, mean, inv_std, scale, context) if context.training else None
        return normalization.forward(x, scale, shift)

    def statistics(self, x: Array, context: Context) -> tuple[Array, Array]:
        """Mean and 1 / sqrt(var + eps) of each channel, (C,) in float64: of the batch in training, else running."""
        if context.training and not self.is_fixed:
            rows = context.ranks.gather(normalization.moments(x))
            mean, variance = normalization.mean_and_variance(rows)
            if engine.team().index == 0:  # workers share the buffers
                self._update_running(mean, variance, _numbers(x, context))
            return mean, 1 / np.sqrt(variance + self.eps)
        return self.running_statistics()

    def running_statistics(self) -> tuple[Array, Array]:
        """Mean and 1 / sqrt(var + eps) of each channel that stand in for the batch's, (C,) in float64."""
        mean, variance = (self.buffers[name].astype(np.float64) for name in ("running_mean", "running_var"))
        return mean, 1 / np.sqrt(variance + self.eps)

    def scale_and_shift(self, mean: Array, inv_std: Array) -> tuple[Array, Array]:
        """Scale and shift of batch norm as y = x * scale + shift, both (C,) in float64."""
        scale = inv_std * self.params["gamma"] if self.scale else inv_std
        return scale, self.params["beta"] - mean * scale if self.affine else -mean * scale

    def _update_running(self, mean: Array, variance: Array, count: int) -> None:
        unbias = count / max(count - 1, 1)
        for name, value, factor in (("running_mean", mean, 1.0), ("running_var", variance, unbias)):
            running = self.buffers[name]
            running *= 1 - self.momentum
            running += value * (self.momentum * factor)

    def backward(self, dy: Array) -> Array | None:
        x, mean, inv_std, scale, context = self.kept()
        own = normalization.parameter_gradients(dy, x, mean, inv_std)
        slope, offset = normalization.slope_and_offset(*self.batch_sums(own, x, context), mean, inv_std, scale)
        return normalization.input_gradient(dy, x, scale, slope, offset)

    def batch_sums(self, rows: Array, x: Array, context: Context) -> tuple[Array, int]:
        """Write the gradients of beta and gamma, given those of each shard, (shards, 2, C).

        Returns:
            Their sums over the whole batch, and the number of values per channel in it; sums of 0 where the statistics
            are not the batch's, so that nothing flows back through them.
        """
        if self.is_fixed:
            return np.zeros(rows.shape[1:]), _numbers(x, context)
        own = shards.sum_by_pairs(rows.astype(x.dtype))
        if self.affine:
            self.grads["beta"][...] = own[0]
        if self.scale:
            self.grads["gamma"][...] = own[1]
        # Where a sample stands in without counting, nothing may flow back from the others.
        return context.ranks.gather(rows).sum(axis=0) * context.ranks.counts, _numbers(x, context)


def _numbers(x: Array, context: Context) -> int:
    """Number of values per channel in the whole batch, of which ``x`` (N, ..., C) may be a part."""
    return context.ranks.samples(len(x)) * math.prod(x.shape[1:-1])
