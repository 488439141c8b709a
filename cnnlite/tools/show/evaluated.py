"""A network whose backward pass is that of evaluation: the gradients of what it computes for one image.

In training, batch norm takes its statistics from the batch, dropout drops, and a residual may leave out its body. One
image is no batch, so here these layers act as in evaluation, and keep what ``backward`` needs all the same: batch norm
is then a scale and a shift of each channel, dropout passes everything on.
"""

from collections.abc import Sequence

import numpy as np

from cnnlite.config.load import Config
from cnnlite.nn.kernels import normalization
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Residual
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.network import Network, inferred
from cnnlite.utils.types import Array


class _BatchNorm(BatchNorm):
    def forward(self, x: Array, context: Context) -> Array:
        mean, inv_std = self.statistics(x, Context())
        scale, shift = self.scale_and_shift(mean, inv_std)
        self._kept = (x, mean, inv_std, scale) if context.training else None
        return normalization.forward(x, scale, shift)

    def backward(self, dy: Array) -> Array | None:
        x, mean, inv_std, scale = self.kept()
        self.batch_sums(normalization.parameter_gradients(dy, x, mean, inv_std), x, Context())
        return normalization.forward(dy, scale, np.zeros_like(scale))


class _Dropout(Dropout):
    def forward(self, x: Array, context: Context) -> Array:
        return x

    def backward(self, dy: Array) -> Array | None:
        return dy


class _Residual(Residual):
    def factors(self, context: Context) -> Sequence[float]:
        return 1.0, 1.0


_TWINS: dict[type[Layer], type[Layer]] = {BatchNorm: _BatchNorm, Dropout: _Dropout, Residual: _Residual}


def evaluated(network: Network, config: Config) -> Layer:
    """Build the model of a network again, with the same arrays: no fused layers, and backward as in evaluation.

    Gradients reach the image. Convolutions are computed by im2col, as sums of products: Winograd's algorithm, which
    training may choose, has other intermediate results and larger rounding errors.
    """
    model = inferred(config.model, network.in_shape)
    for (_, own), (_, trained) in zip(model.walk(), network.model.walk(), strict=True):
        own.params = {name: array.copy() for name, array in trained.params.items()}
        own.grads = {name: np.zeros_like(array) for name, array in trained.params.items()}
        own.buffers = {name: array.copy() for name, array in trained.buffers.items()}
        for name in vars(trained).keys() - set(dir(own)):  # what `allocate` adds, such as the seeds of random layers
            setattr(own, name, getattr(trained, name))
        if isinstance(own, Conv2d):
            own.algorithm = "unfold"
        own.__class__ = _TWINS.get(type(own), type(own))
    return model


def class_of(layer: Layer) -> type[Layer]:
    """Class of a layer of an `evaluated` model, as the config named it."""
    return next((known for known, twin in _TWINS.items() if type(layer) is twin), type(layer))
