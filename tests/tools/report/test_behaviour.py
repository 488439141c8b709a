import numpy as np
import pytest

from cnnlite.data import Images, Normalizer
from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.losses import softmax
from cnnlite.nn.network import Network
from cnnlite.tools.report import behaviour as room
from cnnlite.tools.report.behaviour import behaviour, calibration, confident_mistakes, observe

PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.05, 0.95, 0.0], [0.0, 0.8, 0.2], [0.4, 0.35, 0.25]]
)
LABELS = np.array([0, 1, 1, 0, 2, 0])


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 50)])
def test_all_images_are_seen_in_their_order(count: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH_SIZE", size)
    network = Network(Sequential([Flatten()]), (1, 1, 3), seed=0)  # the colours of a pixel as logits
    images = Images(np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), np.uint8), np.arange(count) % 3)
    normalizer = Normalizer(np.full(3, 100.0), np.full(3, 50.0))
    calls: list[Call] = []
    with watched(network.model, calls.append):
        seen = observe(network, images, normalizer)
    np.testing.assert_array_equal(seen.probabilities, softmax(normalizer(images.images).reshape(count, 3)))
    assert seen.labels.tolist() == images.labels.tolist()
    assert max(len(call.given) for call in calls) <= size


def test_mistakes_come_with_the_most_confident_first() -> None:
    seen = behaviour(PROBABILITIES, LABELS)
    assert confident_mistakes(seen, 10).tolist() == [3, 4, 1]
    assert confident_mistakes(seen, 2).tolist() == [3, 4]
    assert seen.accuracy == 0.5


def test_no_mistakes_are_an_empty_list() -> None:
    assert confident_mistakes(behaviour(np.eye(3), np.arange(3)), 5).tolist() == []


def test_calibration_by_hand() -> None:
    sure = np.array([0.55, 0.6, 0.9, 0.95, 1.0])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    labels = np.array([0, 1, 0, 0, 1])
    found = calibration(behaviour(probabilities, labels), bins=2)
    # all in (0.5, 1]: mean confidence 0.8, 3 of 5 right
    assert found.counts.tolist() == [0, 5]
    assert found.error == pytest.approx(0.2)
    assert found.excess == pytest.approx(0.2)
    finer = calibration(behaviour(probabilities, labels), bins=10)
    # (0.5, 0.6]: 2 images, confidence 0.575, accuracy 0.5; (0.8, 0.9]: 0.9, 1.0; (0.9, 1]: 0.975, 0.5
    assert finer.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 1, 2]
    assert finer.error == pytest.approx((2 * 0.075 + 0.1 + 2 * 0.475) / 5)
    assert np.isnan(finer.accuracy[0])


def test_a_network_that_is_as_right_as_it_is_sure_has_no_error() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    found = calibration(behaviour(probabilities, np.array([0, 0, 0, 1])))
    assert found.error == pytest.approx(0)
    assert found.excess == pytest.approx(0)
