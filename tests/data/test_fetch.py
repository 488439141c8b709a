import email.message
import io
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import fetch as room
from cnnlite.data.fetch import Redirects, check_url
from cnnlite.errors import ConfigError, DataError, StorageError

from . import server as servers
from .server import Server

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
    assert [request.get("If-Range") for request in server.requests] == [None, '"one"', '"one"']


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
    ],
    ids=["ignores-range", "wrong-range", "no-content-range", "416", "503-429", "no-length"],
)
def test_rest_of_a_broken_download_is_right_whatever_the_server_does(
    serve: Serve, tmp_path: Path, answers: tuple[Answer, ...]
) -> None:
    server = serve(servers.partly(1000), *answers)
    fetch(server, tmp_path / "part", attempts=4)
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize("answer", [servers.good, servers.ignores_if_range])
def test_file_that_changed_in_between_is_fetched_from_its_start(serve: Serve, tmp_path: Path, answer: Answer) -> None:
    server = serve(servers.partly(1000), answer, servers.good)
    with pytest.raises(DataError):
        fetch(server, tmp_path / "part", attempts=1)
    server.content, server.tag = CONTENT[::-1], '"two"'
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT[::-1]


def test_part_of_another_address_is_not_continued(serve: Serve, tmp_path: Path) -> None:
    first, second = serve(servers.partly(1000)), serve(content=CONTENT[::-1])
    with pytest.raises(DataError):
        fetch(first, tmp_path / "part", attempts=1)
    fetch(second, tmp_path / "part")
    assert second.ranges() == [None]
    assert (tmp_path / "part").read_bytes() == CONTENT[::-1]


def test_server_without_validator_is_continued_without_if_range(serve: Serve, tmp_path: Path) -> None:
    server = serve(servers.without_validator(1000), servers.without_validator())
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1000-"]
    assert "If-Range" not in server.requests[1]


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
def test_web_page_is_refused_and_not_kept(serve: Serve, tmp_path: Path, typed: bool) -> None:
    with pytest.raises(DataError, match="the server sent a web page instead of the file"):
        fetch(serve(servers.web_page(typed)), tmp_path / "part")
    assert list(tmp_path.iterdir()) == []


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


def test_full_disk_is_a_storage_error(serve: Serve, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "part").symlink_to(full)
    with pytest.raises(StorageError, match="No space left on device"):
        fetch(serve(servers.ignores_range), tmp_path / "part")


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


@pytest.mark.parametrize(
    "url", ["ftp://a.org/x", "file:///x", "a.tar.gz", "http://", "http://a:b/", "https://a b/", ""]
)
def test_bad_address_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="not an http or https address"):
        check_url(url)
