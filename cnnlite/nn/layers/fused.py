"""Fused layers, which `fusion` puts in the place of neighbouring ones."""

from cnnlite.nn.kernels import fused
from cnnlite.nn.kernels.fused import Epilogue
from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import MaxPool2d
from cnnlite.utils.types import Array


class FusedBatchNorm(BatchNorm):
    """Batch norm fused with the activation and the max pooling that follow, in either order.

    Args:
        norm: the batch norm, whose options, shapes and arrays it takes over.
        activation: applied to blocks that have just been normalized.
        pool: applied before everything else.
    """

    def __init__(self, norm: BatchNorm, activation: Activation | None, pool: MaxPool2d | None):
        vars(self).update(vars(norm))
        self.activation, self.pool = activation, pool
        self._fixed: Epilogue | None = None

    def forward(self, x: Array, context: Context) -> Array:
        fixed = None if context.training else self._fixed
        epilogue = self._epilogue(*self.statistics(x, context)) if fixed is None else fixed
        pooled, y = epilogue.forward(x)
        self._kept = (x, pooled, y, epilogue, context) if context.training else None
        return y

    def _epilogue(self, mean: Array, inv_std: Array) -> Epilogue:
        windows = None if self.pool is None else self.pool.windows
        return Epilogue(mean, inv_std, *self.scale_and_shift(mean, inv_std), self.activation, windows)

    def fix(self) -> None:
        self._fixed = self._epilogue(*self.running_statistics())

    def backward(self, dy: Array) -> Array | None:
        x, pooled, y, epilogue, context = self.kept()
        dz, own = fused.parameter_gradients(dy, pooled, y, epilogue)
        return fused.input_gradient(dz, x, pooled, *self.batch_sums(own, x, context), epilogue)
