"""A browser, and pages of five networks, made once for all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import shown
from tests.support.devtools import Chromium, running


@pytest.fixture(scope="session")
def tab(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Chromium, running."""
    with running(browser, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a bundled network, by its name."""
    folder = tmp_path_factory.mktemp("pages of networks")
    made: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in made:
            made[name] = shown.page(folder, name, *shown.bundled(name))
        return made[name]

    return page
