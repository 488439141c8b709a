import numpy as np
import pytest

from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.prelu import PReLU


@pytest.mark.parametrize(("per_channel", "shape"), [(True, (3,)), (False, (1,))])
def test_before_training_all_slopes_are_the_initial_one(per_channel: bool, shape: tuple[int, ...]) -> None:
    layer = PReLU(per_channel, init=0.125)
    layer.build((2, 2, 3), np.random.default_rng(0), np.dtype(np.float64))
    np.testing.assert_array_equal(layer.params["slope"], np.full(shape, 0.125))
    x = np.random.default_rng(1).standard_normal((4, 2, 2, 3))
    np.testing.assert_allclose(layer.forward(x, Context()), np.where(x > 0, x, x / 8), rtol=1e-15)


def test_the_slope_that_is_usual_is_the_default() -> None:
    layer = PReLU()
    layer.build((3,), np.random.default_rng(0), np.dtype(np.float32))
    assert layer.params["slope"].tolist() == [0.25]
