#!/usr/bin/env python3
"""Write the tables of docs/config.md again, from the constructors and docstrings of all that a config may name.

.venv/bin/python scripts/config_reference.py     # after each change of an option, or of the words about it
"""

import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from parts.markdown import WIDTH, write

from cnnlite.config.construct import kind_of
from cnnlite.config.options import options_of, to_plain
from cnnlite.config.settings import DataSettings, TrainSettings
from cnnlite.optim.composite import Member
from cnnlite.utils.registry import Registry

OUT = Path(__file__).resolve().parent.parent / "docs" / "config.md"
SETTINGS: dict[str, type] = {"data": DataSettings, "train": TrainSettings, "member": Member}
"""Classes that a config does not name, by the marks of their tables."""


def blocks() -> dict[str, str]:
    """Return the content of docs/config.md by mark, in Markdown."""
    found = {mark: table(cls) for mark, cls in SETTINGS.items()}
    for registry in Registry.by_base.values():
        entries = (f"### {name}\n\n{about(registry[name])}" for name in registry)
        found[registry.kind] = "\n\n".join(entries)
    return found


def about(cls: type) -> str:
    """Return the docstring of a class, with a table of its options in place of ``Args:``."""
    before, _, after = sections(cls)
    return "\n\n".join(part for part in (before, table(cls), after) if part)


def table(cls: type) -> str:
    """Return the options of a class, each with its type, default and meaning; empty if there are none."""
    meanings = {name: text for base in reversed(cls.__mro__) for name, text in sections(base)[1].items()}
    rows = [
        f"| `{name}` | {kind_of(option.annotation).words} | "
        f"{'required' if option.default is None else f'`{plain(option.default())}`'} | {meanings[name]} |"
        for name, option in options_of(cls).items()
    ]
    return "\n".join(["| option | type | default | meaning |", "|---|---|---|---|", *rows]) if rows else ""


def plain(value: object) -> str:
    """Return a default as written in a config; for an object just its name, as its options have their defaults."""
    written = to_plain(value)
    if isinstance(written, dict):
        (written,) = written
    return yaml.safe_dump(written, default_flow_style=True).removesuffix("\n...\n").strip()


def sections(cls: type) -> tuple[str, dict[str, str], str]:
    """Return the docstring of a class in Markdown: the text before ``Args:``, that of each option, and the rest."""
    before, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n\nArgs:\n")
    options, *after = re.split(r"\n+(?=\S)", rest, maxsplit=1)
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", options, re.MULTILINE)
    meanings = {name: markdown(text).replace("\n", " ").replace("|", r"\|") for name, text in entries}
    return "\n\n".join(paragraphs(before)), meanings, "\n\n".join(paragraphs("".join(after)))


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring in Markdown, filled; no line begins with an operator, as list items do."""
    for paragraph in re.split(r"\n{2,}", text):
        glued = re.sub(r"`[^`]*`| [-+*=](?= )", lambda found: found[0].replace(" ", "\0"), markdown(paragraph))
        filled = textwrap.fill(glued, WIDTH, break_long_words=False, break_on_hyphens=False)
        yield filled.replace("\0", " ")


def markdown(text: str) -> str:
    """Return text with code in single backquotes, and papers as links."""
    text = re.sub(r"\s+", " ", text).replace("``", "`")
    return re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT, help="The page to write into.")
def main(out: Path) -> None:
    """Replace each table, and nothing else of the page."""
    os.environ.pop("CNNLITE_DATA", None)  # or the page would have this machine's folder as a default
    for mark, text in blocks().items():
        write(out, text, (f"<!-- {mark} -->", f"<!-- end of {mark} -->"))


if __name__ == "__main__":
    main()
