import itertools

import numpy as np

from cnnlite.utils.rng import stream


def test_equal_arguments_give_equal_draws_whatever_was_drawn_before() -> None:
    first = stream(3, "augment", 5)
    np.random.default_rng().random(100)
    first_draws = first.random(1000)
    np.testing.assert_array_equal(stream(3, "augment", 5).random(1000), first_draws)


def test_every_argument_matters() -> None:
    arguments = [
        (0, "order", 0, 0),
        (1, "order", 0, 0),
        (-1, "order", 0, 0),
        (2**63, "order", 0, 0),
        (0, "augment", 0, 0),
        (0, "order", 1, 0),
        (0, "order", 2**40, 0),
        (0, "order", 0, 10**4),
    ]
    draws = [stream(*argument).random(2000) for argument in arguments]
    for first, second in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_neighbouring_streams_do_not_overlap() -> None:
    # A counter that only moved the start would repeat the numbers of the next stream, shifted.
    seen = np.concatenate([stream(0, "order", epoch).integers(0, 2**63, 5000) for epoch in range(20)])
    assert len(np.unique(seen)) == len(seen)


def test_draws_are_the_same_on_every_machine_and_in_every_version() -> None:
    # Runs are reproduced from their seed: a change here changes all published figures.
    assert stream(0, "weights").integers(0, 2**32, 3).tolist() == [3637056010, 1133961273, 1217156504]
    assert stream(0, "order").permutation(8).tolist() == [7, 6, 3, 4, 0, 5, 1, 2]


def test_draws_are_uniform() -> None:
    draws = stream(11, "test").random(100_000)
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert ((counts - 5000) ** 2 / 5000).sum() < 45  # chi-squared with 19 degrees of freedom: 1 in 1000
