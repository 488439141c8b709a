from pathlib import Path

import numpy as np
import pytest

from cnnlite.data import Images, default_root
from cnnlite.data.datasets import base as room
from cnnlite.data.datasets.base import digest
from cnnlite.runtime import engine


def numbered(count: int, first: int = 0) -> Images:
    """Images of bytes that differ."""
    labels = np.arange(first, first + count)
    return Images((labels[:, None, None, None] + np.arange(108).reshape(6, 6, 3)).astype(np.uint8), labels)


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
