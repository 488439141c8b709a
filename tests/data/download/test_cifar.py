"""A dataset is downloaded, verified and unpacked, whatever was there before."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnlite.data import load_dataset, sources
from cnnlite.data.download import cifar as room
from cnnlite.data.download.archive import extract
from cnnlite.data.download.cifar import ARCHIVES, Archive, download_cifar
from cnnlite.errors import ConfigError, DataError, StorageError
from cnnlite.utils.files import locked_folder
from tests.support import cifar_files
from tests.support import server as servers
from tests.support.archives import FILES, FOLDER, PACKED, content
from tests.support.cifar_files import members
from tests.support.server import Server

pytestmark = pytest.mark.usefixtures("small_archive")
PART = f"{FOLDER}.tar.gz.cnnlite.part"


def test_given_archive_is_verified_unpacked_and_loads(packed: Path, tmp_path: Path) -> None:
    said: list[str] = []
    root = tmp_path / "some" / "data"
    folder = download_cifar(root, from_file=packed, say=said.append)
    assert folder == root / FOLDER
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert content(root) == [FOLDER]
    assert said[-1] == f"{folder}: complete and verified"
    assert len(load_dataset(sources["cifar10"](), root).train) == 24


def test_complete_dataset_is_left_alone_and_said_so(packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder = download_cifar(root, from_file=packed)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    said: list[str] = []
    download_cifar(root, from_file=tmp_path / "not even there", say=said.append)
    assert said == [f"{folder}: complete and verified already, nothing to do"]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_dataset_is_replaced_and_kept_aside(packed: Path, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "data"
    folder = download_cifar(root, from_file=packed)
    for number in (1, 2):
        if damage == "missing":
            (folder / "test_batch").unlink()
        else:
            (folder / "test_batch").write_bytes(b"changed")
        said: list[str] = []
        download_cifar(root, from_file=packed, say=said.append)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        assert any(f"{FOLDER}.old-{number}" in line for line in said)
    assert content(root) == [FOLDER, f"{FOLDER}.old-1", f"{FOLDER}.old-2"]


def test_failed_unpacking_leaves_the_old_files_in_place(packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    cifar_files.write(root / FOLDER, {"test_batch": b"mine"})
    packed.write_bytes(PACKED[:-100])
    with pytest.raises(DataError):
        download_cifar(root, from_file=packed)
    assert content(root) == [FOLDER]
    assert (root / FOLDER / "test_batch").read_bytes() == b"mine"


def test_remains_of_a_killed_run_are_cleaned_up_and_nothing_of_anybody_else(packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    ours, in_use, mixed, link = (root / f".cnnlite-{digit * 16}.tmp" for digit in "0123")
    for folder in (ours, in_use, mixed, root / f"{FOLDER}.tmp", root / "mine"):
        cifar_files.write(folder, {"data_batch_1": b"half"})
    (mixed / "notes.txt").write_text("mine")
    link.symlink_to(root / "mine")
    with locked_folder(in_use):
        download_cifar(root, from_file=packed)
    others = sorted([FOLDER, f"{FOLDER}.tmp", "mine", in_use.name, mixed.name, link.name])
    assert content(root) == others
    assert (mixed / "notes.txt").read_text() == "mine"
    assert (root / "mine" / "data_batch_1").read_bytes() == (root / f"{FOLDER}.tmp" / "data_batch_1").read_bytes()


def test_a_folder_that_cannot_be_read_is_not_taken_for_a_missing_one(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    download_cifar(root, from_file=packed)
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        if path.name == "test_batch":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match="test_batch: cannot be read: Permission denied"):
        download_cifar(root, from_file=packed)
    assert content(root) == [FOLDER]


@pytest.mark.parametrize("place", [FOLDER, f"{FOLDER}.old-1"])
def test_a_link_to_nowhere_in_the_place_of_a_folder_is_set_aside_too(place: str, packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    cifar_files.write(root / FOLDER, {"test_batch": b"mine"})
    if place == FOLDER:
        (root / FOLDER).rename(root / "elsewhere")
    (root / place).symlink_to("nowhere")
    download_cifar(root, from_file=packed)
    links = [path.name for path in root.iterdir() if path.is_symlink()]
    assert links == [f"{FOLDER}.old-1"]
    assert {path.name for path in (root / FOLDER).iterdir()} == FILES.keys()


@pytest.mark.parametrize("given", ["nothing", "folder", "pipe", "loop", "/dev/zero"])
def test_given_archive_must_be_a_file(tmp_path: Path, given: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=f"{given}: (no such|not a) file"):
        download_cifar(tmp_path / "data", from_file=tmp_path / given)


def test_root_that_cannot_be_made_is_a_storage_error(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        download_cifar(tmp_path / "file" / "data", from_file=packed)
    with pytest.raises(StorageError, match="cannot write"):
        extract(packed, tmp_path / "file" / FOLDER, {}, lambda done, total, /: None)


def test_write_error_is_a_storage_error_and_leaves_nothing(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        download_cifar(tmp_path / "data", from_file=packed)
    assert content(tmp_path / "data") == []


def test_unknown_dataset_and_contradictory_sources_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to download for 'cifar11'; did you mean 'cifar10'"):
        download_cifar(tmp_path, dataset="cifar11")
    with pytest.raises(ConfigError, match="exclude each other"):
        download_cifar(tmp_path, from_file=tmp_path, url="https://a.org/x")


@pytest.mark.parametrize(
    "url", ["ftp://a.org/x", "file:///x", "a.tar.gz", "http://", "http://a:b/", "https://a b/", ""]
)
def test_bad_address_is_a_config_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an http or https address"):
        download_cifar(tmp_path / "data", url=url)
    assert not (tmp_path / "data").exists()


def test_download_unpacks_and_removes_the_archive(tmp_path: Path) -> None:
    server = Server(PACKED)
    try:
        folder = download_cifar(tmp_path / "data", url=server.url)
    finally:
        server.close()
    assert content(folder) == sorted(FILES)
    assert content(tmp_path / "data") == [FOLDER]


def test_mirror_may_pack_the_same_files_anew(tmp_path: Path) -> None:
    said: list[str] = []
    server = Server(cifar_files.pack(members(dict(reversed(FILES.items())))))
    try:
        download_cifar(tmp_path, url=server.url, say=said.append)
    finally:
        server.close()
    assert "not the official archive: what is in it will be checked" in said
    assert content(tmp_path) == [FOLDER]


def test_official_address_with_another_archive_is_refused_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_archive: Archive
) -> None:
    server = Server(cifar_files.pack(members(dict(reversed(FILES.items())))))
    monkeypatch.setitem(room.ARCHIVES, "cifar10", replace(small_archive, url=server.url))
    try:
        with pytest.raises(DataError, match="the archive has the wrong checksum and is removed"):
            download_cifar(tmp_path)
    finally:
        server.close()
    assert content(tmp_path) == []


def test_what_another_program_left_of_a_download_is_neither_continued_nor_removed(tmp_path: Path) -> None:
    others = {f"{FOLDER}.tar.gz.part": b"what another program left here", f"{FOLDER}.tar.gz": b"and another one"}
    cifar_files.write(tmp_path, others)
    server = Server(PACKED)
    try:
        download_cifar(tmp_path, url=server.url)
    finally:
        server.close()
    assert server.ranges() == [None]
    assert {name: (tmp_path / name).read_bytes() for name in others} == others


@pytest.mark.parametrize(
    "begun",
    [b"what has changed since it came", PACKED[:30], b"x" * 5 + PACKED[5:]],
    ids=["other content", "begun with this", "damaged at its start"],
)
def test_part_that_turns_out_wrong_is_fetched_anew(begun: bytes, tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(begun)
    server = Server(PACKED)
    try:
        download_cifar(tmp_path, url=server.url)
    finally:
        server.close()
    assert server.ranges() == [f"bytes={len(begun)}-", None][: 1 if PACKED.startswith(begun) else 2]
    assert content(tmp_path) == [FOLDER]


@pytest.mark.parametrize("stays", [True, False])
def test_file_that_changed_in_between_is_fetched_from_its_start(stays: bool, tmp_path: Path) -> None:
    # Another packing of the same files, broken off: the server goes on with the official one, as does another mirror.
    other = cifar_files.pack(members(dict(reversed(FILES.items()))))
    server, second = Server(other, servers.partly(1000), servers.status(404)), Server(PACKED)
    said: list[str] = []
    try:
        with pytest.raises(DataError, match="404 Not Found"):
            download_cifar(tmp_path, url=server.url)
        assert content(tmp_path) == [PART]
        server.content, server.answers = PACKED, [servers.good]
        download_cifar(tmp_path, url=server.url if stays else second.url, say=said.append)
    finally:
        server.close()
        second.close()
    assert said[1] == "the checksum of the whole is wrong: starting over"
    assert (server if stays else second).ranges()[-2:] == ["bytes=1000-", None]
    assert content(tmp_path) == [FOLDER]


def test_content_length_too_small_is_noticed_by_the_checks(tmp_path: Path) -> None:
    server = Server(PACKED, servers.length(-100))
    try:
        with pytest.raises(DataError, match=r"cut short.*the download is removed, run the same command again"):
            download_cifar(tmp_path, url=server.url)
    finally:
        server.close()
    assert content(tmp_path) == []


def test_known_checksums_are_complete() -> None:
    assert set(ARCHIVES) == {"cifar10", "cifar100"}
    for archive in ARCHIVES.values():
        assert archive.url.startswith("https://")
        assert all(len(checksum) == 32 for checksum in (archive.md5, *archive.members.values()))
