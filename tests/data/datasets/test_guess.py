from pathlib import Path

import pytest

from cnnlite.data.datasets.base import Source, sources
from cnnlite.data.datasets.guess import kind_of
from cnnlite.errors import DataError
from tests.support.cifar_files import cifar100_files, python_files

FILES = {
    "names.csv": "list",
    "Names.TSV": "list",
    "lab.npz": "arrays",
    "instances.json": "coco",
    "train-images-idx3-ubyte.gz": "idx",
    "t10k-labels-idx1-ubyte": "idx",
    "picture.png": None,
    "notes": None,
}
FOLDERS = {
    "cat/deep/1.png": "folder",
    "train/cat/1.jpg": "folder",
    "1.png": "folder",
    "x_train.npy": "arrays",
    "annotations/instances_val2017.json": "coco",
    "train-images-idx3-ubyte": "idx",
    "notes.txt": None,
    "cat/notes.txt": None,
    ".hidden/1.png": None,
}


@pytest.fixture(autouse=True)
def all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(sources._classes)
    monkeypatch.setattr(sources, "_classes", dict.fromkeys(("arrays", "coco", "idx", "list"), Source) | known)


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_a_file_is_known_by_its_name(name: str, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize(("name", "kind"), FOLDERS.items())
def test_a_folder_is_known_by_the_names_in_it(name: str, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert kind_of(tmp_path) == kind


@pytest.mark.parametrize(("files", "kind"), [(python_files(), "cifar10"), (cifar100_files(), "cifar100")])
def test_cifar_is_known_by_its_folder_or_by_its_files(files: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    inside = tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[kind]
    inside.mkdir()
    assert kind_of(inside) is None
    assert kind_of(tmp_path) == kind
    for name in files:
        (inside / name).touch()
    assert kind_of(inside) == kind


def test_pictures_beside_tables_and_texts_are_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("labels.csv", "about.json", "readme.txt", "cat/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert kind_of(tmp_path) == "folder"


def test_a_kind_that_is_not_registered_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sources._classes, "list")
    assert kind_of(Path("names.csv")) is None


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(DataError, match=f"{tmp_path.name}: Permission denied"):
        kind_of(tmp_path)
