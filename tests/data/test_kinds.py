"""Links, FIFOs, folders and devices in the place of files of a dataset."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnnlite.data import sources
from cnnlite.data.datasets.folder import Folder
from cnnlite.errors import DataError, StorageError
from tests.support import cifar_files
from tests.support.archives import FILES, FOLDER
from tests.support.doors import shapes, write_arrays, write_csv, write_idx, write_json
from tests.support.folders import fill
from tests.support.strange import KINDS, place


def idx(root: Path) -> str:
    train, test, _ = shapes(20, 20)
    write_idx(root, train, test)
    return "train-images-idx3-ubyte"


DOORS: dict[str, Callable[[Path], str]] = {
    "arrays": lambda root: write_arrays(root / "a.npz", *shapes(20, 20)[:2]).name,
    "list": lambda root: write_csv(root / "a.csv", [("path", "label")]).name,
    "idx": idx,
    "coco": lambda root: write_json(root / "annotations.json", {}).name,
}
"""Each makes a file in a folder, and returns its name."""


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """Whoever waits for the other end of a FIFO would wait for ever."""

    def fail(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_in_the_place_of_a_file_of_cifar(name: str, kind: str, tmp_path: Path) -> None:
    cifar_files.write(tmp_path / FOLDER, FILES)
    place(tmp_path / FOLDER / name, kind)
    with pytest.raises(DataError, match=name):
        sources["cifar10"]().load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_a_picture(kind: str, tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    place(tmp_path / "pictures" / "ant" / "00000.png", kind)
    if kind in ("folder", "link to a folder"):  # which is left out, as all folders there are
        found = Folder(8).load(tmp_path / "pictures")
        assert len(found.train) + len(found.test) == len(list((tmp_path / "pictures").glob("*/*.png"))) - 1
    else:
        with pytest.raises(DataError, match=r"00000\.png"):
            Folder(8).load(tmp_path / "pictures")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_in_the_place_of_a_file_of_ones_own(door: str, kind: str, tmp_path: Path) -> None:
    name = DOORS[door](tmp_path)
    place(tmp_path / name, kind)
    source = sources[door](*([8] if door in ("list", "coco") else []))
    for root in (tmp_path, tmp_path / name):
        if door != "idx" or root == tmp_path:
            with pytest.raises(DataError) as caught:
                source.load(root)
            assert str(caught.value).startswith(str(tmp_path))
            assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".images", ".lock", ""])
def test_in_the_place_of_a_cache_its_lock_or_its_folder(kind: str, ending: str, tmp_path: Path) -> None:
    root = fill(tmp_path / "pictures")
    path = Folder(8).cache_path(root)
    path = path.with_suffix(ending) if ending else path.parent
    path.parent.mkdir(exist_ok=True)
    victim = place(path, kind)
    if (ending, kind) in ((".images", "link"), (".images", "dangling link"), ("", "folder")):
        assert len(Folder(8).load(root).classes) == 2
        assert not path.is_symlink()
    else:
        with pytest.raises(StorageError, match="puts the cache elsewhere") as caught:
            Folder(8).load(root)
        assert path.name in str(caught.value)
        assert os.path.lexists(path)
    assert kind != "link" or victim.read_text() == "precious"
    assert kind != "dangling link" or not victim.exists()
    assert kind != "link to a folder" or not list(victim.iterdir())
