"""The list of mistakes that tests have to notice fits the code, and the script that makes them tells who survived."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "mutants.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("mutants")


def test_each_mistake_of_the_list_can_be_made_in_one_place(script: Any) -> None:
    mutants = list(script.read(script.LIST.read_text(encoding="utf-8")))
    for mutant in mutants:
        source = (ROOT / "cnnlite" / mutant.module).read_text(encoding="utf-8")
        assert mutant.apply(source) != source
    modules = {mutant.module for mutant in mutants}
    kernels = {f"nn/kernels/{path.name}" for path in (ROOT / "cnnlite/nn/kernels").glob("*.py")} - {
        "nn/kernels/__init__.py"
    }
    assert kernels
    assert kernels <= modules
    assert sum(mutant.module in kernels for mutant in mutants) >= 50


def test_a_mistake_in_no_place_or_two_is_refused(script: Any) -> None:
    for source in ("", "a = b\na = b\n"):
        with pytest.raises(ValueError, match="times what a mutant replaces"):
            script.Mutant("x.py", (), "a = b", "a = c").apply(source)
    with pytest.raises(ValueError, match="expected `before => after`"):
        list(script.read("[x.py] tests/x.py\na = b -> a = c"))


def test_who_is_caught_and_who_survives_is_told(tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text(
        """\
[nn/layers/initializers.py] tests/nn/layers/test_initializers.py -k unit
ddof=1 => ddof=0
whatever the shape. => whatever.
import math => import maths
""",
        encoding="utf-8",
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as nearly everybody's
    command = [sys.executable, str(SCRIPT), "--list", str(few)]
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1/3 tests/nn/layers/test_initializers.py::test_unit_is_uniform")
    assert lines[1].startswith("2/3 SURVIVED")
    assert lines[3:] == [
        "3 mutants, 2 caught",
        "survived: nn/layers/initializers.py: whatever the shape. => whatever.",
    ]
