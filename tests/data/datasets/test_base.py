from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Dataset, Images, Source, default_root, load_dataset
from cnnlite.data.datasets import base as room
from cnnlite.data.datasets.base import Validation, digest
from cnnlite.errors import ConfigError
from cnnlite.runtime import engine


def numbered(count: int, first: int = 0, size: int = 6) -> Images:
    """Images whose labels and bytes tell which is which."""
    labels = np.arange(first, first + count)
    rows = np.arange(size * size * 3).reshape(size, size, 3)
    return Images((labels[:, None, None, None] + rows).astype(np.uint8), labels)


class Numbered(Source):
    def load(self, root: Path) -> Dataset:
        return Dataset("numbered", numbered(50), None, numbered(10, 50), ("a",), "digest", held_out=10)


def split(validation: Validation, seed: int = 0) -> tuple[list[int], list[int]]:
    dataset = load_dataset(Numbered(), Path(), validation=validation, seed=seed)
    assert dataset.test.labels.tolist() == list(range(50, 60))
    for part in (dataset.train, dataset.validation):
        assert part is None or (part.images[:, 0, 0, 0] == part.labels).all()
    return dataset.train.labels.tolist(), [] if dataset.validation is None else dataset.validation.labels.tolist()


def test_default_and_count_take_the_last_images() -> None:
    assert split("default") == (list(range(40)), list(range(40, 50)))
    assert split(3) == (list(range(47)), [47, 48, 49])


def test_none_keeps_all_images_for_training() -> None:
    assert split("none") == (list(range(50)), [])


def test_fraction_is_drawn_by_the_seed_and_covers_everything_once() -> None:
    train, validation = split(0.3)
    assert len(validation) == 15
    assert sorted(train + validation) == list(range(50))
    assert validation != list(range(35, 50))
    assert split(0.3) == (train, validation)
    assert split(0.3, seed=1) != (train, validation)


@pytest.mark.parametrize("bad", [0, -1, 50, 51, 0.0, 1.0, 1.5, float("nan"), 0.001, 0.999, True, "all"])
def test_impossible_split_is_a_config_error(bad: Validation) -> None:
    with pytest.raises(ConfigError, match=r"data\.validation"):
        split(bad)


@pytest.mark.parametrize(("size", "offset"), [(4, 1), (3, 1), (6, 0), (1, 2)])
def test_center_crop_is_applied_to_all_three_parts(size: int, offset: int) -> None:
    whole = load_dataset(Numbered(), Path())
    dataset = load_dataset(Numbered(), Path(), center_crop=size)
    inside = slice(offset, offset + size)
    for part, before in (
        (dataset.train, whole.train),
        (dataset.validation, whole.validation),
        (dataset.test, whole.test),
    ):
        assert part is not None
        assert before is not None
        np.testing.assert_array_equal(part.images, before.images[:, inside, inside])
        np.testing.assert_array_equal(part.labels, before.labels)


@pytest.mark.parametrize("size", [0, -2, 7])
def test_impossible_crop_is_a_config_error(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.center_crop: cannot take the centre {size}x{size} of 6x6"):
        load_dataset(Numbered(), Path(), center_crop=size)


def test_images_of_other_types_are_refused() -> None:
    good = numbered(2)
    with pytest.raises(ValueError, match="must be uint8"):
        Images(good.images.astype(np.float32), good.labels)
    with pytest.raises(ValueError, match="must be int64"):
        Images(good.images, good.labels[:1])


def test_digest_is_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "DIGEST_CHUNK", 100)
    found = set()
    before = engine.threads()
    try:
        for threads in (1, 2, 4):
            engine.set_threads(threads)
            found.add(digest([numbered(20)], ("a",)))
    finally:
        engine.set_threads(before)
    assert len(found) == 1
    assert digest([numbered(20, 1)], ("a",)) not in found
    assert digest([numbered(20)], ("b",)) not in found


def test_default_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNLITE_DATA", raising=False)
    assert default_root() == Path("data")
    monkeypatch.setenv("CNNLITE_DATA", "/elsewhere")
    assert default_root() == Path("/elsewhere")
