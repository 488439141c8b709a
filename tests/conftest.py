"""What every test may ask for."""

from collections.abc import Iterator
from typing import Any

import pytest

from cnnlite import engine


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Each test starts on one thread, whatever the one before it asked for."""
    engine.set_threads(1)
    yield
    engine.set_threads(1)


@pytest.fixture
def torch() -> Any:
    """PyTorch on one thread; the test is skipped where it is not installed."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module
