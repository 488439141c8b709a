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


@pytest.mark.parametrize(("option", "outcome"), [([], " 2 skipped"), (["--parts"], "2 error")])
def test_what_misses_its_part_is_skipped_or_fails(option: list[str], outcome: str) -> None:
    tests = ["tests/data/datasets/test_cifar.py", "tests/tools/report/test_browser.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "real or desk", *tests, *option]
    bare = {name: value for name, value in os.environ.items() if name not in ("PATH", "CNNLITE_DATA")}
    done = subprocess.run(command, cwd=ROOT, env={**bare, "PATH": ""}, capture_output=True, encoding="utf-8")
    assert outcome in f" {done.stdout.splitlines()[-1]}", done.stdout
    assert done.returncode == len(option)
    assert all(f"needs {part}" in done.stdout for part in ("CIFAR", "Chromium"))
    assert len(option) or "passed" not in done.stdout
