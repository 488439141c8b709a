"""Shards: how batches are divided, and that sums do not depend on who computes them."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from cnnlite.runtime import engine, shards
from cnnlite.runtime.team import Team
from cnnlite.utils.types import Array

COUNTS = (1, 2, 3, 7, 8, 9, 16, 100, 129)
SIZES = range(1, 12)
PIECES = (1, 2, 4, 8)


class Member(Team):
    """One worker of several, alone: what it is given can be looked at without the others."""

    def __init__(self, index: int, size: int):
        super().__init__()
        self.index, self.size = index, size


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    yield
    engine.set_team(Team())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", PIECES)
def test_every_shard_belongs_to_one_worker(pieces: int, size: int) -> None:
    for count in (n for n in COUNTS if n >= pieces):
        divisions = [shards.division(count, pieces, index, size) for index in range(size)]
        whole = divisions[0].shards
        assert whole == engine.even(count, pieces)
        assert all(division.shards == whole for division in divisions)
        owned = [index for division in divisions for index in range(division.first, division.last)]
        assert sorted(owned) == list(range(pieces))
        samples = [range(count)[division.own] for division in divisions if division.first < division.last]
        assert sorted(itertools.chain(*samples)) == list(range(count))
        for division in divisions:
            assert len(range(count)[division.own]) >= 1
            if division.first == division.last:
                assert division.own == slice(0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", PIECES)
def test_no_worker_has_many_more_shards_than_another(pieces: int, size: int) -> None:
    counts = [shards.division(pieces, pieces, index, size) for index in range(size)]
    own = [division.last - division.first for division in counts]
    working = [number for number in own if number]
    assert len(working) == min(size, pieces) or size not in PIECES
    assert max(own) <= 2 * max(1, pieces // size)
    assert all(number & (number - 1) == 0 for number in working), "halves of halves"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", PIECES)
def test_sums_of_workers_are_added_as_one_adds_those_of_shards(pieces: int, size: int) -> None:
    rng = np.random.default_rng(pieces)
    parts = (rng.standard_normal((pieces, 5)) * 10.0 ** rng.integers(-6, 6, (pieces, 5))).astype(np.float32)
    expected = shards.sum_by_pairs(parts.copy())
    rows = np.full((size, 5), np.nan, np.float32)  # of workers without shards, which must not be added
    for index in range(size):
        division = shards.division(pieces, pieces, index, size)
        if division.first < division.last:
            rows[index] = shards.sum_by_pairs(parts[division.first : division.last].copy())
    out = np.empty(5, np.float32)
    engine.set_team(Member(0, size))
    with shards.divided(pieces, pieces):
        additions = shards.division(pieces, pieces, 0, size).additions
    for to, other in additions:
        rows[to] += rows[other]
    np.testing.assert_array_equal(rows[0], expected)
    engine.set_team(Team())
    shards.add_up(expected[None], out)
    np.testing.assert_array_equal(out, expected)


def test_sums_in_pairs_are_a_tree_and_not_a_row() -> None:
    # 1 is lost beside 2**24, but not two of them
    parts = np.array([2**24, 1, 1, 1, 0, 0, 0, 0], np.float32)[:, None]
    assert shards.sum_by_pairs(parts.copy())[0] == 2**24 + 2
    assert sum(parts[:, 0]) == 2**24


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [10, shards.LARGE_SUM])
@pytest.mark.parametrize("pieces", PIECES)
def test_a_sum_over_shards_is_that_of_its_parts_in_pairs(pieces: int, size: int, threads: int) -> None:
    engine.set_threads(threads)
    if size > 10 and threads > 1:
        size //= 2  # still twice as many bytes as are kept for each shard
    x = np.random.default_rng(0).standard_normal((19, 10), np.float32)
    if size == 10:
        parts = np.array([np.add.reduce(x[i:j], axis=0) for i, j in engine.even(19, pieces)])
    else:
        parts = np.array([np.full(size, x[i:j].sum(), np.float32) for i, j in engine.even(19, pieces)])

    def write(start: int, stop: int, out: Array) -> None:
        out[...] = np.add.reduce(x[start:stop], axis=0) if size == 10 else x[start:stop].sum()

    out = np.full(size, np.nan, np.float32)
    with shards.divided(19, pieces):
        shards.sum_over_shards(write, 19, out)
    np.testing.assert_array_equal(out, shards.sum_by_pairs(parts))


def test_blocks_do_not_cross_shards_and_come_shard_by_shard() -> None:
    item_bytes = engine.LEAST_BYTES
    with shards.divided(130, 8) as division:
        assert division.own == slice(0, 130)
        found = shards.for_shards(lambda start, stop: (start, stop), 130, item_bytes)
        assert shards.bounds(130) == engine.even(130, 8)
        assert [(blocks[0][0], blocks[-1][1]) for blocks in found] == list(engine.even(130, 8))
        flat = list(itertools.chain(*found))
        assert len(flat) > 8
        assert [stop for _, stop in flat[:-1]] == [start for start, _ in flat[1:]]
        with shards.lockstep():
            assert shards.bounds(130) == ((0, 130),)
    assert shards.bounds(130) == ((0, 130),)


@pytest.mark.parametrize("size", SIZES)
def test_a_worker_sees_its_shards_alone_counted_from_its_first_sample(size: int) -> None:
    for index in range(size):
        engine.set_team(Member(index, size))
        with shards.divided(29, 4) as division:
            own = len(range(29)[division.own])
            assert shards.total(own) == 29
            assert shards.counts() == (division.first < division.last)
            found = shards.bounds(own)
            assert found[0][0] == 0
            assert found[-1][1] == own
            start = division.own.start
            if shards.counts():
                assert [(i + start, j + start) for i, j in found] == list(
                    division.shards[division.first : division.last]
                )
            else:
                assert found == ((0, 1),)
            with pytest.raises(ValueError, match=f"30 samples where this worker computes {own} of its batch"):
                shards.bounds(30)
    assert shards.total(7) == 7
    assert shards.counts()


def test_the_division_ends_with_its_block_also_after_an_error() -> None:
    with pytest.raises(KeyError), shards.divided(16, 4):
        raise KeyError
    assert shards.bounds(16) == ((0, 16),)
    with shards.divided(16, 4), pytest.raises(KeyError), shards.lockstep():
        raise KeyError
    assert not engine.is_in_lockstep()


def test_there_is_no_lockstep_where_no_batch_is_divided() -> None:
    with shards.lockstep():
        assert not engine.is_in_lockstep()
    with shards.divided(4, 2):
        with shards.lockstep(False):
            assert not engine.is_in_lockstep()
        with shards.lockstep():
            assert engine.is_in_lockstep()


@pytest.mark.parametrize(
    ("number", "power"), [(-3, 1), (0, 1), (1, 1), (2, 2), (3, 2), (7, 4), (8, 8), (9, 8), (10**9, 8)]
)
def test_numbers_of_shards_are_powers_of_two(number: int, power: int) -> None:
    assert shards.power_of_two(number) == power


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_collected_is_in_order(threads: int) -> None:
    engine.set_threads(threads)
    assert shards.collect(lambda index: index * 0.5, 40).tolist() == [0.5 * index for index in range(40)]


def test_a_team_of_one_gathers_what_it_has_without_copying() -> None:
    rows = np.ones((4, 3))
    with shards.divided(16, 4):
        assert shards.gather(rows) is rows
        assert shards.whole(rows) is rows
        assert shards.own(rows) is rows
