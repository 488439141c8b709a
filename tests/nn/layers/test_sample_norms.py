import numpy as np
import pytest

from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.sample_norms import GroupNorm, LayerNorm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", ["layer", "group"])
def test_before_training_each_sample_alone_has_mean_0_and_deviation_1(name: str, affine: bool) -> None:
    layer = LayerNorm(affine=affine) if name == "layer" else GroupNorm(2, affine=affine)
    layer.build((5, 4, 6), np.random.default_rng(0), np.dtype(np.float64))
    assert layer.params.keys() == layer.grads.keys() == ({"gamma", "beta"} if affine else set())
    assert layer.buffers == {}
    x = 3 + 2 * np.random.default_rng(1).standard_normal((3, 5, 4, 6))
    y = layer.forward(x, Context(training=True))
    np.testing.assert_array_equal(y, layer.forward(x, Context()))  # no running statistics
    parts = y if name == "layer" else y.reshape(3, 20, 2, 3).transpose(0, 2, 1, 3).reshape(3, 2, 60)
    np.testing.assert_allclose(parts.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(parts.std(axis=-1), 1, rtol=1e-4)
