"""Formatting of numbers and texts for people, and the durations that they write."""

import math
import re
from collections.abc import Sequence


def percent(value: float | None) -> str:
    """Format a fraction as a percentage; a dash for None."""
    return "-" if value is None else f"{value:.1%}"


def duration(seconds: float) -> str:
    """Format a duration: ``45 s``, ``5 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def seconds_of(text: str) -> float:
    """Parse a duration such as ``90s``, ``20m``, ``1.5h`` or ``1h30m``; ValueError if it is none above 0."""
    number = r"(\d+\.?\d*|\.\d+)"
    found = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.replace(" ", ""))
    parts = found.groups() if found else ()
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is not a time; write 90s, 20m or 1h30m")
    return seconds


def size_text(count: int) -> str:
    """Format a number of bytes with a unit that fits."""
    for unit, size in ("GB", 1e9), ("MB", 1e6), ("kB", 1e3):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


def clip(text: str, length: int = 60) -> str:
    """Cut ``text`` to ``length`` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def quoted(text: str) -> str:
    """Quote a text for a CSV file (RFC 4180); all are, as the versions of `csv` do not agree on which have to be."""
    return '"' + text.replace('"', '""') + '"'


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Format a table as plain text; the columns ``left`` are aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
