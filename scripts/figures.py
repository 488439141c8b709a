#!/usr/bin/env python3
"""Measure the code: lines by package, response times, test coverage and duration; for CONTRIBUTING.md.

.venv/bin/python scripts/figures.py lines times     # times need an idle machine
.venv/bin/python scripts/figures.py coverage suite  # needs pytest-cov; some minutes
"""

import ast
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from parts.markdown import bullets, write

from cnnlite.runtime import engine

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cnnlite"
CORE = (
    "nn/layers", "nn/kernels", "nn/network.py", "nn/fusion.py", "nn/losses.py", "runtime/engine.py",
    "runtime/shards.py", "optim", "training/loop.py", "training/step.py",
)  # fmt: skip
"""Packages and modules that compute: an evening's reading."""
CORE_TESTS = (
    "nn", "optim", "runtime/test_engine.py", "runtime/test_engine_memory.py", "runtime/test_engine_training.py",
    "runtime/test_shards.py", "runtime/test_workers.py", "training/test_step.py", "training/test_workers.py",
    "training/test_loop.py", "training/test_interrupted.py", "training/test_early_stopping.py",
    "training/test_warm_start.py",
)  # fmt: skip
"""Tests that mirror the core, without those that only pass through it."""
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def modules(place: str) -> list[Path]:
    """Return the modules of a package of cnnlite, or the module itself."""
    path = PACKAGE / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def packages() -> list[str]:
    """Return all packages and modules at the top of cnnlite."""
    found = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return sorted(path.name for path in found)


def count(source: str) -> tuple[int, int]:
    """Return the lines of a module, and those with code: not blank, no comment, no docstring."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(source.splitlines()), len(code)


def totals(paths: Iterable[Path]) -> tuple[int, int]:
    """Return the sums of the counts of several modules."""
    counts = [count(path.read_text(encoding="utf-8")) for path in paths]
    return sum(lines for lines, _ in counts), sum(code for _, code in counts)


def lines() -> Iterator[str]:
    """Yield the amount of code, in Markdown."""
    sizes = {name: totals(modules(name)) for name in {*CORE, *packages()}}
    rows = [(f"`{name}`", [name]) for name in CORE] + [("the core", list(CORE))]
    rows += [(f"`{name}`", [name]) for name in packages()] + [("all of cnnlite", packages())]
    yield "| what | files | lines | of code |"
    yield "|---|---|---|---|"
    for title, names in rows:
        row = (sum(len(modules(name)) for name in names), *(sum(sizes[name][k] for name in names) for k in (0, 1)))
        yield f"| {title} | " + " | ".join(f"{number:,}" for number in row) + " |"


def milliseconds(arguments: list[str], rounds: int = 20) -> float:
    """Return the median duration of a process of this Python."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
        found.append(time.perf_counter() - start)
    return statistics.median(found) * 1e3


def times() -> Iterator[str]:
    """Yield the response times, in Markdown."""
    yield from bullets(
        [
            f"`cnnlite --help`: {milliseconds(['-m', 'cnnlite', '--help']):.0f} ms, as a whole process; "
            f"`import cnnlite`: {milliseconds(['-c', 'import cnnlite']):.0f} ms; with all that training needs, NumPy "
            f"included: {milliseconds(['-c', 'import cnnlite.api']):.0f} ms; Python alone: "
            f"{milliseconds(['-c', '']):.0f} ms (medians of 20)."
        ]
    )


def coverage() -> Iterator[str]:
    """Yield the coverage of the core by its own tests, in Markdown; print missed lines to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        command = [
            sys.executable, "-m", "pytest", "-q", "-n", str(engine.available_cores()), "--cov=cnnlite", "--cov-branch",
            "--cov-report=", f"--cov-report=json:{report}", *(str(ROOT / "tests" / name) for name in CORE_TESTS),
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)  # noqa: S603 - our own tests
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    paths = {name: modules(name) for name in CORE}
    yield "| what | lines reached | branches |"
    yield "|---|---|---|"
    shares = []
    for name in CORE:
        summaries = [files[str(path.relative_to(ROOT))] for path in paths[name]]
        shares += summaries
        yield f"| `{name}` | {share(summaries)} |"
        for path, found in zip(paths[name], summaries, strict=True):
            if found["missing_lines"]:
                click.echo(f"{path.relative_to(ROOT)}: not reached: {found['missing_lines']}", err=True)
    yield f"| the core | {share(shares)} |"


def suite() -> Iterator[str]:
    """Yield the duration of the tests that ``scripts/test`` runs, in Markdown."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not long", "-n", str(engine.available_cores())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    found = done.stdout.splitlines()[-1].strip("= ")
    yield from bullets([f"The tests of `scripts/test`, on {engine.available_cores()} cores: {found}."])


def share(files: list[dict[str, Any]]) -> str:
    """Return the percentages of lines and of branches."""

    def percent(part: str, whole: str) -> str:
        numbers = [sum(file["summary"][key] for file in files) for key in (part, whole)]
        return f"{100 * numbers[0] / numbers[1]:.1f} %" if numbers[1] else "-"

    return f"{percent('covered_lines', 'num_statements')} | {percent('covered_branches', 'num_branches')}"


WAYS = {"lines": lines, "times": times, "coverage": coverage, "suite": suite}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("what", nargs=-1, required=True, type=click.Choice(list(WAYS)))
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "CONTRIBUTING.md")
def main(what: tuple[str, ...], out: Path) -> None:
    """Measure, print, and write to --out."""
    for name in what:
        text = "\n".join(WAYS[name]())
        click.echo(text)
        write(out, text, (f"<!-- {name} -->", f"<!-- end of {name} -->"))


if __name__ == "__main__":
    main()
