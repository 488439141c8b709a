"""The pages that users read, and the pieces of them that tests hold to the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT).as_posix()) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md")
)
"""From the root, as links name them."""


def read(page: str) -> str:
    """The text of a page, named from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)


def rows(page: str, heading: str) -> dict[str, str]:
    """The rows of the table whose first column has the ``heading``: the name in the first cell, and the rest."""
    table = re.search(rf"^\| {heading} \|.*\n((?:\|.*\n)+)", read(page), re.MULTILINE)
    assert table, f"no table of {heading} in {page}"
    return dict(re.findall(r"^\| `([\w-]+)` \|(.*)", table[1], re.MULTILINE))
