"""Page of the network at work: one HTML file with its style, its scripts and all numbers, which needs no network."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from cnnlite import __version__
from cnnlite.tools.show.numbers import Numbers
from cnnlite.utils.printable import readable

SCRIPTS = (
    "data", "functions", "arithmetic", "gradients", "dom", "paint", "parts", "windows", "convolution", "returns",
    "curve", "pointwise", "matrix", "shapes", "ends", "film", "audit", "overview", "closeup", "main",
)  # fmt: skip
"""Modules of JavaScript in the folder ``page``, in an order in which each is after those that it imports from."""
_EXPORT = re.compile(r"^export (?:async )?(?:function\*?|const|let) (\w+)", re.MULTILINE)
_FOLDER = Path(__file__).with_name("page")


def page_html(title: str, facts: dict[str, Any], numbers: Numbers) -> str:
    """Return the whole page, with names that are not valid text made readable."""
    parts = {
        "version": escape(__version__),
        "title": escape(title),
        "style": _read("page.css"),
        "facts": _json({**facts, "version": __version__, "shapes": numbers.shapes}),
        "numbers": numbers.text(),
        "script": script(),
    }
    # One pass, as names in the facts may look like a place for something else.
    return readable(re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("page.html")))


def script() -> str:
    """Return all modules as one script: imports from files would be requests."""
    return "\n".join(_as_function(name, _read(f"{name}.js")) for name in SCRIPTS)


def _as_function(name: str, module: str) -> str:
    """Return a module as a call that returns what it exports, so that its other names stay its own."""
    exports = _EXPORT.findall(module)
    inside = _EXPORT.sub(lambda found: found[0].removeprefix("export "), module)
    inside = re.sub(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', r"const \1 = from_\2;", inside, flags=re.MULTILINE)
    return f"const from_{name} = (() => {{\n{inside}return {{ {', '.join(exports)} }};\n}})();"


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _json(facts: dict[str, Any]) -> str:
    """Return JSON that no name can end, or turn into a comment, where it lies in HTML."""
    return json.dumps(facts, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
