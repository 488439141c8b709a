"""Which images are held out follows from the name of each, whatever else is there, or from their order."""

from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Dataset, Images, Source, load_dataset
from cnnlite.data.splits import FIRST, NEVER, Validation, turns
from cnnlite.errors import ConfigError


def held_out(keys: list[str], labels: list[int], fraction: float, seed: int = 0) -> set[str]:
    order, above = turns(keys, labels, "test", seed)
    assert (np.diff(above) >= 0).all()
    return {keys[index] for index in order[above < fraction]}


def names(count: int, classes: int = 3) -> tuple[list[str], list[int]]:
    keys = [f"{label}/{index:04}.png" for label in range(classes) for index in range(count)]
    return keys, np.repeat(np.arange(classes), count).tolist()


def without(keys: list[str], labels: list[int], gone: set[str]) -> tuple[list[str], list[int]]:
    kept = [(key, label) for key, label in zip(keys, labels, strict=True) if key not in gone]
    return [key for key, _ in kept], [label for _, label in kept]


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_nothing_that_comes_or_goes_moves_another_one(fraction: float) -> None:
    keys, labels = names(200)
    whole, rng = held_out(keys, labels, fraction), np.random.default_rng(0)
    for gone in (*({key} for key in keys[::7]), set(keys[:100]), set(rng.choice(keys, 150, replace=False).tolist())):
        assert held_out(*without(keys, labels, gone), fraction) == whole - gone
    order = rng.permutation(len(keys))
    assert held_out([keys[k] for k in order], [labels[k] for k in order], fraction) == whole
    renamed = [key.replace("0/0003", "0/other") for key in keys]
    assert held_out(renamed, labels, fraction) - {"0/other.png"} == whole - {"0/0003.png"}


@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_every_class_of_two_or_more_is_on_both_sides(count: int, fraction: float) -> None:
    keys, labels = names(count, 40)
    found = held_out(keys, labels, fraction)
    by_class = [sum(key in found for key in keys[k * count : (k + 1) * count]) for k in range(40)]
    assert min(by_class) >= 1
    assert max(by_class) <= count - 1


def test_a_class_of_one_is_for_training_and_nothing_is_nothing() -> None:
    order, above = turns(["a/1", "b/1", "b/2"], [0, 1, 1], "test")
    assert 0 < above[0] < FIRST
    assert above[1:].tolist() == [NEVER, NEVER]
    assert order[0] in (1, 2)
    assert all(len(part) == 0 for part in turns([], [], "test"))


def test_in_small_classes_a_new_picture_can_only_take_a_place_or_make_an_exception_needless() -> None:
    keys, labels = names(6, 60)
    whole = held_out(keys, labels, 0.1)
    for index, key in enumerate(keys):
        moved = (held_out(*without(keys, labels, {key}), 0.1) ^ whole) - {key}
        assert len(moved) <= 1
        assert all(labels[keys.index(other)] == labels[index] for other in moved)


def test_parts_are_as_large_as_asked_for_but_for_chance_and_seeds_and_purposes_draw_others() -> None:
    keys, labels = names(5000, 2)
    found = held_out(keys, labels, 0.1)
    assert abs(len(found) - 1000) < 4 * 30
    assert abs(len(found & held_out(keys, labels, 0.1, seed=1)) - 100) < 4 * 10
    order, above = turns(keys, labels, "validation")
    assert abs(len(found & {keys[index] for index in order[above < 0.1]}) - 100) < 4 * 10


def test_pictures_of_one_key_stay_together_whatever_the_fraction_and_the_number() -> None:
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(0, 120, 1000))
    labels = rng.integers(0, 5, 1000)
    order, above = turns([f"patient {k}" for k in group], labels.tolist(), "test")
    assert sorted(order) == list(range(1000))
    cuts = np.flatnonzero(np.diff(above)) + 1  # wherever a fraction may cut
    assert len(cuts) > 80
    for cut in cuts:
        assert not set(group[order[:cut]]) & set(group[order[cut:]])
    assert {*labels[order[above < 1e-9]]} == {*labels[order[above == NEVER]]} == set(range(5))
    assert (np.diff(group[order]) != 0).sum() == len(set(group.tolist())) - 1  # one after the other


def test_a_group_of_several_classes_that_is_needed_to_train_on_is_not_held_out() -> None:
    sides = set()
    for seed in range(20):  # b is the only one of its class
        order, above = turns(["a", "b", "b"], [0, 0, 1], "test", seed)
        held_out = order[above < NEVER].tolist()
        sides.add(tuple(held_out))
    assert sides == {(0,), ()}


def test_what_is_drawn_is_the_same_on_all_machines_and_for_names_that_are_no_text() -> None:
    order, above = turns(["a/1.png", "a/2.png", "a/\udcff.png", "a/猫.png"], [0] * 4, "test")
    assert order.tolist() == [2, 0, 3, 1]
    assert above.tolist() == pytest.approx([0.0, 0.29020866, 0.32812711, 1.0])


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
