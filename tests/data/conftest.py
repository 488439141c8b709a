"""What tests of downloads and of archives may ask for."""

from pathlib import Path

import pytest

from cnnlite.data.download import cifar as room
from cnnlite.data.download.cifar import Archive
from tests.support import cifar_files
from tests.support.archives import FILES, PACKED


@pytest.fixture
def small_archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The archive that cifar10 stands for, instead of the real one; no proxies."""
    archive = cifar_files.described(FILES, PACKED)
    monkeypatch.setitem(room.ARCHIVES, "cifar10", archive)
    monkeypatch.setenv("no_proxy", "*")
    return archive


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A file with that archive."""
    path = tmp_path / "given.tar.gz"
    path.write_bytes(PACKED)
    return path
