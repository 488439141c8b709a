"""Printing to streams that may be closed, broken, or unable to show all characters."""

import contextlib
import os
import sys
from typing import TextIO


def say(text: str, *, error: bool = False) -> None:
    """Print a line to stdout or stderr; a reader that went away (``| head``) or a full disk is no reason to end."""
    stream: TextIO | None = sys.stderr if error else sys.stdout
    if stream is None:
        return
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            stream.write(text.encode("ascii", "backslashreplace").decode() + "\n")
        stream.flush()
    except (OSError, ValueError):
        mute(stream)


def mute(stream: TextIO) -> None:
    """Send what is and will be written to a broken stream nowhere, so that the exit of Python does not complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def only_ascii(stream: TextIO) -> bool:
    """Tell whether a terminal may not show more than ASCII.

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
