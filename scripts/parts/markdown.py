"""Figures in a Markdown file: a block between two marks, replaced by the script that measures them."""

import textwrap
from collections.abc import Iterable
from pathlib import Path

import click

WIDTH = 120


def write(out: Path, figures: str, marks: tuple[str, str]) -> None:
    """Write the figures between the marks in the file, or to a new file."""
    first, last = marks
    block = f"{first}\n{figures}\n{last}"
    if not out.exists():
        out.write_text(f"{block}\n", encoding="utf-8")
        return
    before, begin, rest = out.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise click.ClickException(f"{out}: has no lines {first} and {last} to write between")
    out.write_text(f"{before}{block}{after}", encoding="utf-8")


def bullets(items: Iterable[str]) -> list[str]:
    """Return the lines of a list with these items."""
    return [
        line
        for item in items
        for line in textwrap.wrap(
            item, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]
