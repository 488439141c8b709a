import gzip
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cnnlite.data import archive as room_of_archives
from cnnlite.data import download as room
from cnnlite.data import load_dataset, sources
from cnnlite.data.archive import extract
from cnnlite.data.download import ARCHIVES, Archive, download_cifar
from cnnlite.errors import ConfigError, DataError, StorageError

from . import files
from . import server as servers
from .files import Member, member, members
from .server import Server

FILES = files.python_files()
PACKED = files.pack(members(FILES))
FOLDER = "cifar-10-batches-py"
Members = list[tuple[Member, bytes]]


@pytest.fixture(autouse=True)
def small_archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The archive that cifar10 stands for in these tests."""
    archive = files.described(FILES, PACKED)
    monkeypatch.setitem(room.ARCHIVES, "cifar10", archive)
    monkeypatch.setenv("no_proxy", "*")
    return archive


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "given.tar.gz"
    path.write_bytes(PACKED)
    return path


def content(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


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
    files.write(root / FOLDER, {"test_batch": b"mine"})
    packed.write_bytes(PACKED[:-100])
    with pytest.raises(DataError):
        download_cifar(root, from_file=packed)
    assert content(root) == [FOLDER]
    assert (root / FOLDER / "test_batch").read_bytes() == b"mine"


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_member(*extra: tuple[Member, bytes]) -> Callable[[], bytes]:
    return lambda: files.pack(members(FILES) + list(extra))


def with_huge_member() -> bytes:
    large = tarfile.TarInfo(f"{FOLDER}/huge")
    large.size = 10**15
    return gzip.compress(large.tobuf(tarfile.GNU_FORMAT))


def raw_tar(*entries: tuple[bytes, bytes]) -> Callable[[], bytes]:
    """Members that are only kind and content, with a header that tarfile would not write."""
    blocks = (member("x", content, kind)[0].tobuf(tarfile.USTAR_FORMAT) + content for kind, content in entries)
    return lambda: gzip.compress(b"".join(blocks))


def with_negative_size() -> bytes:
    entry = tarfile.TarInfo(f"{FOLDER}/x")
    entry.size = -512
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT))


def changed_files(**changes: bytes) -> Callable[[], bytes]:
    return lambda: files.pack(members(FILES | changes))


def without(name: str) -> Callable[[], bytes]:
    return lambda: files.pack([entry for entry in members(FILES) if entry[0].name != f"{FOLDER}/{name}"])


SYMLINK, HARDLINK, DEVICE, FIFO = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE
BAD_ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "damaged, cut short"),
    "web page": (lambda: b"<html>not found</html>", "begins like a web page"),
    "not packed": (lambda: gzip.decompress(PACKED), "no .tar.gz archive"),
    "cut short": (lambda: cut(PACKED), "cut short"),
    "tar cut short": (lambda: gzip.compress(cut(gzip.decompress(PACKED))), "cut short"),
    "random bytes": (lambda: gzip.compress(bytes(range(256)) * 20), "no .tar.gz archive"),
    "wrong checksum": (changed_files(data_batch_2=b"x" * 100), "data_batch_2 has the wrong checksum"),
    "file missing": (without("data_batch_3"), f"{FOLDER}/data_batch_3 is missing"),
    "binary version": (
        lambda: files.pack([member("cifar-10-batches-bin/data_batch_1.bin", b"x")]),
        "is missing; it holds cifar-10-batches-bin",
    ),
    "parent": (with_member(member("../evil", b"x")), r"'\.\./evil' leads out of its folder"),
    "parent inside": (with_member(member(f"{FOLDER}/../../evil", b"x")), "leads out of its folder"),
    "windows parent": (with_member(member("..\\evil", b"x")), "leads out of its folder"),
    "absolute": (with_member(member("/tmp/evil", b"x")), "leads out of its folder"),
    "symlink": (with_member(member(f"{FOLDER}/x", kind=SYMLINK, link="/etc/passwd")), "is a link or a device"),
    "symlink for a batch": (
        lambda: files.pack([member(f"{FOLDER}/data_batch_1", kind=SYMLINK, link="../../evil")]),
        "is a link or a device",
    ),
    "hard link": (with_member(member(f"{FOLDER}/x", kind=HARDLINK, link=f"{FOLDER}/test_batch")), "is a link"),
    "device": (with_member(member(f"{FOLDER}/x", kind=DEVICE)), "is a link or a device"),
    "fifo": (with_member(member(f"{FOLDER}/x", kind=FIFO)), "is a link or a device"),
    "duplicate": (with_member(member(f"{FOLDER}/test_batch", FILES["test_batch"])), "test_batch twice"),
    "chain of headers": (raw_tar(*[(b"x", b"")] * 5000), "larger than any CIFAR archive"),
    "header that takes for ever to search": (raw_tar((b"x", b"1" * 10 * 2**20)), "no .tar.gz archive"),
    "sparse file": (raw_tar((b"S", b"1" * 512)), "is a link or a device"),
    "negative size": (with_negative_size, "larger than any CIFAR archive"),
    "name that is many lines": (lambda: files.pack([member("a\nb\nc", b"x")]), "data_batch_1 is missing"),
    "streams of nothing": (lambda: gzip.compress(b"") * 100_000, "ends too soon"),
    "huge member": (with_huge_member, "larger than any CIFAR archive"),
    "many members": (with_member(*(member(f"x/{n}") for n in range(250))), "larger than any CIFAR archive"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archive_is_refused_and_nothing_is_left(case: str, tmp_path: Path) -> None:
    make, message = BAD_ARCHIVES[case]
    path = tmp_path / "given.tar.gz"
    path.write_bytes(make())
    root = tmp_path / "root"
    started = time.perf_counter()
    with pytest.raises(DataError, match=message) as raised:
        download_cifar(root, from_file=path)
    assert time.perf_counter() - started < 5
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert content(root) == []
    assert content(tmp_path) == ["given.tar.gz", "root"]


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_archive_that_unpacks_to_too_much_is_refused(
    kind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Left out, or part of a header: either way it has to be unpacked to be passed over.
    monkeypatch.setattr(room_of_archives, "_LARGEST_TOTAL", 2**20)
    header, zeros = member("zeros", bytes(3 * 2**20), kind)
    path = tmp_path / "given.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + zeros))
    with pytest.raises(DataError, match=r"given\.tar\.gz: unpacks to more than 1,048,576 bytes"):
        download_cifar(tmp_path / "root", from_file=path)


def test_a_sparse_file_of_terabytes_is_refused_unread(packed: Path, tmp_path: Path) -> None:
    with packed.open("r+b") as file:
        file.truncate(2**42)
    with pytest.raises(DataError, match="4,398,046,511,104 bytes are more than any CIFAR archive has"):
        download_cifar(tmp_path / "data", from_file=packed)


@pytest.mark.parametrize("size", [1000, 512 * 1024])
def test_archive_in_many_streams_and_with_zeros_behind_is_unpacked(size: int, packed: Path, tmp_path: Path) -> None:
    plain = gzip.decompress(PACKED)
    packed.write_bytes(b"".join(gzip.compress(plain[n : n + size]) for n in range(0, len(plain), size)) + bytes(999))
    folder = download_cifar(tmp_path / "data", from_file=packed)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_archive_with_long_names_and_records_about_members_is_unpacked(packed: Path, tmp_path: Path) -> None:
    extra = [member(f"{FOLDER}/{'n' * 300}", b"x"), *members(FILES)]
    for entry, _ in extra:
        entry.pax_headers = {"mtime": "1.5"}
    packed.write_bytes(files.pack(extra))
    assert content(download_cifar(tmp_path / "data", from_file=packed)) == sorted(FILES)


def test_members_of_other_names_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "given.tar.gz"
    others = [member("data_batch_1", b"x"), member("other/data_batch_1", b"x"), member(f"{FOLDER}/a/test_batch", b"x")]
    path.write_bytes(files.pack(others + members(FILES)))
    folder = download_cifar(tmp_path / "root", from_file=path)
    assert content(folder) == sorted(FILES)


def test_remains_of_a_killed_run_are_cleaned_up(packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    files.write(root / f"{FOLDER}.tmp", {"data_batch_1": b"half"})
    download_cifar(root, from_file=packed)
    assert content(root) == [FOLDER]


@pytest.mark.parametrize("given", ["nothing", "folder", "pipe", "loop", "/dev/zero"])
def test_given_archive_must_be_a_file(tmp_path: Path, given: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=f"{given}: (no such|not a) file"):
        download_cifar(tmp_path / "data", from_file=tmp_path / given)


def test_root_that_cannot_be_made_is_a_storage_error(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be made"):
        download_cifar(tmp_path / "file" / "data", from_file=packed)
    with pytest.raises(StorageError, match="cannot be made"):
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
    server = Server(files.pack(members(dict(reversed(FILES.items())))))
    try:
        download_cifar(tmp_path, url=server.url, say=said.append)
    finally:
        server.close()
    assert "not the official archive: what is in it will be checked" in said
    assert content(tmp_path) == [FOLDER]


def test_official_address_with_another_archive_is_refused_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_archive: Archive
) -> None:
    server = Server(files.pack(members(dict(reversed(FILES.items())))))
    monkeypatch.setitem(room.ARCHIVES, "cifar10", replace(small_archive, url=server.url))
    try:
        with pytest.raises(DataError, match="the archive has the wrong checksum and is removed"):
            download_cifar(tmp_path)
    finally:
        server.close()
    assert content(tmp_path) == []


def test_part_that_turns_out_wrong_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / f"{FOLDER}.tar.gz.part").write_bytes(b"what another program left here")
    server = Server(PACKED, servers.without_validator())
    try:
        download_cifar(tmp_path, url=server.url)
    finally:
        server.close()
    assert server.ranges() == ["bytes=30-", None]
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
