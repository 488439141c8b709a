from typing import Any

import numpy as np
import pytest

from cnnlite.data import views_of
from cnnlite.errors import ConfigError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_no_views_are_the_images_themselves() -> None:
    ((weight, images),) = views_of(IMAGES, "none")
    assert weight == 1
    assert images is IMAGES


def test_mirror_looks_equally_at_both_sides() -> None:
    (first, plain), (second, mirrored) = views_of(IMAGES, "mirror")
    assert first == second == 0.5
    np.testing.assert_array_equal(plain, IMAGES)
    np.testing.assert_array_equal(mirrored[:, :, 0], IMAGES[:, :, 31])
    np.testing.assert_array_equal(mirrored[:, :, ::-1], IMAGES)


def test_mirror_translate_gives_the_mean_of_the_speedrun_for_any_network(torch: Any) -> None:
    rng = np.random.default_rng(1)
    mix = torch.tensor(rng.standard_normal((3 * 32 * 32, 7)), dtype=torch.float64)

    def network(x: Any) -> Any:
        return torch.tanh(x.reshape(len(x), -1) @ mix / 1000)

    def both(x: Any) -> Any:
        return (network(x) + network(x.flip(-1))) / 2

    x = torch.tensor(IMAGES).permute(0, 3, 1, 2).double()
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), "reflect")
    moved = (both(padded[:, :, :32, :32]) + both(padded[:, :, 2:, 2:])) / 2
    expected = (both(x) + moved) / 2
    views = views_of(IMAGES, "mirror_translate")
    found = sum(w * network(torch.tensor(view.copy()).permute(0, 3, 1, 2).double()) for w, view in views)
    assert len(views) == 6
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_images_that_cannot_be_moved_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.tta: images of 1x5 pixels"):
        views_of(np.zeros((2, 1, 5, 3), np.uint8), "mirror_translate")
