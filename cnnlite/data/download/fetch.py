"""Downloads one file over HTTP, and goes on where an earlier attempt stopped."""

import contextlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from cnnlite import __version__
from cnnlite.data.download.connection import SLOWEST, Handler, SlowError
from cnnlite.errors import ConfigError, DataError, StorageError
from cnnlite.utils.files import open_to_append, write_bytes
from cnnlite.utils.hints import Argument

_CHUNK = 256 * 1024
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}
_PROGRESS = 1024 * 1024
"""Bytes; an attempt that brings so many has not failed."""


class BytesDone(Protocol):
    """Told how many bytes there are, and how many there will be (None if nobody knows)."""

    def __call__(self, done: int, total: int | None, /) -> None:
        """Called after every piece."""


class _InterruptedError(Exception):
    """The attempt failed in a way that the next one may not."""


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something less protected."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()  # else all of the page that comes with it would be read, however long
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old = urlsplit(req.full_url).scheme
        if not _is_address(newurl) or (old == "https" and urlsplit(newurl).scheme != "https"):
            raise DataError(f"{req.full_url}: refused to follow a redirect from {old} to {_shown(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class _Note:
    """Kept beside a partial file: what it is a part of."""

    url: str
    validator: str
    """ETag or date of the file on the server; empty if the server gave none."""

    @staticmethod
    def path(part: Path) -> Path:
        return part.with_name(part.name + ".json")

    @classmethod
    def read(cls, part: Path) -> "_Note | None":
        try:
            with cls.path(part).open("rb") as file:
                content = json.loads(file.read(100_000))
            return cls(str(content["url"]), str(content["validator"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, part: Path) -> None:
        write_bytes(self.path(part), json.dumps(self.__dict__).encode())


def discard(part: Path) -> None:
    """Remove a partial file and what is noted about it."""
    part.unlink(missing_ok=True)
    _Note.path(part).unlink(missing_ok=True)


def check_url(url: str) -> None:
    """Raises ConfigError if ``url`` is not an http or https address."""
    if not _is_address(url):
        hint = f"for a file on this machine use {Argument('from_file')}"
        raise ConfigError(f"{Argument('url')} {_shown(url)}: not an http or https address; {hint}")


def _is_address(url: str) -> bool:
    with contextlib.suppress(ValueError):
        address = urlsplit(url)
        printable = url.isascii() and url.isprintable() and " " not in url
        return bool(address.scheme in ("http", "https") and address.hostname and address.port != 0 and printable)
    return False


def fetch(
    url: str,
    part: Path,
    *,
    limit: int,
    progress: BytesDone,
    timeout: float = 30.0,
    attempts: int = 5,
    pause: float = 1.0,
) -> None:
    """Download ``url`` to ``part``, continuing with what an earlier attempt left there.

    A connection that breaks, says nothing for ``timeout`` seconds, or next to nothing for longer, is tried again: after
    ``pause`` seconds at first and twice as long each time, ``attempts`` times without progress. What arrived is kept
    for the next call.

    Raises DataError if the file cannot be had or has more than ``limit`` bytes, StorageError if it cannot be written.
    """
    check_url(url)
    for path in (part, _Note.path(part)):
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise StorageError(f"{path}: is in the way of the download and not a file; remove it")
        if size(path) and _Note.read(part) is None:  # nothing says that it is ours to write to, or to remove
            raise StorageError(f"{path}: is in the way of the download and not one of cnnlite's; move it elsewhere")
    reason, failed, furthest = "", 0, size(part)
    while failed < attempts:
        if failed:
            time.sleep(pause * 2 ** (failed - 1))
        try:
            _attempt(url, part, limit, progress, timeout)
            return
        except _InterruptedError as interruption:
            reason = str(interruption)
        failed += 1
        if size(part) >= furthest + _PROGRESS:
            failed, furthest = 1, size(part)
    kept = f"; {size(part):,} bytes are kept, run the same command again to go on" if part.exists() else ""
    raise DataError(f"{url}: {reason}{kept}")


def size(part: Path) -> int:
    """Bytes of a partial file; 0 if there is none."""
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _attempt(url: str, part: Path, limit: int, progress: BytesDone, timeout: float) -> None:
    note = _Note.read(part)
    if note is not None and note.url != url:
        discard(part)
        note = None
    offset = size(part)
    try:
        with _open(url, offset, note, timeout) as response:
            start, total = _place(response, offset, part)
            if "html" in response.headers.get("Content-Type", ""):
                raise DataError(f"{url}: the server sent a web page instead of the file")
            if note is not None and start and note.validator != _validator(response):
                discard(part)
                raise _InterruptedError("the file on the server changed")
            _receive(response, part, start, total, limit, progress, _Note(url, _validator(response)))
    except urllib.error.HTTPError as error:
        _judge(error, url, offset, part)
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(_reason(error, timeout)) from None
    except ValueError as error:  # an address in a redirect
        raise DataError(f"{url}: the server sends what is no HTTP: {_shown(str(error))}") from None


def _open(url: str, offset: int, note: _Note | None, timeout: float) -> http.client.HTTPResponse:
    # The archives are compressed already; a server that compresses once more would change the byte positions.
    headers = {"User-Agent": f"cnnlite/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if note is not None and note.validator:
            headers["If-Range"] = note.validator
    opener = urllib.request.build_opener(Redirects, Handler)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (check_url and Redirects see to the scheme)
    response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    return response


def _judge(error: urllib.error.HTTPError, url: str, offset: int, part: Path) -> None:
    """An answer that is an error: fine if it says that nothing is left to send."""
    with contextlib.closing(error):
        if error.code == 416 and offset:
            if error.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{offset}":
                return
            discard(part)
            raise _InterruptedError("the server has no such part of the file")
        reason = f"the server answers {error.code} {_shown(str(error.reason))}"
        if error.code in _WORTH_RETRYING:
            raise _InterruptedError(reason)
        raise DataError(f"{url}: {reason}")


def _place(response: http.client.HTTPResponse, offset: int, part: Path) -> tuple[int, int | None]:
    """Where in the file the answer begins, and how long the file is."""
    if response.status == 206:
        found = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if not offset or not found or int(found[1]) != offset:
            discard(part)
            raise _InterruptedError("the server sent another part of the file than it was asked for")
        return offset, None if found[3] == "*" else int(found[3])
    if response.status != 200:
        raise _InterruptedError(f"the server answers {response.status} {_shown(response.reason)}")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else None


def _validator(response: http.client.HTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _receive(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    limit: int,
    progress: BytesDone,
    note: _Note,
) -> None:
    if total is not None and total > limit:
        raise DataError(f"{note.url}: {total:,} bytes are more than the {limit:,} this file may have")
    done = start
    with _writing(part):
        file = open_to_append(part, unshare=True).detach()  # nothing is left to write when it is closed
    with file:
        note.write(part)
        with _writing(part):
            file.truncate(start)
        while chunk := response.read1(_CHUNK):
            if done == 0 and chunk.lstrip()[:1] == b"<":
                discard(part)
                raise DataError(f"{note.url}: the server sent a web page instead of the file")
            done += len(chunk)
            if done > limit:
                discard(part)
                raise DataError(f"{note.url}: more than the {limit:,} bytes this file may have")
            with _writing(part):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) or 0 :]
            progress(done, total)
    if total is not None and done < total:
        raise _InterruptedError(f"the connection closed after {done:,} of {total:,} bytes")
    if total is not None and done > total:
        discard(part)
        raise _InterruptedError(f"the server sent {done:,} bytes of a file of {total:,}")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tells a full disk from a broken connection: both are OSErrors."""
    try:
        yield
    except OSError as error:
        kept = f"; {size(path):,} bytes are kept, run the same command again to go on" if size(path) else ""
        raise StorageError(f"{path}: cannot be written: {error.strerror}{kept}") from None


def _reason(error: Exception, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, SlowError):
        return f"less than {SLOWEST:,} bytes a second for {timeout:g} s"
    if isinstance(cause, TimeoutError):
        return f"no answer for {timeout:g} s"
    if isinstance(cause, http.client.IncompleteRead):
        return "the connection closed too soon"
    return f"no connection ({_shown(getattr(cause, 'strerror', None) or str(cause) or type(cause).__name__)})"


def _shown(text: str) -> str:
    """What a server said, as part of a message: short, on one line, without codes that terminals obey."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in line[:100])
