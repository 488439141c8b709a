import email.message
import io
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data.download import fetch as room
from cnnlite.data.download.connection import Redirects
from cnnlite.errors import DataError, StorageError
from tests.support import server as servers
from tests.support.server import Server
from tests.support.strange import KINDS, place

CONTENT = np.random.default_rng(0).bytes(600_000)
Answer = Callable[[Server, Any], None]
Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between the tests and their server."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Server] = []

    def start(*answers: Answer, content: bytes = CONTENT) -> Server:
        running.append(Server(content, *answers))
        return running[-1]

    yield start
    for server in running:
        server.close()


def fetch(server: Server, part: Path, **options: Any) -> None:
    settings: dict[str, Any] = {"limit": 10**6, "timeout": 5.0, "pause": 0.0, "attempts": 3}
    room.fetch(server.url, part, **({"progress": lambda done, total, /: None} | settings | options))


def test_whole_file_arrives_and_progress_reaches_its_length(serve: Serve, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    server = serve()
    fetch(server, tmp_path / "part", progress=lambda done, total, /: seen.append((done, total)))
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_broken_download_goes_on_where_it_stopped(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.partly(250_000), servers.partly(100_000), servers.good)
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=250000-", "bytes=350000-"]


def test_next_call_goes_on_too(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.partly(250_000), servers.good)
    with pytest.raises(DataError, match=r"closed after 250,000 of 600,000 bytes; 250,000 bytes are kept, run the same"):
        fetch(server, tmp_path / "part", attempts=1)
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=250000-"]


def test_complete_part_is_not_downloaded_again(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    fetch(server, tmp_path / "part")
    fetch(server, tmp_path / "part")
    assert server.ranges() == [None, "bytes=600000-"]
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answers",
    [
        (servers.ignores_range,),
        (servers.wrong_range, servers.good),
        (servers.no_content_range, servers.good),
        (servers.status(416), servers.good),
        (servers.status(503), servers.status(429), servers.good),
        (servers.no_length,),
        (servers.shorter_part, servers.shorter_part, servers.good),
    ],
    ids=["ignores-range", "wrong-range", "no-content-range", "416", "503-429", "no-length", "shorter"],
)
def test_rest_of_a_broken_download_is_right_whatever_the_server_does(
    serve: Serve, tmp_path: Path, answers: tuple[Answer, ...]
) -> None:
    server = serve(servers.partly(1000), *answers)
    fetch(server, tmp_path / "part", attempts=4)
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_content_length_too_large_is_told_apart_from_success(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.length(+500), servers.length(+500))
    with pytest.raises(DataError, match=r"the connection closed after 600,000 of 600,500 bytes"):
        fetch(server, tmp_path / "part", attempts=2)


@pytest.mark.parametrize("answer", [servers.silent, servers.stalls])
def test_silence_ends_after_the_timeout(serve: Serve, tmp_path: Path, answer: Answer) -> None:
    server = serve(answer)
    with pytest.raises(DataError, match=r"no answer for 0\.1 s"):
        fetch(server, tmp_path / "part", timeout=0.1, attempts=2)
    assert len(server.requests) == 2


def test_stalled_download_goes_on(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.stalls, servers.good)
    fetch(server, tmp_path / "part", timeout=0.2)
    assert server.ranges() == [None, "bytes=100-"]
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize("typed", [True, False])
def test_web_page_is_refused_and_neither_kept_nor_put_in_the_place_of_a_part(
    serve: Serve, tmp_path: Path, typed: bool
) -> None:
    server = serve(servers.web_page(typed), servers.partly(1000), servers.web_page(typed))
    with pytest.raises(DataError, match="the server sent a web page instead of the file"):
        fetch(server, tmp_path / "part")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="the server sent a web page instead of the file"):
        fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("answer", [servers.good, servers.no_length])
def test_file_larger_than_allowed_is_refused(serve: Serve, tmp_path: Path, answer: Answer) -> None:
    with pytest.raises(DataError, match=r"more than the 500,000"):
        fetch(serve(answer), tmp_path / "part", limit=500_000)
    assert not (tmp_path / "part").exists()


def test_refusal_of_the_server_is_final(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.status(404))
    with pytest.raises(DataError, match="the server answers 404 Not Found"):
        fetch(server, tmp_path / "part")
    assert len(server.requests) == 1


