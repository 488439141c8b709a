"""Escapes for untrusted text: names of files and classes, words of a server or a checkpoint."""

import re

_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Codes that terminals obey, and those that turn the order of letters around (Unicode TR 36, section 2.5)."""

_BYTES = re.compile("[\udc80-\udcff]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


def escaped(text: str) -> str:
    """Escape all control characters but tabs and new lines, as Python does."""
    return _CODES.sub(_escape, text)


def one_line(text: str, most: int = 1000) -> str:
    """Escape all control characters, new lines too, and cut out the middle of a text that is too long."""
    line = _CODES.sub(_escape, text).replace("\n", "\\n")
    if len(line) <= most:
        return line
    kept = (most - 5) // 2
    return f"{line[:kept]} ... {line[len(line) - kept :]}"


def readable(text: str) -> str:
    """Decode bytes of file names (PEP 383) in a text as UTF-8, and escape those that are not.

    For names in whatever must be text: a page, a label of a chart, a field of another format.
    """
    text = _BYTES.sub(
        lambda found: found[0].encode("ascii", "surrogateescape").decode("utf-8", "backslashreplace"), text
    )
    return text.encode(errors="backslashreplace").decode()


def is_text(text: str) -> bool:
    """True if the text can be encoded as UTF-8."""
    return not _SURROGATES.search(text)


def has_codes(text: str) -> bool:
    """True if the text holds control characters other than tabs."""
    return "\n" in text or bool(_CODES.search(text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
