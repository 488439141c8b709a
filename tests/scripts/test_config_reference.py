"""docs/config.md has what constructors and docstrings say."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cnnlite.config.options import options_of
from cnnlite.utils.registry import Registry
from tests.support.pages import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("config_reference")


def test_the_page_is_as_the_script_writes_it_on_any_machine(script: Any, tmp_path: Path) -> None:
    page = ROOT / "docs" / "config.md"
    again = Path(shutil.copy(page, tmp_path))
    done = CliRunner().invoke(script.main, ["--out", str(again)], env={"CNNLITE_DATA": str(tmp_path)})
    assert done.exit_code == 0, done.output
    same = again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert same, "run .venv/bin/python scripts/config_reference.py"


def test_all_that_has_a_name_has_its_place_on_the_page(script: Any) -> None:
    assert set(script.blocks()) == {*script.SETTINGS, *(registry.kind for registry in Registry.by_base.values())}


def test_every_option_has_a_meaning(script: Any) -> None:
    named = [registry[name] for registry in Registry.by_base.values() for name in registry]
    for cls in [*script.SETTINGS.values(), *named]:
        told = {name for base in cls.__mro__ for name in script.sections(base)[1]}
        assert told >= set(options_of(cls)), cls


def test_a_docstring_becomes_a_table_between_its_paragraphs(script: Any) -> None:
    class Example:
        """Adds ``a`` to x (Somebody 2020, arXiv:2001.00001).

        Args:
            a: with | and a second
                line.

        Afterwards.
        """

        def __init__(self, a: float | None = None):
            self.a = a

    assert script.about(Example).splitlines() == [
        "Adds `a` to x (Somebody 2020, [arXiv:2001.00001](https://arxiv.org/abs/2001.00001)).",
        "",
        "| option | type | default | meaning |",
        "|---|---|---|---|",
        r"| `a` | a number or null | `null` | with \| and a second line. |",
        "",
        "Afterwards.",
    ]


def test_no_filled_line_begins_as_the_item_of_a_list_does(script: Any) -> None:
    text = " ".join(["x * (y + z)", "`a - b`"] * 40)
    (filled,) = script.paragraphs(text)
    lines = filled.splitlines()
    assert max(map(len, lines)) <= 120
    assert not [line for line in lines if line[:2] in ("* ", "+ ", "- ")]
    assert all(line.count("`") % 2 == 0 for line in lines)
