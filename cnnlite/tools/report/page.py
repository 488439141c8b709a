"""A page in one HTML file, with embedded pictures, tables and text: no requests, no scripts."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from cnnlite import __version__
from cnnlite.utils.printable import readable

_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


class Page:
    """A page under construction, and the files of its pictures."""

    def __init__(self, title: str, subtitle: str):
        self.title = title
        self.subtitle = subtitle
        self.files: dict[str, bytes] = {}
        """Pictures that are also stored beside the page, by file name."""
        self._parts: list[str] = []

    def add(self, *html: str) -> None:
        """Append HTML."""
        self._parts += html

    def section(self, title: str, text: str = "") -> None:
        """Begin a section with a title and a paragraph."""
        self.add(f"<h2>{escape(title)}</h2>", paragraph(text))

    def image(self, name: str, content: bytes, alt: str, *, keep: bool = True) -> str:
        """Embed a picture, stored as the file ``name`` too if ``keep``, and return its HTML."""
        if keep:
            self.files[name] = content
        kind = Path(name).suffix
        pixels = ' class="pixels"' if kind == ".png" else ""
        data = base64.b64encode(content).decode()
        return f'<img{pixels} alt="{escape(alt)}" src="data:{_KINDS[kind]};base64,{data}">'

    def html(self) -> str:
        """Return the whole page, with names that are not valid text made readable."""
        style, template = (
            Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.html")
        )
        files = ", ".join(f"<code>{escape(name)}</code>" for name in self.files)
        return readable(
            Template(template).substitute(
                title=escape(self.title),
                subtitle=escape(self.subtitle),
                style=style,
                body="\n".join(self._parts),
                kept=f"<p>The pictures are also files beside this page: {files}.</p>" if files else "",
                version=escape(__version__),
            )
        )


def paragraph(text: str) -> str:
    """Return a paragraph; empty without text."""
    return f"<p>{escape(text)}</p>" if text else ""


def figure(image: str, caption: str, *, scrolls: bool = False) -> str:
    """Return a picture with its caption; one that ``scrolls`` keeps a readable size on narrow screens."""
    if scrolls:
        image = f'<div class="scroll"><div class="wide">{image}</div></div>'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def grid(parts: Iterable[str], kind: str = "") -> str:
    """Return boxes side by side, as many as fit the screen."""
    return f'<div class="{f"grid {kind}".strip()}">{"".join(parts)}</div>'


def cards(items: Sequence[tuple[str, str]]) -> str:
    """Return figures, each above its name."""
    return grid((f'<div class="box"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in items), "cards")


def note(title: str, text: str, command: str = "", *, kind: str = "") -> str:
    """Return a box with a few sentences, and a command."""
    code = f"<code>{escape(command)}</code>" if command else ""
    return f'<div class="{f"box {kind}".strip()}"><h3>{escape(title)}</h3><p>{escape(text)}{code}</p></div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = ()) -> str:
    """Return a table that scrolls inside its box; the columns ``text`` are aligned left, as is the first."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = (' class="text"' if index in text else "" for index in range(len(row)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{cells(header, 'th')}</tr></thead>"
    return f'<div class="box scroll" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


def details(summary: str, text: str) -> str:
    """Return text in a box that opens at a click."""
    inside = f'<div class="scroll" tabindex="0"><pre>{escape(text)}</pre></div>'
    return f'<details class="box"><summary>{escape(summary)}</summary>{inside}</details>'
