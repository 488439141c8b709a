"""Opens addresses so that every wait ends: a timeout alone lets one byte now and then go on for ever."""

import contextlib
import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from cnnlite import __version__
from cnnlite.errors import DataError
from cnnlite.utils.printable import one_line

_CHUNK = 256 * 1024
_SLOWEST = 1000
"""Bytes a second; a connection that brings less counts as broken."""


class BrokenError(Exception):
    """The connection failed in a way that the next one may not."""


class _Steady(io.RawIOBase):
    """Reads as long as bytes come at a reasonable speed, and those before the content within the timeout."""

    def __init__(self, raw: io.RawIOBase, timeout: float):
        self._raw, self._timeout = raw, timeout
        self._since, self._count = time.monotonic(), 0
        self.head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._count += count
        seconds = time.monotonic() - self._since
        if count and seconds > self._timeout:
            if self._count < _SLOWEST * seconds:
                raise BrokenError(f"less than {_SLOWEST:,} bytes a second for {self._timeout:g} s")
            if self.head:
                raise TimeoutError
            self._since, self._count = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any):
        super().__init__(sock, *args, **options)
        self._steady = _Steady(self.fp.detach(), sock.gettimeout() or 0)
        self.fp = io.BufferedReader(self._steady)

    def begin(self) -> None:
        super().begin()
        self._steady.head = False


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> http.client.HTTPResponse:
        def steady(*args: Any, **options: Any) -> Any:
            connection = http_class(*args, **options)
            connection.response_class = _Response
            return connection

        return super().do_open(steady, req, **options)


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something less protected."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()  # else all of the page that comes with it would be read, however long
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old = urlsplit(req.full_url).scheme
        if not is_address(newurl) or (old == "https" and urlsplit(newurl).scheme != "https"):
            raise DataError(f"{req.full_url}: refused to follow a redirect from {old} to {shown(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def ask(url: str, offset: int, timeout: float) -> Any:
    """The answer to a request for what ``url`` holds from the byte ``offset`` on, be it an error of the server.

    ``timeout`` is for each wait, and for all that comes before the content. Raises BrokenError, or DataError if another
    attempt would not help.
    """
    # The archives are compressed already; a server that compresses once more would change the byte positions.
    headers = {"User-Agent": f"cnnlite/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - is_address sees to the scheme
    with _broken(timeout):
        try:
            return urllib.request.build_opener(Redirects, _Handler).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            return error
        except ValueError as error:  # an address in a redirect
            raise DataError(f"{url}: the server sends what is no HTTP: {shown(str(error))}") from None


def pieces(answer: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The content of an answer, as it comes; raises BrokenError."""
    with _broken(timeout):
        while piece := answer.read1(_CHUNK):
            yield piece


@contextlib.contextmanager
def _broken(timeout: float) -> Iterator[None]:
    """Make a BrokenError of whatever says that a connection failed; an OSError could also be one of a disk."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            raise BrokenError(f"no answer for {timeout:g} s") from None
        if isinstance(cause, http.client.IncompleteRead):
            raise BrokenError("the connection closed too soon") from None
        why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise BrokenError(f"no connection ({shown(why)})") from None


def is_address(url: str) -> bool:
    """True if ``url`` is a printable http or https address."""
    try:
        address = urlsplit(url)
        printable = url.isascii() and url.isprintable() and " " not in url
        return bool(address.scheme in ("http", "https") and address.hostname and address.port != 0 and printable)
    except ValueError:
        return False


def shown(text: str) -> str:
    """Quote a server in a message: short, on one line, without codes that terminals obey."""
    return one_line(" ".join(text.split()), 150)
