"""Text from elsewhere (names of files, of classes, what a server or a checkpoint says) made fit to print."""

import re

_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Codes that terminals obey, and those that turn the order of letters around (Unicode TR 36, section 2.5)."""

_BYTES = re.compile("[\udc80-\udcff]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


def escaped(text: str) -> str:
    """The text with all control characters but tabs and new lines as escapes, such as those of Python."""
    return _CODES.sub(_escape, text)


def one_line(text: str, most: int = 1000) -> str:
    """The text with all control characters as escapes, new lines too, and without its middle if it is too long."""
    line = _CODES.sub(_escape, text).replace("\n", "\\n")
    if len(line) <= most:
        return line
    kept = (most - 5) // 2
    return f"{line[:kept]} ... {line[len(line) - kept :]}"


def readable(text: str) -> str:
    """The text with what is no text in it, bytes of names of files (PEP 383), read as UTF-8, else as escapes.

    Whatever must be text (a page, a label of a chart, a field of another format) is given names through this.
    """
    text = _BYTES.sub(
        lambda found: found[0].encode("ascii", "surrogateescape").decode("utf-8", "backslashreplace"), text
    )
    return text.encode(errors="backslashreplace").decode()


def is_text(text: str) -> bool:
    """Tell whether the text can be written as UTF-8."""
    return not _SURROGATES.search(text)


def has_codes(text: str) -> bool:
    """Tell whether the text holds control characters other than tabs."""
    return "\n" in text or bool(_CODES.search(text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
