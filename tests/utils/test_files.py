"""Reading what may not be a file at all; writing whole or not at all, and nowhere that a link leads to."""

import contextlib
import errno
import fcntl
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnlite.errors import CheckpointError, ConfigError, DataError, StorageError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.utils.files import (
    check_writable,
    open_to_append,
    read_small,
    refuse_existing,
    remove_temporary,
    replacing,
    write_bytes,
    write_files,
)
from tests.support.strange import KINDS, LINKS, place


def next_descriptor() -> int:
    """The number that the next file gets: the lowest that is free."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("read", [load_checkpoint, lambda path: read_small(path, 9)], ids=["checkpoint", "small"])
def test_a_folder_in_the_place_of_a_file_is_not_left_open(read: Callable[[Path], object], tmp_path: Path) -> None:
    before = next_descriptor()
    with contextlib.suppress(CheckpointError, DataError):
        read(tmp_path)
    assert next_descriptor() == before


def temporary_names(path: Path) -> set[str]:
    with replacing(path):
        return {entry.name for entry in path.parent.iterdir()} - {path.name}


def test_no_two_temporary_files_have_a_name_that_could_be_foreseen(tmp_path: Path) -> None:
    names = [name for _ in range(20) for name in temporary_names(tmp_path / "a")]
    assert len(set(names)) == 20
    assert not any(str(os.getpid()) in name.split("-")[0] for name in names)


@pytest.mark.parametrize("write", [write_bytes, lambda path, data: write_files({path: data})], ids=["one", "several"])
def test_a_link_planted_for_a_temporary_name_is_not_followed(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0" * 2 * count)
    (tmp_path / f".cnnlite-{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(StorageError, match="new: cannot write: File exists"):
        write(tmp_path / "new", b"x")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("n" * 255), b"x")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("n" * 255, b"x")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_at_the_destination_is_replaced_if_it_is_a_file_or_a_link_to_one(kind: str, tmp_path: Path) -> None:
    path, victim = tmp_path / "a", place(tmp_path / "a", kind)
    if kind in ("link", "dangling link"):
        write_bytes(path, b"new")
        assert (path.is_symlink(), path.read_bytes()) == (False, b"new")
    else:
        with pytest.raises(StorageError, match="a: is not a regular file; remove it"):
            write_bytes(path, b"new")
        assert os.path.lexists(path)
    assert kind != "link" or victim.read_text() == "precious"
    assert kind != "dangling link" or not victim.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_appended_to_what_leads_elsewhere(kind: str, tmp_path: Path) -> None:
    victim = place(tmp_path / "a", kind)
    with pytest.raises(StorageError, match="a: is not a regular file; remove it"):
        open_to_append(tmp_path / "a")
    assert kind not in LINKS or not victim.is_file() or victim.read_text() == "precious"
    assert kind != "dangling link" or not victim.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_appended_to_what_was_put_there_since_it_was_looked_at(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "lstat", lambda path: os.stat(__file__))
    victim = place(tmp_path / "a", kind)
    with pytest.raises((OSError, StorageError)):
        open_to_append(tmp_path / "a")
    assert kind != "dangling link" or not victim.exists()


WRITER = """
import sys
from pathlib import Path
from cnnlite.utils.files import replacing
with replacing(Path(sys.argv[1])):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_only_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    kept = [".notes.tmp", ".a.1.tmp", ".cnnlite-123.tmp", ".cnnlite-" + "0" * 16 + ".tmp.txt", "cnnlite.tmp"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    ours = ".cnnlite-" + "{}" * 16 + ".tmp"
    (tmp_path / ours.format(*"1" * 16)).mkdir()
    victim = place(tmp_path / ours.format(*"2" * 16), "link")
    os.mkfifo(tmp_path / ours.format(*"3" * 16))
    before = {path.name for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a")]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        remove_temporary(tmp_path)
        (alive,) = {path.name for path in tmp_path.iterdir()} - before
    finally:
        writer.kill()
        writer.communicate()
    assert (tmp_path / alive).exists()
    remove_temporary(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert victim.read_text() == "precious"


def test_where_files_cannot_be_locked_nothing_is_removed_on_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f".cnnlite-{'0' * 16}.tmp").write_text("x")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    remove_temporary(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    write_bytes(tmp_path / "a", b"x")


def test_files_that_exist_are_all_named_before_anything_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcdef"]
    for path in paths[1:]:
        path.write_text("mine")
    with pytest.raises(ConfigError) as caught:
        write_files(dict.fromkeys(paths, b"new"))
    named = ", ".join(map(str, paths[1:4]))
    assert (
        str(caught.value) == f"{named} and 2 more: exist already; name another place, or replace them with force=True"
    )
    assert not paths[0].exists()
    write_files(dict.fromkeys(paths, b"new"), force=True)
    assert {path.read_bytes() for path in paths} == {b"new"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("force", [False, True])
def test_a_command_replaces_files_and_links_when_told_to_and_nothing_else_ever(
    kind: str, force: bool, tmp_path: Path
) -> None:
    victim = place(tmp_path / "a", kind)
    if force and kind in ("link", "dangling link"):
        write_files({tmp_path / "a": b"new"}, force=True)
        assert not (tmp_path / "a").is_symlink()
    else:
        words = "exists already" if kind in ("link", "dangling link") else "is not a regular file; name another place"
        with pytest.raises(ConfigError, match=words):
            refuse_existing([tmp_path / "a"], force=force)
    assert kind != "link" or victim.read_text() == "precious"


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_several_files_all_are_written_or_the_old_ones_stay(
    hard_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, link, fresh, last = (tmp_path / name for name in ("old", "link", "fresh", "last"))
    old.write_text("mine")
    link.symlink_to("old")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target == last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "replace", refuse)
    if not hard_links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StorageError, match="last: cannot write: No space left"):
        write_files(dict.fromkeys((old, link, fresh, last), b"new"), force=True)
    if hard_links:
        assert (old.read_text(), os.readlink(link)) == ("mine", "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "old"]


def test_a_folder_is_tried_without_leaving_or_following_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "missing")
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0" * 2 * count)
    victim = place(tmp_path / f".cnnlite-{'0' * 16}.tmp", "link")
    with pytest.raises(FileExistsError):
        check_writable(tmp_path)
    assert victim.read_text() == "precious"


def test_what_is_appended_to_a_copy_made_of_hard_links_is_not_in_the_original(tmp_path: Path) -> None:
    (tmp_path / "original").write_text("one\n")
    os.link(tmp_path / "original", tmp_path / "copy")
    for word in (b"two\n", b"three\n"):
        with open_to_append(tmp_path / "copy", unshare=True) as file:
            file.write(word)
    assert (tmp_path / "original").read_text() == "one\n"
    assert (tmp_path / "copy").read_text() == "one\ntwo\nthree\n"
