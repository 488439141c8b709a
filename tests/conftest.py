"""What every test may ask for."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnlite import engine
from cnnlite.data import Dataset
from cnnlite.loading import load_data
from tests.small_runs import TINY, tiny, trained

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup every process would inherit that, and rightly go on where a test wants it to stop.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the small config in it; processes started from it find cnnlite, and no data."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.delenv("CNNLITE_DATA", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The dataset of the small config."""
    return load_data(tiny())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of an epoch of the small config; only to be read."""
    return trained(tmp_path_factory.mktemp("trained"), tiny(epochs=1))
