"""What CONTRIBUTING says of the code is counted and measured as it says."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.project.test_packaging import modules, package

ROOT = Path(__file__).parents[2]
SOURCE = '''"""A module.

With a docstring."""

import math  # used below

# A comment.
TABLE = [
    1,

    2,  # counts
]


def area(r: float) -> float:
    """A sentence."""
    text = """not a
docstring"""
    return math.pi * r**2 + len(text)
'''


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("figures")


def test_code_is_what_is_no_docstring_comment_or_blank_line(script: Any) -> None:
    assert script.count(SOURCE) == (19, 9)


def test_every_package_is_counted_once(script: Any) -> None:
    names = {package(name) for name in modules()} - {""}
    assert {name.removesuffix(".py") for name in script.packages()} == names | {"__init__"}
    text = "\n".join(script.lines())
    assert all(f"| `{name}` |" in text for name in script.packages())
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "cnnlite").rglob("*.py"))
    assert f"| {lines:,} |" in text


def test_shares_are_percent_of_all_lines_and_branches(script: Any) -> None:
    def file(*numbers: int) -> dict[str, Any]:
        keys = ("covered_lines", "num_statements", "covered_branches", "num_branches")
        return {"summary": dict(zip(keys, numbers, strict=True))}

    assert script.share([file(9, 10, 1, 4), file(90, 90, 0, 0)]) == "99.0 % | 25.0 %"
    assert script.share([file(5, 10, 0, 0)]) == "50.0 % | -"


def test_contributing_has_a_place_for_each_figure(script: Any) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in [*script.WAYS, "mutants"]:
        assert [text.count(mark) for mark in (f"<!-- {name} -->", f"<!-- end of {name} -->")] == [1, 1], name


def test_processes_are_timed(script: Any) -> None:
    assert 1 < script.milliseconds(["-c", ""], rounds=1) < 60_000


def test_the_tests_of_the_core_are_there(script: Any) -> None:
    assert all((ROOT / "tests" / name).exists() for name in script.CORE_TESTS)
    assert all(path.is_file() for name in script.CORE for path in script.modules(name))
