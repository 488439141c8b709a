"""Archives are unpacked member by member; one that is not what it should be is refused, and leaves nothing."""

import gzip
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnlite.data.download import archive as room_of_archives
from cnnlite.data.download.cifar import download_cifar
from cnnlite.errors import DataError
from tests.support import cifar_files
from tests.support.archives import FILES, FOLDER, PACKED, content
from tests.support.cifar_files import Member, member, members

pytestmark = pytest.mark.usefixtures("small_archive")


Members = list[tuple[Member, bytes]]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_member(*extra: tuple[Member, bytes]) -> Callable[[], bytes]:
    return lambda: cifar_files.pack(members(FILES) + list(extra))


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
    return lambda: cifar_files.pack(members(FILES | changes))


def without(name: str) -> Callable[[], bytes]:
    return lambda: cifar_files.pack([entry for entry in members(FILES) if entry[0].name != f"{FOLDER}/{name}"])


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
        lambda: cifar_files.pack([member("cifar-10-batches-bin/data_batch_1.bin", b"x")]),
        "is missing; it holds cifar-10-batches-bin",
    ),
    "parent": (with_member(member("../evil", b"x")), r"'\.\./evil' leads out of its folder"),
    "parent inside": (with_member(member(f"{FOLDER}/../../evil", b"x")), "leads out of its folder"),
    "windows parent": (with_member(member("..\\evil", b"x")), "leads out of its folder"),
    "absolute": (with_member(member("/tmp/evil", b"x")), "leads out of its folder"),
    "symlink": (with_member(member(f"{FOLDER}/x", kind=SYMLINK, link="/etc/passwd")), "is a link or a device"),
    "symlink for a batch": (
        lambda: cifar_files.pack([member(f"{FOLDER}/data_batch_1", kind=SYMLINK, link="../../evil")]),
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
    "name that is many lines": (lambda: cifar_files.pack([member("a\nb\nc", b"x")]), "data_batch_1 is missing"),
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
    packed.write_bytes(cifar_files.pack(extra))
    assert content(download_cifar(tmp_path / "data", from_file=packed)) == sorted(FILES)


def test_members_of_other_names_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "given.tar.gz"
    others = [member("data_batch_1", b"x"), member("other/data_batch_1", b"x"), member(f"{FOLDER}/a/test_batch", b"x")]
    path.write_bytes(cifar_files.pack(others + members(FILES)))
    folder = download_cifar(tmp_path / "root", from_file=path)
    assert content(folder) == sorted(FILES)
