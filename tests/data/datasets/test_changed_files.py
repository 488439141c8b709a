"""Valid files of CIFAR, changed at random: they are read, or refused with a DataError, in no time."""

import contextlib
import gzip
import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite.data.datasets.cifar import Cifar10
from cnnlite.data.download.archive import extract
from cnnlite.errors import DataError
from tests.support import cifar_files

FOLDER = "cifar-10-batches-py"
FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "number"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    for kind, share, number in edits:
        # Structure is at the start and the end; most of the rest is pixels.
        at = int(share * 2 * min(300, len(content))) - min(300, len(content))
        at %= max(1, len(content))
        piece = number.to_bytes(4, "little")
        content = {
            "flip": content[:at] + bytes([content[at] ^ 1 << number % 8]) + content[at + 1 :] if content else b"",
            "cut": content[:at],
            "insert": content[:at] + piece + content[at:],
            "repeat": content[:at] + content[at : at + number % 700] + content[at:],
            "number": content[:at] + piece + content[at + 4 :],
        }[kind]
    return content


@contextlib.contextmanager
def refused_or_fine_in_no_time() -> Iterator[None]:
    began = time.process_time()
    with contextlib.suppress(DataError):
        yield
    assert time.process_time() - began < 2


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made = {
        name: cifar_files.write(tmp_path_factory.mktemp("cifar"), content)
        for name, content in (
            ("data_batch_1", cifar_files.python_files(2)),
            ("data_batch_1.bin", cifar_files.binary_files(2)),
        )
    }
    return made.__getitem__


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_1.bin"])
def test_a_changed_batch_is_read_or_refused(name: str, roots: Callable[[str], Path]) -> None:
    root = roots(name)
    whole = (root / name).read_bytes()
    outcomes = set()

    @FEW
    @given(EDITS)
    def attempt(edits: list[tuple[str, float, int]]) -> None:
        (root / name).write_bytes(changed(whole, edits))
        outcomes.add("refused")
        with refused_or_fine_in_no_time():
            dataset = Cifar10().load(root)
            assert dataset.train.images.shape[1:] == (32, 32, 3)
            assert len(dataset.train.images) == len(dataset.train.labels)
            assert set(dataset.train.labels.tolist()) <= set(range(10))
            outcomes.add("read")

    attempt()
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("packed", [True, False])
def test_a_changed_archive_is_unpacked_whole_or_leaves_nothing(packed: bool, form: int, tmp_path: Path) -> None:
    content = cifar_files.python_files(1)
    sums = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for member, data in cifar_files.members(content):
            tar.addfile(member, io.BytesIO(data))
    whole = gzip.compress(stream.getvalue(), 1, mtime=0) if packed else stream.getvalue()

    @settings(FEW, max_examples=30)
    @given(EDITS)
    def attempt(edits: list[tuple[str, float, int]]) -> None:
        damaged = changed(whole, edits)
        root = tmp_path / "root"
        target = root / FOLDER
        (tmp_path / "a.tar.gz").write_bytes(damaged if packed else gzip.compress(damaged, 1, mtime=0))
        with refused_or_fine_in_no_time():
            extract(tmp_path / "a.tar.gz", target, sums, lambda done, total, /: None)
            assert {path.name: path.read_bytes() for path in target.iterdir()} == content
            for path in target.iterdir():
                path.unlink()
            target.rmdir()
        assert not list(root.iterdir())

    attempt()
