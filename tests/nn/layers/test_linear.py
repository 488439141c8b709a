"""The fully connected layer on batches of several samples in a shard, with small and with large weights."""

import numpy as np
import pytest

from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.linear import Linear


@pytest.mark.parametrize(("features", "outputs", "large"), [(7, 5, False), (1024, 600, True)])
def test_gradients_are_sums_over_all_samples(features: int, outputs: int, large: bool) -> None:
    rng = np.random.default_rng(0)
    layer = Linear(outputs)
    layer.build((features,), rng, np.dtype(np.float64))
    assert layer.is_large is large
    x, dy = rng.standard_normal((40, features)), rng.standard_normal((40, outputs))
    layer.forward(x, Context(training=True))
    dx = layer.backward(dy)
    np.testing.assert_allclose(layer.grads["weight"], x.T @ dy, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.grads["bias"], dy.sum(axis=0), rtol=1e-9, atol=1e-9)
    assert dx is not None
    np.testing.assert_allclose(dx, dy @ layer.params["weight"].T, rtol=1e-9, atol=1e-9)
