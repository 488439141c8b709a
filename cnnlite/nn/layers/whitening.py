"""Convolution that whitens: filters computed from images, not trained."""

import math
from functools import partial

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import convolution, im2col
from cnnlite.nn.kernels.geometry import Pair, Windows, pair
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.nn.layers.initializers import within_fan_in
from cnnlite.runtime import engine
from cnnlite.utils.types import Array, Shape


@layers.register("whitening_conv2d")
class WhiteningConv2d(Layer):
    """Convolution with the principal components of image patches and their negatives.

    ``(N, H, W, C) -> (N, out_h, out_w, 2 * kernel_h * kernel_w * C)``. The filters are ``v_i / sqrt(lambda_i + eps)``
    for i in ascending order of lambda, and then their negatives, where ``lambda_i, v_i`` are eigenvalues and
    eigenvectors of ``P^T P / n`` for the rows ``P`` (n, kernel_h * kernel_w * C) of all patches of the first training
    images. They are fixed before training; only the bias is trained. An eigenvector is determined but for its sign:
    here its component of greatest magnitude is positive. Source: Page 2019, "How to train your ResNet 8"; Jordan 2024,
    arXiv:2404.00498, section 3.2.

    Args:
        kernel_size: height and width of a filter; one number for both.
        eps: added to the variances, which keeps noise from being blown up.
        images: number of training images to take patches from.

    Parameters: ``bias`` (out_channels,), uniform in +-1 / sqrt(fan_in) at first. Buffers: ``weight`` (kernel_h,
    kernel_w, in_channels, out_channels), drawn in the same way until `fit`.
    """

    by_shards = True

    def __init__(self, kernel_size: Pair = 2, eps: float = 5e-4, images: int = 5000):
        super().__init__()
        if not 0 < eps < math.inf:
            raise OptionError(f"eps must be positive, not {eps}", "eps")
        if images < 1:
            raise OptionError(f"images must be at least 1, not {images}", "images")
        self.kernel = pair(kernel_size, "kernel_size")
        self.eps = eps
        self.fit_images = images

    def infer(self, in_shape: Shape) -> Shape:
        self.windows = Windows.fit(in_shape, self.kernel, (1, 1), 0, exact=False)
        size = math.prod(self.kernel) * in_shape[2]
        shape = (*self.kernel, in_shape[2], 2 * size)
        init = partial(within_fan_in, fan_in=size)
        self.add_buffer("weight", shape, init)
        self.add_param("bias", (2 * size,), init)
        self.multiply_adds = math.prod(self.windows.out) * math.prod(shape)
        return (*self.windows.out, 2 * size)

    def fit(self, x: Array) -> None:
        x = x[: self.fit_images]
        variances, vectors = np.linalg.eigh(self._covariance(x))  # ascending; vectors in columns
        strongest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
        filters = vectors * np.sign(strongest) / np.sqrt(variances + self.eps)
        weight = self.buffers["weight"]
        weight[...] = np.concatenate([filters, -filters], axis=1).reshape(weight.shape)

    def _covariance(self, x: Array) -> Array:
        """Mean of p p^T over all patches p of ``x``, in float64 from products of blocks."""
        size = self.buffers["weight"].shape[-1] // 2
        sample_bytes = 8 * math.prod(self.windows.out) * size

        def block(start: int, stop: int) -> Array:
            patches: Array = im2col.im2col(x[start:stop].astype(np.float64), self.windows)[0]
            return patches.T @ patches

        sums = np.array(engine.for_blocks(block, len(x), sample_bytes))
        total: Array = sums.sum(axis=0) / (len(x) * math.prod(self.windows.out))
        return total

    def forward(self, x: Array, context: Context) -> Array:
        return convolution.forward(x, self.buffers["weight"], self.params["bias"], self.windows)[0]

    def backward(self, dy: Array) -> Array | None:
        convolution.bias_gradient(dy, self.grads["bias"])
        return convolution.input_gradient(dy, self.buffers["weight"], self.windows) if self.needs_dx else None
