"""Layer and group normalization: statistics of a sample alone; the arithmetic is in `kernels.sample_normalization`."""

import math
from abc import abstractmethod

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import sample_normalization
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import shards
from cnnlite.utils.types import Array, Shape


class _SampleNorm(Layer):
    """Options and parameters that layer and group normalization share."""

    by_shards = True

    def __init__(self, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if not 0 < eps < math.inf:
            raise OptionError(f"eps must be positive, not {eps}", "eps")
        self.eps = eps
        self.affine = affine

    def infer(self, in_shape: Shape) -> Shape:
        self.in_shape = in_shape
        if self.affine:
            self.add_param("gamma", in_shape[-1:], 1.0)
            self.add_param("beta", in_shape[-1:])
        return in_shape

    def forward(self, x: Array, context: Context) -> Array:
        y, mean, inv_std = self.normalized(x)
        self._kept = (x, mean, inv_std) if context.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        dx, sums = self.gradients(dy, *self.kept())
        if self.affine:
            self.grads["beta"][...], self.grads["gamma"][...] = shards.sum_by_pairs(sums.astype(dy.dtype))
        return dx

    @abstractmethod
    def normalized(self, x: Array) -> tuple[Array, Array, Array]:
        """Output, mean and 1 / sqrt(var + eps)."""

    @abstractmethod
    def gradients(self, dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
        """Gradient of the input, and those of beta and gamma of each shard, (shards, 2, C)."""


@layers.register("layer_norm")
class LayerNorm(_SampleNorm):
    """Normalize the channels of each pixel: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    Any shape ``(N, ..., C)``, with mean and variance over C alone: over the features of ``(N, features)``, and over the
    channels of each pixel of ``(N, H, W, C)``, as in ConvNeXt; both are PyTorch's ``LayerNorm(C)`` of channels-last
    arrays. Over pixels too: ``group_norm`` with one group. Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450.

    Args:
        eps: added to the variance.
        affine: train gamma and beta; without, y is the normalized x.

    Parameters: ``gamma``, ``beta`` (C,).
    """

    def normalized(self, x: Array) -> tuple[Array, Array, Array]:
        return sample_normalization.layer_forward(x, self.params.get("gamma"), self.params.get("beta"), self.eps)

    def gradients(self, dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
        return sample_normalization.layer_backward(dy, x, mean, inv_std, self.params.get("gamma"))


@layers.register("group_norm")
class GroupNorm(_SampleNorm):
    """Normalize groups of channels over all pixels of a sample: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    Any shape ``(N, ..., C)``; mean and variance are over the pixels and the C / num_groups neighbouring channels of a
    group, as in PyTorch's ``GroupNorm``. As many groups as channels are instance normalization. Source: Wu & He 2018,
    arXiv:1803.08494.

    Args:
        num_groups: number of groups, which divides that of channels.
        eps: added to the variance.
        affine: train gamma and beta, for each channel; without, y is the normalized x.

    Parameters: ``gamma``, ``beta`` (C,).
    """

    def __init__(self, num_groups: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(eps, affine)
        if num_groups < 1:
            raise OptionError(f"num_groups must be at least 1, not {num_groups}", "num_groups")
        self.num_groups = num_groups

    def infer(self, in_shape: Shape) -> Shape:
        if in_shape[-1] % self.num_groups:
            raise ValueError(f"num_groups {self.num_groups} does not divide the {in_shape[-1]} channels of its input")
        return super().infer(in_shape)

    def normalized(self, x: Array) -> tuple[Array, Array, Array]:
        gamma, beta = self.params.get("gamma"), self.params.get("beta")
        return sample_normalization.group_forward(x, self.num_groups, gamma, beta, self.eps)

    def gradients(self, dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
        return sample_normalization.group_backward(dy, x, self.num_groups, mean, inv_std, self.params.get("gamma"))
