#!/usr/bin/env python3
"""Check the tests of the kernels: make each mistake listed in mutants.txt, one at a time, and see a test fail for it.

Works in a copy of the repository, with the tests that mirror each module, first those that have noticed another mistake
of its section, and stops at the first that fails. Needs pytest, and PyTorch for the mistakes that only the comparisons
with it can notice. Exits with 1 if a mistake survived; writes the result of the whole list to CONTRIBUTING.md.
"""

import contextlib
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from parts.markdown import bullets, write

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".txt")
MODULE = re.compile(r"\[([\w/]+\.py)\] (.+)")
MARKS = ("<!-- mutants -->", "<!-- end of mutants -->")
PATIENCE = 900
"""Seconds that the tests of a mutant may take before it counts as caught, as an endless loop is."""


@dataclass(frozen=True)
class Mutant:
    """A mistake to make in a module."""

    module: str
    """Path in the package, such as ``nn/kernels/im2col.py``."""
    tests: tuple[str, ...]
    """Arguments of pytest."""
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}: {self.before} => {self.after}"

    def apply(self, source: str) -> str:
        """Return the source with the mistake; ValueError if the replaced code is not there exactly once."""
        if source.count(self.before) != 1:
            raise ValueError(
                f"{self.module} has {source.count(self.before)} times what a mutant replaces: {self.before}"
            )
        return source.replace(self.before, self.after)


def read(text: str) -> Iterator[Mutant]:
    """Yield the mutants of a list; ValueError for a line that is none."""
    module, tests = "", tuple[str, ...]()
    for line in text.splitlines():
        if section := MODULE.fullmatch(line):
            module, tests = section[1], tuple(shlex.split(section[2]))
        elif line and not line.startswith("#"):
            before, arrow, after = line.partition(" => ")
            if not arrow:
                raise ValueError(f"expected `before => after`: {line}")
            yield Mutant(module, tests, before, after)


def copy_of_repository(folder: Path) -> Path:
    """Copy what the tests need to ``folder``, and return it."""
    for name in ("cnnlite", "tests", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@contextlib.contextmanager
def replaced(file: Path, source: str) -> Iterator[None]:
    """Replace the code of a module inside the block."""
    own = file.read_text(encoding="utf-8")
    compiled = Path(importlib.util.cache_from_source(str(file)))
    file.write_text(source, encoding="utf-8")
    compiled.unlink(missing_ok=True)  # it would be taken for the new one within the same second
    yield
    file.write_text(own, encoding="utf-8")
    compiled.unlink(missing_ok=True)


def failure(tests: tuple[str, ...], folder: Path) -> str:
    """Return the first failing test, run in a forked process that has only imported the package; empty if all pass."""
    log = folder / "log.txt"
    child = os.fork()  # pytest and NumPy are imported already, which takes longer than few tests
    if not child:
        code = 70
        try:
            signal.alarm(PATIENCE)
            with log.open("w", encoding="utf-8") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = importlib.import_module("pytest").main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests])
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()  # os._exit does not
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    if code == -signal.SIGALRM:
        return f"nothing ends within {PATIENCE} s"
    text = log.read_text(encoding="utf-8", errors="replace")
    if failed := re.search(r"^(?:FAILED|ERROR|ImportError while loading) (\S+)", text, re.MULTILINE):
        return failed[1]
    raise click.ClickException(f"pytest {shlex.join(tests)} ended with {code}:\n{text[-2000:]}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Part of the mutants' lines or modules.")
@click.option("--skip-baseline", is_flag=True, help="Skip the tests of the unchanged code.")
@click.option(
    "--list", "path", type=click.Path(path_type=Path, exists=True), default=LIST, help="File of other mutants."
)
def main(only: str, skip_baseline: bool, path: Path) -> None:
    """Try all mutants; print the test that caught each, and the survivors."""
    mutants = [mutant for mutant in read(path.read_text(encoding="utf-8")) if only in str(mutant)]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and each costs time in each process
    survivors = []
    noticing: dict[tuple[str, ...], dict[str, None]] = {}  # tests that have noticed others of a section
    with tempfile.TemporaryDirectory() as name:
        folder = copy_of_repository(Path(name))
        mutated = [mutant.apply((folder / "cnnlite" / mutant.module).read_text(encoding="utf-8")) for mutant in mutants]
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        for package in ("cnnlite", "numpy", "pytest"):  # the copy's cnnlite first: it limits the threads of NumPy
            importlib.import_module(package)
        for tests in {} if skip_baseline else dict.fromkeys(mutant.tests for mutant in mutants):
            if failed := failure(tests, folder):
                raise click.ClickException(f"{failed} fails without any mistake")
        for number, (mutant, source) in enumerate(zip(mutants, mutated, strict=True), start=1):
            start = time.perf_counter()
            with replaced(folder / "cnnlite" / mutant.module, source):
                likely = noticing.setdefault(mutant.tests, {})
                noticed = failure((*reversed(likely),), folder) if likely else ""
                noticed = noticed or failure(mutant.tests, folder)
            if not noticed:
                survivors.append(mutant)
            elif "::" in noticed and noticed.count("[") == noticed.count("]"):  # whole, as no space is in it
                likely.pop(noticed, None)
                likely[noticed] = None
            took = time.perf_counter() - start
            click.echo(f"{number}/{len(mutants)} {noticed or 'SURVIVED'} ({took:.0f} s): {mutant}")
    summary = f"{len(mutants)} mutants, {len(mutants) - len(survivors)} caught"
    click.echo(summary)
    for mutant in survivors:
        click.echo(f"survived: {mutant}")
    if path == LIST and not only:
        write(ROOT / "CONTRIBUTING.md", "\n".join(bullets([f"Mistakes made on purpose: {summary}."])), MARKS)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
