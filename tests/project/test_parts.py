"""Tests that need PyTorch, Chromium or CIFAR-10 say so in one way, and fail where all should be there and is not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


def test_the_fixtures_alone_look_for_the_parts() -> None:
    own = re.compile(r"(?:importorskip|find_spec)\(.torch|chromium|environ.*CNNLITE_DATA")
    looking = [path.name for path in TESTS.rglob("*.py") if own.search(path.read_text(encoding="utf-8"))]
    assert sorted(looking) == ["conftest.py", Path(__file__).name]


@pytest.mark.parametrize("test", ["data/datasets/test_cifar.py", "tools/report/test_browser.py"])
@pytest.mark.parametrize(("option", "outcome"), [([], " 1 skipped"), (["--parts"], "1 error")])
def test_what_misses_its_part_is_skipped_or_fails(test: str, option: list[str], outcome: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "real or desk", f"tests/{test}", *option]
    bare = {name: value for name, value in os.environ.items() if name not in ("PATH", "CNNLITE_DATA")}
    done = subprocess.run(command, cwd=ROOT, env={**bare, "PATH": ""}, capture_output=True, encoding="utf-8")
    assert outcome in f" {done.stdout.splitlines()[-1]}", done.stdout
    assert done.returncode == len(option)
    assert "needs C" in done.stdout
    assert len(option) or "passed" not in done.stdout
