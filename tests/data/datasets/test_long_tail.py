from pathlib import Path

import numpy as np
import pytest

from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, load_dataset
from cnnlite.data.datasets.folder import Folder
from cnnlite.data.datasets.long_tail import LongTail, kept_images
from cnnlite.data.datasets.shapes import Shapes
from cnnlite.errors import ConfigError
from tests.support.small_runs import tiny

WHOLE = Shapes(train_images=600, test_images=40)


def tailed(factor: float, **split: object) -> Dataset:
    return load_dataset(LongTail(WHOLE, factor), Path(), **split)  # type: ignore[arg-type]


def test_the_counts_of_cifar10_are_those_of_the_field() -> None:
    labels = np.arange(50_000) % 10
    counts = np.bincount(labels[kept_images(labels, 10, 100)])
    # Cui et al. 2019 and those after them train on 12,406 images
    assert counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert counts.sum() == 12_406


def test_what_is_left_is_in_order_and_spread_evenly() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 8000)
    kept = kept_images(labels, 4, 20)
    assert np.all(np.diff(kept) > 0)
    for label in range(4):
        own = kept[labels[kept] == label]
        for part in range(4):
            share = np.count_nonzero((own >= 2000 * part) & (own < 2000 * (part + 1))) / len(own)
            assert share == pytest.approx(0.25, abs=0.06)


def test_a_class_that_has_fewer_keeps_all_it_has() -> None:
    labels = np.repeat([0, 1, 2], [100, 4, 50])
    assert np.bincount(labels[kept_images(labels, 3, 4)]).tolist() == [100, 4, 25]


def test_images_keep_their_labels_and_the_test_stays_whole() -> None:
    whole, found = WHOLE.load(Path()), tailed(50, validation="none")
    kept = kept_images(whole.train.labels, 10, 50)
    np.testing.assert_array_equal(found.train.images, whole.train.images[kept])
    np.testing.assert_array_equal(found.train.labels, whole.train.labels[kept])
    np.testing.assert_array_equal(found.test.images, whole.test.images)
    assert found.digest not in (whole.digest, tailed(20).digest)
    assert found.classes == whole.classes


def test_validation_images_come_from_what_is_left_in_the_part_of_the_whole() -> None:
    whole, found = load_dataset(WHOLE, Path()), tailed(10)
    assert whole.validation is not None
    assert found.validation is not None
    share = len(whole.validation) / 600
    assert len(found.validation) == pytest.approx(share * (len(found.train) + len(found.validation)), abs=1)


def test_a_factor_of_1_leaves_equal_classes_as_they_are() -> None:
    whole, found = load_dataset(WHOLE, Path()), tailed(1)
    assert found.digest == whole.digest


def test_it_is_checked_before_any_data_is_read() -> None:
    source = LongTail(WHOLE, 10)
    assert (source.in_shape, source.class_count, source.frame) == (WHOLE.in_shape, WHOLE.class_count, WHOLE.frame)
    assert isinstance(source.reading_only(("a",)), LongTail)
    with pytest.raises(ValueError, match=r"at least 1, not 0\.5"):
        LongTail(WHOLE, 0.5)
    with pytest.raises(ValueError, match="whose classes are known without its files"):
        LongTail(Folder(size=8), 2)


def test_a_config_names_it_with_the_dataset_that_it_takes_from() -> None:
    data = tiny().resolved["data"]
    config = config_from_data({**tiny().resolved, "data": {**data, "dataset": {"long_tail": {"of": "cifar10"}}}})
    assert config.data.in_shape == (32, 32, 3)
    assert config.resolved["data"]["dataset"] == {"long_tail": {"of": "cifar10", "factor": 100.0}}
    with pytest.raises(ConfigError, match=r"data\.dataset\.long_tail\.of"):
        config_from_data(
            {**tiny().resolved, "data": {**data, "dataset": {"long_tail": {"of": {"folder": {"size": 8}}}}}}
        )
