"""Downloads one file over HTTP, and goes on where an earlier attempt stopped."""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cnnlite.data.download.connection import BrokenError, ask, pieces, shown
from cnnlite.errors import DataError, StorageError
from cnnlite.utils.files import open_to_append

_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}
_PROGRESS = 1024 * 1024
"""Bytes; an attempt that brings so many has not failed."""


BytesDone: TypeAlias = Callable[[int, int | None], object]
"""Told after every piece how many bytes there are, and how many there will be (None if nobody knows)."""


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
    for the next call. A checksum alone shows that all of it is from the same file.

    Raises DataError if the file cannot be had or has more than ``limit`` bytes, StorageError if it cannot be written.
    """
    if os.path.lexists(part) and (part.is_symlink() or not part.is_file()):
        raise StorageError(f"{part}: is in the way of the download and not a file; remove it")
    failed, furthest = 0, size(part)
    while True:
        try:
            return _attempt(url, part, limit, progress, timeout)
        except BrokenError as broken:
            failed += 1
            if size(part) >= furthest + _PROGRESS:
                failed, furthest = 1, size(part)
            if failed >= attempts:
                raise DataError(f"{url}: {broken}{kept(part)}") from None
        time.sleep(pause * 2 ** (failed - 1))


def size(part: Path) -> int:
    """Bytes of a partial file; 0 if there is none."""
    return part.stat().st_size if part.exists() else 0


def kept(part: Path) -> str:
    """End of a message: how to go on with a partial file; nothing if there is none."""
    return f"; {size(part):,} bytes are kept, run the same command again to go on" if size(part) else ""


def _attempt(url: str, part: Path, limit: int, progress: BytesDone, timeout: float) -> None:
    offset = size(part)
    with contextlib.closing(ask(url, offset, timeout)) as answer:
        place = answer.headers.get("Content-Range", "").strip()
        done, total = 0, getattr(answer, "length", None)
        if answer.status == 416 and offset:
            if place.replace(" ", "") == f"bytes*/{offset}":  # nothing is left to send
                return
            part.unlink()
            raise BrokenError("the server has no such part of the file")
        if answer.status == 206:
            found = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:([0-9]{1,18})|\*)", place)
            if not offset or not found or int(found[1]) != offset:
                part.unlink(missing_ok=True)
                raise BrokenError("the server sent another part of the file than it was asked for")
            done, total = offset, int(found[2]) if found[2] else None
        elif answer.status != 200:
            reason = f"the server answers {answer.status} {shown(answer.reason)}"
            raise BrokenError(reason) if answer.status in _WORTH_RETRYING else DataError(f"{url}: {reason}")
        content = pieces(answer, timeout)
        first = next(content, b"")
        if not done and first.lstrip()[:1] == b"<":
            raise DataError(f"{url}: the server sent a web page instead of the file")
        try:
            with open_to_append(part, unshare=True) as file:
                file.truncate(done)
                for piece in itertools.chain([first], content):
                    done += len(piece)
                    if max(done, total or 0) > limit:
                        break
                    file.write(piece)
                    file.flush()
                    progress(done, total)
        except OSError as error:
            raise StorageError(f"{part}: cannot be written: {error.strerror}{kept(part)}") from None
    if max(done, total or 0) > limit:
        part.unlink()
        raise DataError(f"{url}: more than the {limit:,} bytes this file may have")
    if total is not None and done < total:
        raise BrokenError(f"the connection closed after {done:,} of {total:,} bytes")
