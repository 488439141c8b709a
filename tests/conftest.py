"""What every test may ask for."""

import importlib
import importlib.util
import os
import pkgutil
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import cnnlite
from cnnlite.cli.flags import flags
from cnnlite.data import Dataset
from cnnlite.runs.restore import load_data
from cnnlite.runtime import engine
from cnnlite.utils.hints import rendered_by
from tests.support.plugins import forget_plugins
from tests.support.small_runs import TINY, tiny, trained

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup every process would inherit that, and rightly go on where a test wants it to stop.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


for module in pkgutil.walk_packages(cnnlite.__path__, "cnnlite."):
    # One that is first imported inside a test would keep what that test has put in place of something else.
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)


PARTS = frozenset({"torch", "browser", "cifar10"})
"""Fixtures that need more than ``scripts/setup dev`` installs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "run the tests that need PyTorch, Chromium or CIFAR-10, and no others; they fail where it is missing"
    parser.addoption("--parts", action="store_true", help=about)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--parts"):
        chosen = [item for item in items if PARTS.intersection(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def missing(request: pytest.FixtureRequest, what: str) -> NoReturn:
    """Skip the test that asks for what is not there, or let it fail if everything should be."""
    (pytest.fail if request.config.getoption("--parts") else pytest.skip)(f"needs {what}")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Each test starts on one thread, whatever the one before it asked for."""
    engine.set_threads(1)
    yield
    engine.set_threads(1)


@pytest.fixture(autouse=True)
def no_plugins() -> Iterator[None]:
    """Plugins that a test runs are forgotten after it."""
    yield
    forget_plugins()


@pytest.fixture
def as_typed() -> Iterator[None]:
    """Hints are flags, as on the command line."""
    with rendered_by(flags):
        yield


@pytest.fixture
def torch(request: pytest.FixtureRequest) -> Any:
    """PyTorch on one thread."""
    if importlib.util.find_spec("torch") is None:
        missing(request, "PyTorch: pip install torch")
    module: Any = importlib.import_module("torch")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> str:
    """Chromium."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    return next(found, None) or missing(request, "Chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def cifar10(request: pytest.FixtureRequest) -> Path:
    """The folder with the real CIFAR-10."""
    folder = os.environ.get("CNNLITE_DATA")
    return Path(folder) if folder else missing(request, "CIFAR-10: set CNNLITE_DATA to the folder that holds it")


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
