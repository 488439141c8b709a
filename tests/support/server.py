"""A web server on this machine that misbehaves as told."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Serves ``content``; each request is answered by the next of ``answers``, the last of them for ever."""

    def __init__(self, content: bytes, *answers: Callable[["Server", Any], None]):
        self.content = content
        self.tag = '"one"'
        self.answers = list(answers) or [good]
        self.requests: list[dict[str, str]] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(dict(self.headers.items()))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                answer(server, self)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/archive.tar.gz"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop serving; requests that are being ignored end."""
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def ranges(self) -> list[str | None]:
        """The Range headers of all requests."""
        return [request.get("Range") for request in self.requests]


def send(
    handler: Any, status: int, body: bytes, length: int | None = None, tag: str | None = None, **headers: str
) -> None:
    """Answer; ``length`` is a Content-Length that may lie, -1 for none at all."""
    handler.send_response(status)
    if length != -1:
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    if tag:
        handler.send_header("ETag", tag)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def _asked(server: Server, handler: Any) -> int:
    """First byte of the range asked for; 0 if there is none, or if it was asked of another version."""
    given = handler.headers.get("Range", "")
    if not given or handler.headers.get("If-Range", server.tag) != server.tag:
        return 0
    return int(given.removeprefix("bytes=").removesuffix("-"))


def partly(count: int | None = None) -> Callable[[Server, Any], None]:
    """As a good server, but breaking off after ``count`` bytes."""

    def answer(server: Server, handler: Any) -> None:
        start, size = _asked(server, handler), len(server.content)
        if start >= size:
            send(handler, 416, b"", Content_Range=f"bytes */{size}")
            return
        body = server.content[start:][:count]
        if start:
            send(handler, 206, body, size - start, server.tag, Content_Range=f"bytes {start}-{size - 1}/{size}")
        else:
            send(handler, 200, body, size, server.tag)

    return answer


good = partly()


def ignores_range(server: Server, handler: Any) -> None:
    """Always the whole file."""
    send(handler, 200, server.content, tag=server.tag)


def wrong_range(server: Server, handler: Any) -> None:
    """A part, but not the part that was asked for."""
    size = len(server.content)
    body = server.content[5 : 5 + size - _asked(server, handler)]
    send(handler, 206, body, tag=server.tag, Content_Range=f"bytes 5-{4 + len(body)}/{size}")


def no_content_range(server: Server, handler: Any) -> None:
    """A part, without saying which."""
    send(handler, 206, server.content[5:], tag=server.tag)


def length(difference: int) -> Callable[[Server, Any], None]:
    """The whole file, with a Content-Length that is wrong by so much."""
    return lambda server, handler: send(handler, 200, server.content, len(server.content) + difference)


def no_length(server: Server, handler: Any) -> None:
    """The whole file, its end being the end of the connection."""
    send(handler, 200, server.content, -1)


def silent(server: Server, handler: Any) -> None:
    """Never answers."""
    server.closing.wait()


def drips(head: bool) -> Callable[[Server, Any], None]:
    """Sends byte after byte of the file, or of the lines before it, each before any timeout."""

    def answer(server: Server, handler: Any) -> None:
        if head:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        else:
            send(handler, 200, b"", len(server.content), server.tag)
        while not server.closing.wait(0.02):
            handler.wfile.write(b"x")

    return answer


def raw(answer: bytes, again: bytes = b"") -> Callable[[Server, Any], None]:
    """Just these bytes; then those of ``again`` for as long as anybody reads."""

    def write(server: Server, handler: Any) -> None:
        handler.wfile.write(answer)
        while again and not server.closing.is_set():
            handler.wfile.write(again)

    return write


def stalls(server: Server, handler: Any) -> None:
    """Falls silent after a hundred bytes."""
    send(handler, 200, server.content[:100], len(server.content), server.tag)
    server.closing.wait()


def web_page(typed: bool) -> Callable[[Server, Any], None]:
    """A page of HTML with status 200."""
    kind = "text/html; charset=utf-8" if typed else "application/gzip"
    return lambda server, handler: send(handler, 200, b"\n<!DOCTYPE html><html>Sorry</html>", Content_Type=kind)


def status(code: int) -> Callable[[Server, Any], None]:
    """An error."""
    return lambda server, handler: send(handler, code, b"no")


def shorter_part(server: Server, handler: Any) -> None:
    """A part that begins where it should, and ends before the end of the file."""
    start, total = _asked(server, handler), len(server.content)
    body = server.content[start : start + 50_000]
    place = f"bytes {start}-{start + len(body) - 1}/{total}"
    send(handler, 206, body, tag=server.tag, Content_Range=place)


def redirect(to: str) -> Callable[[Server, Any], None]:
    """Sends elsewhere."""
    return lambda server, handler: send(handler, 302, b"", Location=to)
