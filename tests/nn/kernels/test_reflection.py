import numpy as np
import pytest

from cnnlite.nn.kernels import reflection
from cnnlite.nn.kernels.geometry import Padding, Windows
from tests.support.reference_kernels import reflect_by_loops


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("size", "kernel", "padding"),
    [
        ((5, 4), (3, 3), 1),
        ((3, 4), (5, 7), (2, 3)),
        ((6, 5), (2, 4), "same"),
        ((2, 9), (1, 1), (1, 8)),
        ((1, 2), (1, 2), "same"),
    ],
)
def test_mirrored_padding_and_its_gradient_are_what_a_walk_says(
    size: tuple[int, int], kernel: tuple[int, int], padding: Padding, batch: int
) -> None:
    windows = Windows.fit((*size, 2), kernel, (1, 1), padding, exact=False)
    assert reflection.fits(windows)
    rng = np.random.default_rng(0)
    x, dpadded = rng.standard_normal((batch, *size, 2)), rng.standard_normal((batch, *windows.padded, 2))
    x.flags.writeable = dpadded.flags.writeable = False
    padded, dx = reflect_by_loops(x, dpadded, windows)
    np.testing.assert_array_equal(reflection.pad(x, windows), padded)
    np.testing.assert_allclose(reflection.pad_gradient(dpadded, windows), dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("size", "padding"), [((2, 9), 2), ((9, 2), 2), ((1, 9), (1, 0))])
def test_an_image_that_is_smaller_than_its_padding_does_not_fit(size: tuple[int, int], padding: Padding) -> None:
    assert not reflection.fits(Windows.fit((*size, 2), (1, 1), (1, 1), padding, exact=False))
