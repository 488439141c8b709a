"""What `test_distributed` lets three ranks do: every rank checks what all of them put together."""

import importlib.util
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from cnnlite.data.datasets.folder import Folder
from cnnlite.data.images import read_pictures
from cnnlite.errors import ConfigError, DataError
from cnnlite.nn.kernels import normalization
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.runtime.distributed import Communicator, joined
from cnnlite.runtime.distributed.communicator import using
from cnnlite.runtime.distributed.messages import RankError
from cnnlite.utils.types import Array


def fails(call: Any, kind: type[BaseException]) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def numbers(rank: int, count: int) -> Array:
    drawn: Array = np.random.default_rng(rank).standard_normal(count, np.float32)
    drawn *= 10**rank
    return drawn


def sums_are_added_in_the_same_order_everywhere(ranks: Communicator) -> None:
    for count in (1, 2, 5, 100_001):
        mine = numbers(ranks.rank, count)
        ranks.allreduce([mine])
        order = range(3) if count > 5 else (0, 2, 1)  # pieces of a large array; or pairs, 2 being beyond them
        expected = np.zeros(count, np.float32)
        for rank in order:
            expected += numbers(rank, count)
        assert np.array_equal(mine, expected), count
    with ranks.batch(3, lambda own: own):
        for count in (3, 50_000):
            rows = ranks.gather(np.full((1, 2, count), 1.5 + ranks.rank))
            assert np.array_equal(rows, np.broadcast_to(np.array([1.5, 2.5, 3.5])[:, None, None], (3, 2, count)))


def figures_count_samples(ranks: Communicator) -> None:
    with ranks.batch(2, lambda own: own) as which:  # rank 0 has none of its own
        assert which == (slice(0, 1), slice(0, 1), slice(1, 2))[ranks.rank]
        assert ranks.samples(1) == 2
        assert ranks.counts == (False, True, True)[ranks.rank]
        assert ranks.gather(np.array([[99.0], [2.0], [4.0]])[ranks.rank : ranks.rank + 1]).tolist() == [[2.0], [4.0]]


def layer(kind: type[Layer], shape: tuple[int, ...], dtype: Any = np.float64) -> Layer:
    made = kind()
    made.build(shape, np.random.default_rng(5), np.dtype(dtype))
    return made


def batch_norm_is_that_of_the_whole_batch(ranks: Communicator) -> None:
    for count in (8, 2):  # 8 do not divide, and 2 are too few
        rng = np.random.default_rng(count)
        x, dy = rng.standard_normal((count, 4, 5, 3)) + 7, rng.standard_normal((count, 4, 5, 3))
        with using(Communicator()):
            alone = layer(BatchNorm, x.shape[1:])
            y, dx = alone.forward(x, Context(training=True)).copy(), alone.backward(dy)
        assert dx is not None
        mine = layer(BatchNorm, x.shape[1:])
        with ranks.batch(count, lambda own: 1) as which:
            np.testing.assert_allclose(
                mine.forward(x[which], Context(training=True, ranks=ranks)), y[which], rtol=1e-10, atol=1e-12
            )
            weight = float(ranks.counts)
            own_dx = mine.backward(dy[which] * weight)
        assert own_dx is not None
        np.testing.assert_allclose(own_dx, dx[which] * weight, rtol=1e-9, atol=1e-12)
        for name in mine.grads:
            total = mine.grads[name].copy()
            ranks.allreduce([total])
            np.testing.assert_allclose(total, alone.grads[name], rtol=1e-10)
        for name in mine.buffers:
            np.testing.assert_allclose(mine.buffers[name], alone.buffers[name], rtol=1e-12)


def variance_survives_a_large_mean(ranks: Communicator) -> None:
    x = (np.random.default_rng(0).standard_normal((9, 50, 4)) + 3e4).astype(np.float32)
    with ranks.batch(9, lambda own: 1) as which:
        mean, variance = normalization.mean_and_variance(ranks.gather(normalization.moments(x[which])))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1), dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=(0, 1)), rtol=1e-5)


def dropout_drops_what_it_drops_alone(ranks: Communicator) -> None:
    x = np.ones((11, 7, 3), np.float32)
    with using(Communicator()):
        y = layer(Dropout, x.shape[1:], np.float32).forward(x, Context(training=True))
    with ranks.batch(11, lambda own: 1) as which:
        mine = layer(Dropout, x.shape[1:], np.float32).forward(x[which], Context(training=True, ranks=ranks))
    assert np.array_equal(mine, y[which])


def everybody_learns_what_one_found(ranks: Communicator) -> None:
    assert ranks.allgather("x" * ranks.rank) == ["", "x", "xx"]
    assert ranks.allgather_local(lambda: ranks.rank**2) == [0, 1, 4]
    assert ranks.broadcast(lambda: ("of", ranks.rank)) == ("of", 0)

    def missing() -> None:
        raise DataError("no images")

    assert fails(lambda: ranks.broadcast(missing), DataError) == "no images"
    text = fails(lambda: ranks.check_same({"a": 1, "b": min(ranks.rank, 1)}), ConfigError)
    assert "rank 1" in text.splitlines()[0]
    assert "has b 1, rank 0" in text.splitlines()[1]
    assert fails(lambda: ranks.check_same({"images": ranks.rank}, DataError), DataError)
    ranks.check_same({"a": 1})
    ranks.check_replicas({"w": np.ones(3)})
    fails(lambda: ranks.check_replicas({"w": np.ones(3) * ranks.rank}), RankError)
    assert (ranks.most_workers() or 0) >= 1


def one_rank_decodes_pictures_for_all(ranks: Communicator) -> None:
    if importlib.util.find_spec("PIL") is None:
        return
    from tests.support.folders import fill

    root = Path("pictures")
    ranks.broadcast(lambda: str(fill(root)))
    with mock.patch("cnnlite.data.datasets.pictures.read_pictures", wraps=read_pictures) as read:
        digests = ranks.allgather(Folder(8).load(root).digest)
        assert len(set(digests)) == 1
        assert [count > 0 for count in ranks.allgather(read.call_count)] == [True, False, False]
        ranks.broadcast(lambda: (root / "ant" / "00000.png").write_text("text"))
        assert "00000.png: is not a picture" in fails(lambda: Folder(8).load(root), DataError)
        assert [count > 0 for count in ranks.allgather(read.call_count)] == [True, False, False]


with joined() as ranks:
    assert ranks.size == 3
    sums_are_added_in_the_same_order_everywhere(ranks)
    figures_count_samples(ranks)
    batch_norm_is_that_of_the_whole_batch(ranks)
    variance_survives_a_large_mean(ranks)
    dropout_drops_what_it_drops_alone(ranks)
    everybody_learns_what_one_found(ranks)
    one_rank_decodes_pictures_for_all(ranks)
    if ranks.first:
        print("fine", flush=True)
