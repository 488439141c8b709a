"""Printing to streams that may be closed, broken, or unable to show all characters, or colours."""

import contextlib
import errno
import os
import re
import shlex
import sys
from typing import Any, TextIO

from cnnlite.errors import StorageError
from cnnlite.utils.printable import escaped

_COLOURS = {
    re.compile(r"^error:", re.MULTILINE): "1;31",  # red
    re.compile(r"^warning:", re.MULTILINE): "33",  # yellow
    re.compile(r"accuracy [\d.]+% \(best\)"): "32",  # green
    re.compile(r"^test accuracy [\d.]+%|(?<= images, )accuracy [\d.]+%"): "1;32",
}
"""Patterns that stand out at a terminal, with their codes (ECMA-48, select graphic rendition)."""


def say(text: str, *, error: bool = False) -> None:
    """Print a line to stdout or stderr; a closed pipe (``| head``) or a full disk is ignored."""
    stream: TextIO | None = sys.stderr if error else sys.stdout
    if stream is None:
        return
    text = escaped(text)
    try:
        if shows_colours(stream):
            text = coloured(text)
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            stream.write(text.encode("ascii", "backslashreplace").decode() + "\n")
        stream.flush()
    except (OSError, ValueError):
        mute(stream)


def emit(text: str) -> None:
    """Write a piece of data to stdout: as it is, in UTF-8, or as `say` does to a terminal.

    A closed pipe is ignored.

    Raises:
        StorageError: If it cannot be written, as on a full disk: what is there would look whole.
    """
    stream: Any = sys.stdout
    if stream is None or stream.isatty():
        say(text.removesuffix("\n"))
        return
    try:
        stream.flush()
        stream.buffer.write(text.encode(errors="backslashreplace"))
        stream.buffer.flush()
    except (OSError, ValueError) as error:
        mute(stream)
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EINVAL):  # the second on Windows
            raise StorageError(f"stdout: cannot write: {error.strerror}") from error


def coloured(text: str) -> str:
    """Colour what stands out in a text."""
    for pattern, colour in _COLOURS.items():
        text = pattern.sub(f"\x1b[{colour}m\\g<0>\x1b[0m", text)
    return text


def shows_colours(stream: TextIO) -> bool:
    """True if a stream is a terminal with colours, and its user wants them (https://no-color.org)."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    # The consoles of older Windows would show the codes themselves.
    tells = ("TERM", "TERM_PROGRAM", "WT_SESSION", "ANSICON") if os.name == "nt" else ("TERM",)
    return any(map(os.environ.get, tells))


def shell_word(text: str) -> str:
    """Quote a word of a command as the shell of this system wants it."""
    if os.name != "nt":
        return shlex.quote(text)
    import subprocess

    return subprocess.list2cmdline([text])


def mute(stream: TextIO) -> None:
    """Redirect a broken stream to the null device, so that Python does not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def only_ascii(stream: TextIO) -> bool:
    """True if a terminal may not show more than ASCII.

    In the C locale Python itself switches to UTF-8 (PEP 538) and sets LC_CTYPE=C.UTF-8, which says nothing about
    the terminal.
    """
    if "utf" not in (stream.encoding or "").lower():
        return True
    if os.name == "nt":
        return False
    names = ["LC_ALL", "LC_CTYPE", "LANG"]
    if os.environ.get("LC_CTYPE") == "C.UTF-8":
        names.remove("LC_CTYPE")
    chosen = next(filter(None, map(os.environ.get, names)), "C")
    return "utf" not in chosen.lower()