def test_nobody_listening_is_one_line(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    server.close()
    with pytest.raises(DataError, match=r"no connection \(Connection refused\)"):
        fetch(server, tmp_path / "part")


def test_unwritable_part_is_a_storage_error(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written: No such file or directory"):
        fetch(serve(), tmp_path / "nowhere" / "part")


def test_full_disk_keeps_the_part_and_is_not_tried_again(serve: Serve, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    server = serve()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"File too large; 100,000 bytes are kept, run the same command again"):
            fetch(server, tmp_path / "part")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(server.requests) == 1
    fetch(server, tmp_path / "part")
    assert server.ranges() == [None, "bytes=100000-"]
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_way_of_the_part_is_not_opened(serve: Serve, tmp_path: Path, kind: str) -> None:
    victim = place(tmp_path / "part", kind)
    with pytest.raises(StorageError, match="part: is in the way of the download and not a file"):
        fetch(serve(), tmp_path / "part")
    assert os.path.lexists(tmp_path / "part")
    assert kind != "link" or victim.read_text() == "precious"
    assert kind != "dangling link" or not victim.exists()


def test_a_part_that_is_the_same_file_as_another_one_leaves_that_alone(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.partly(250_000), servers.partly(100_000), servers.ignores_range)
    for _ in range(2):
        with pytest.raises(DataError):
            fetch(server, tmp_path / "part", attempts=1)
        os.link(tmp_path / "part", tmp_path / f"copy {len(server.requests)}")
    fetch(server, tmp_path / "part")
    assert [(tmp_path / f"copy {number}").stat().st_size for number in (1, 2)] == [250_000, 350_000]
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize("head", [True, False])
def test_slow_drip_ends(serve: Serve, tmp_path: Path, head: bool) -> None:
    server = serve(servers.drips(head))
    with pytest.raises(DataError, match=r"less than 1,000 bytes a second for 0\.2 s"):
        fetch(server, tmp_path / "part", timeout=0.2, attempts=2)
    assert len(server.requests) == 2


def test_slow_drip_is_kept_and_goes_on(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.drips(head=False), servers.good, content=b"x" * 600_000)
    fetch(server, tmp_path / "part", timeout=0.2)
    assert (tmp_path / "part").read_bytes() == b"x" * 600_000
    assert server.ranges()[1] not in (None, "bytes=0-")


def test_connection_that_breaks_often_is_tried_as_long_as_it_brings_something(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PROGRESS", 50_000)
    server = serve(servers.partly(60_000))
    fetch(server, tmp_path / "part", attempts=2)
    assert (tmp_path / "part").read_bytes() == CONTENT
    server = serve(servers.partly(40_000))
    with pytest.raises(DataError, match="120,000 bytes are kept"):
        fetch(server, tmp_path / "other", attempts=2)


def test_file_that_begins_again_and_again_ends(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PROGRESS", 50_000)

    def whole_but_cut(server: Server, handler: Any) -> None:
        servers.send(handler, 200, server.content[:60_000], len(server.content))

    with pytest.raises(DataError):
        fetch(serve(whole_but_cut), tmp_path / "part")


LONG = b"HTTP/1.1 206 Partial\r\n"
NONSENSE = {
    "no HTTP": servers.raw(b"SSH-2.0-OpenSSH\r\n"),
    "codes of terminals": servers.raw(b"HTTP/1.0 404 \x1b[31mred\x07" + b"!" * 5000 + b"\r\n\r\n"),
    "line without end": servers.raw(b"HTTP/1.0 200 OK\r\nX: ", b"x" * 10_000),
    "endless 100 Continue": servers.raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "length of 5,000 digits": servers.raw(b"HTTP/1.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n<"),
    "negative length": servers.raw(b"HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n<"),
    "range of 5,000 digits": servers.raw(LONG + b"Content-Range: bytes 5-9/" + b"9" * 5000 + b"\r\n\r\nx"),
    "bad chunks": servers.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n"),
    "chunk cut short": servers.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nxx"),
    "redirect to no address": servers.raw(b"HTTP/1.0 302 Found\r\nLocation: http://[x\r\n\r\n"),
    "redirect to nowhere": servers.raw(b"HTTP/1.0 302 Found\r\n\r\n"),
    "redirect with codes": servers.raw(b"HTTP/1.0 302 Found\r\nLocation: ftp://a/\x1b[31m\r\n\r\n"),
    "redirect to no port": servers.raw(b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:99999999/\r\n\r\n"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_of_a_server_is_one_printable_line(serve: Serve, tmp_path: Path, case: str) -> None:
    started = time.monotonic()
    with pytest.raises(DataError) as raised:
        fetch(serve(NONSENSE[case]), tmp_path / "part", attempts=2, timeout=1.0)
    assert time.monotonic() - started < 5
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_redirects_in_a_circle_are_one_line(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    server.answers = [servers.redirect(server.url)]
    with pytest.raises(DataError, match=r"the server answers 302 .*infinite loop") as raised:
        fetch(server, tmp_path / "part")
    assert str(raised.value).isprintable()
    assert len(server.requests) < 20


def test_page_that_comes_with_a_redirect_is_not_read(serve: Serve, tmp_path: Path) -> None:
    target = serve()
    head = f"HTTP/1.0 302 Found\r\nLocation: {target.url}\r\n\r\n".encode()
    fetch(serve(servers.raw(head, b"x" * 10_000)), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_redirect_within_http_is_followed(serve: Serve, tmp_path: Path) -> None:
    target = serve()
    fetch(serve(servers.redirect(target.url)), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_redirect_out_of_http_is_refused(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"refused to follow a redirect from http to ftp://example\.org/x"):
        fetch(serve(servers.redirect("ftp://example.org/x")), tmp_path / "part")


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "HTTP://a.org/x", False),
        ("https://a.org/x", "ftp://a.org/x", False),
        ("http://a.org/x", "file:///etc/passwd", False),
        ("https://a.org/x", "https://b.org/x", True),
        ("http://a.org/x", "https://a.org/x", True),
        ("http://a.org/x", "http://b.org/x", True),
    ],
)
def test_redirects_never_lose_protection(old: str, new: str, allowed: bool) -> None:
    request = urllib.request.Request(old)
    arguments = (request, io.BytesIO(), 302, "Found", email.message.Message(), new)
    if allowed:
        following = Redirects().redirect_request(*arguments)
        assert following is not None
        assert following.full_url == new
    else:
        with pytest.raises(DataError, match="refused to follow a redirect"):
            Redirects().redirect_request(*arguments)
