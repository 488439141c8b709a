"""The scripts that measure replace their own block of a document, and nothing else of it."""

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


@pytest.fixture
def markdown(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("parts.markdown")


def test_figures_are_written_between_their_marks(markdown: Any, tmp_path: Path) -> None:
    out = tmp_path / "notes.md"
    first, last = MARKS
    out.write_text(f"before\n{first}\nold\n{last}\nafter\n", encoding="utf-8")
    markdown.write(out, "new", MARKS)
    assert out.read_text(encoding="utf-8") == f"before\n{first}\nnew\n{last}\nafter\n"


def test_a_file_without_marks_is_not_overwritten(markdown: Any, tmp_path: Path) -> None:
    out = tmp_path / "notes.md"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(Exception, match="figures"):
        markdown.write(out, "new", MARKS)
    assert out.read_text(encoding="utf-8") == "mine"
    for text in ("new", "newer"):
        markdown.write(tmp_path / "fresh.md", text, MARKS)
    assert (tmp_path / "fresh.md").read_text(encoding="utf-8").split("\n")[1] == "newer"


def test_long_items_go_over_several_lines(markdown: Any) -> None:
    words = " ".join(["measured"] * 30)
    lines = markdown.bullets(["short", words])
    assert max(map(len, lines)) <= 120
    assert [line[:2] for line in lines] == ["- ", "- ", "  ", "  "]
    assert " ".join(line[2:] for line in lines[1:]) == words


@pytest.mark.parametrize("name", ["bench_growth", "bench_shapes", "bench_vs_torch"])
def test_the_document_has_the_marks_of_each_script(name: str, markdown: Any) -> None:
    script = importlib.import_module(name)
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert [text.count(mark) for mark in script.MARKS] == [1, 1]
