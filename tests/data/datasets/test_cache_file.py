"""A cache of images is used as it was written, or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Images
from cnnlite.data.datasets.base import digest
from cnnlite.data.datasets.cache_file import read_cache, write_cache
from cnnlite.errors import DataError

SHAPE = (3, 2, 3)


def images(count: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    return Images(rng.integers(0, 256, (count, *SHAPE), np.uint8), rng.integers(0, 2, count))


TRAIN, TEST = images(7, 0), images(4, 1)


def pieces(whole: Images) -> Iterator[Images]:
    for start in range(0, len(whole), 3):
        yield whole.take(slice(start, start + 3))


def written(path: Path) -> dict[str, Any]:
    facts = {"classes": ("a", "ü"), "more": [1]}
    write_cache(path, (pieces(TRAIN), pieces(TEST)), SHAPE, facts)
    return facts


def test_what_was_written_is_mapped_and_has_the_digest_of_its_content(tmp_path: Path) -> None:
    facts = written(tmp_path / "a")
    train, test, found = read_cache(tmp_path / "a")
    for part, expected in ((train, TRAIN), (test, TEST)):
        np.testing.assert_array_equal(part.images, expected.images)
        np.testing.assert_array_equal(part.labels, expected.labels)
        assert not part.images.flags.owndata
        assert not part.images.flags.writeable
    assert found["digest"] == facts["digest"] == digest([TRAIN, TEST], ("a", "ü"))
    assert found["classes"] == ["a", "ü"]
    assert found["more"] == [1]


def test_a_file_cut_short_anywhere_or_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 7)] + [whole + b"x"]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :] for place in range(0, len(whole), 3)
    ]
    for content in damaged:
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(DataError, match=str(tmp_path / "b")):
            read_cache(tmp_path / "b")


def test_nothing_is_there_unless_all_is(tmp_path: Path) -> None:
    def breaks() -> Iterator[Images]:
        yield TRAIN
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "a", (breaks(), pieces(TEST)), SHAPE, {"classes": ()})
    with pytest.raises(DataError, match="none of the pictures"):
        write_cache(tmp_path / "a", (pieces(TRAIN), iter([])), SHAPE, {"classes": ()})
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        read_cache(tmp_path / "a")
