"""Connections that end when a server drips: a timeout alone lets one byte now and then go on for ever."""

import http.client
import io
import socket
import time
import urllib.request
from typing import Any

SLOWEST = 1000
"""Bytes a second; a connection that brings less counts as broken."""
_LARGEST_HEAD = 1024 * 1024
"""Bytes before the content begins."""


class SlowError(TimeoutError):
    """Bytes come, but so few that the file would take for ever."""


class _Steady(io.RawIOBase):
    """Reads from a socket as long as it brings bytes at a reasonable speed: a timeout alone allows one now and then."""

    def __init__(self, sock: socket.socket):
        self._raw = sock.makefile("rb", buffering=0)
        self._patience = sock.gettimeout() or 0
        self._since, self._count = time.monotonic(), 0
        self.head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._count += count
        if self.head and self._count > _LARGEST_HEAD:
            raise http.client.HTTPException("an answer without end")
        seconds = time.monotonic() - self._since
        if count and seconds > self._patience:
            if self._count < SLOWEST * seconds:
                raise SlowError
            self._since, self._count = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any):
        super().__init__(sock, *args, **options)
        self.fp.close()
        self._steady = _Steady(sock)
        self.fp = io.BufferedReader(self._steady)

    def begin(self) -> None:
        super().begin()
        self._steady.head = False


class _Http(http.client.HTTPConnection):
    response_class = _Response


class _Https(http.client.HTTPSConnection):
    response_class = _Response


class Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https addresses with steady connections."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Http, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Https, req)
