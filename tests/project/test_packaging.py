"""What is installed: its requirements, its files, and how quickly it answers."""

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnlite
from cnnlite.config.bundled import bundled_configs, bundled_folder
from cnnlite.config.load import load_config

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cnnlite"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

EXTRAS = {
    "PIL": "data.images",
    "matplotlib": "tools.report",
    "onnx": "tools.onnx",
    "onnxruntime": "tools.onnx",
    "safetensors": "runs.safetensors_file",
    "mpi4py": "runtime.distributed",
    "tensorboardX": "training.tensorboard",
}
"""The one module or package that may import each package beyond the required ones, when it is used."""


def run_python(*arguments: str, folder: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported anywhere in a module: of modules, and of what is taken from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(name: str) -> str:
    """``nn`` for ``cnnlite.nn.layers.base``; empty for the package itself and what is not of it."""
    parts = name.split(".")
    return parts[1] if parts[0] == "cnnlite" and len(parts) > 1 and parts[1] != "__version__" else ""


def test_required_packages_are_these_four() -> None:
    required = [re.split(r"[^\w-]", text)[0] for text in PROJECT["dependencies"]]
    assert sorted(required) == ["click", "numpy", "pyyaml", "tqdm"]


def test_the_package_imports_nothing_but_the_standard_library_and_its_requirements() -> None:
    allowed = {*sys.stdlib_module_names, "cnnlite", "numpy", "click", "yaml", "tqdm"}
    for name, tree in modules().items():
        for top in {imported.split(".")[0] for imported in imports(tree)} - allowed:
            assert f"{name}.".startswith(f"cnnlite.{EXTRAS[top]}."), f"{name} imports {top}"


def test_extras_are_imported_only_where_they_are_used() -> None:
    for name, tree in modules().items():
        at_once = [
            node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
        for node in at_once:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                assert not {imported.split(".")[0] for imported in imports(node)} & EXTRAS.keys(), name


def test_the_version_is_in_the_changelog() -> None:
    versions = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cnnlite.__version__ == versions[0]


def test_what_keeps_the_promises_of_the_reliability_document_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+|tests/[\w/]+\.py|scripts/[\w.]+)[ `]", text))
    assert len(named) > 20
    paths = {f"tests/{name}.py" if name.startswith("test_") else name for name in named}
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_bundled_config_loads_by_name_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "quickstart.yaml" in bundled_configs()
    for name in bundled_configs():
        assert load_config(name).name == name.removesuffix(".yaml")


def test_the_wheel_works_alone_and_brings_all_configs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    built = run_python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), folder=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)

    listed = run_python("-m", "cnnlite", "configs", "list", folder=tmp_path, path=installed)

    assert [line.split()[0] for line in listed.stdout.splitlines()] == sorted(
        path.name for path in (ROOT / "configs").glob("*.yaml")
    )
    assert sorted(path.relative_to(installed / "cnnlite" / "configs") for path in installed.rglob("*.yaml")) == sorted(
        path.relative_to(bundled_folder()) for path in bundled_folder().rglob("*.yaml")
    )
    brought = {path.name: path.stat().st_size for path in (installed / "cnnlite" / "networks").iterdir()}
    assert brought == {path.name: path.stat().st_size for path in (ROOT / "networks").iterdir()} != {}
    for path in (PACKAGE / "py.typed", *PACKAGE.glob("tools/report/[cp]*.*"), *PACKAGE.glob("tools/show/page/*")):
        assert (installed / path.relative_to(ROOT)).is_file(), path
    assert next(installed.rglob("LICENSE")).read_text() == (ROOT / "LICENSE").read_text()
    assert not list(installed.rglob("test*"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["eval", "--help"]])
def test_help_answers_without_loading_numpy(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys; from cnnlite.cli import cli; cli({arguments}, standalone_mode=False)"
    done = run_python("-c", f"{code}; sys.exit('numpy' in sys.modules)", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_answers_quickly(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run_python("-m", "cnnlite", "--help", folder=tmp_path)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0  # far above what it takes, for machines that are busy


def test_no_imports_go_in_circles() -> None:
    trees = modules()
    del trees["cnnlite"].body[:]  # it names modules for type checkers alone, and finds them when they are asked for
    graph = {
        module: {name if name in trees else name.rpartition(".")[0] for name in imports(tree)} & trees.keys()
        for module, tree in trees.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_only_the_pool_starts_threads() -> None:
    threads = {"concurrent", "multiprocessing", "threading", "_thread", "asyncio"}
    using = {
        name for name, tree in modules().items() if any(imported.split(".")[0] in threads for imported in imports(tree))
    }
    others = {
        "cnnlite.utils.signals",
        "cnnlite.data.images",
        "cnnlite.runtime.arrays",
    }  # asks in which thread it is; lets threads wait for memory; has memory of each thread
    waiting = {"cnnlite.runtime.workers"}  # for the end of the process that spawned this one
    assert using == {"cnnlite.runtime.threads", *waiting, *others}
    for name in others:
        used = {node.attr for node in ast.walk(modules()[name]) if isinstance(node, ast.Attribute)}
        assert not used & {"Thread", "Timer"}, name
