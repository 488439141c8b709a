"""Who may do what: which packages import which, know ranks, write files; and that two ways are as described."""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from click.testing import CliRunner

import cnnlite
from cnnlite.cli import cli
from tests.project.test_packaging import ROOT, imports, modules, package
from tests.support.small_runs import TINY

TABLE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("packages -->")[1]
ORDER = [*re.findall(r"^\| `(\w+)` \|", TABLE, re.MULTILINE), "errors"]
"""All packages, from the top to the bottom."""
APART = {("data", "nn"), ("data", "optim"), ("cli", "api")}
"""Pairs of which neither may import the other, though one is above."""

ASKS_FOR_RANK = {"cnnlite.training.evaluation"}
"""Takes its share of the images by the number of the rank. All others hand over what they have and get sums back."""

WRITERS = {
    "utils.files": "how everything is written: whole or not at all",
    "runs.checkpoint": "checkpoints",
    "runs.directory": "the run directory: makes and empties it; its files but these three",
    "runs.metrics_file": "metrics.csv, appended to, where `directory` says",
    "training.reporter": "log.txt, appended to, where `directory` says",
    "runs.lock": "the lock in a run directory",
    "runs.traces": "removes what a process made for a run that came to nothing",
    "tools.report": "report/, after the run",
    "tools.onnx": "the ONNX file",
    "tools.weights": "the file of safetensors",
    "tools.show": "the page",
    "data": "datasets and their caches",
    "cli": "configs that `configs copy` copies; the null device in the place of a closed stream",
    "utils.console": "the null device in the place of a closed stream",
    "runtime.machine": "resets the count of memory in /proc",
}
"""Who changes files, and which."""


def below(upper: str) -> set[str]:
    """The packages that a package may import."""
    own = set(ORDER[ORDER.index(upper) + 1 :])
    return {name for name in own if (upper, name) not in APART and (name, upper) not in APART}


def test_contributing_has_a_row_for_each_package_which_names_each_of_its_modules() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", TABLE, re.MULTILINE))
    assert {*rows, "errors", "__main__"} == {package(module) for module in modules()} - {""}
    assert len(list((ROOT / "cnnlite").glob("*/__init__.py"))) == 10
    for name in ("config", "nn", "runs", "runtime", "tools", "training", "utils"):
        inside = {module.split(".")[2] for module in modules() if module.startswith(f"cnnlite.{name}.")}
        assert {module for module in inside if f"`{module}`" not in rows[name]} == set(), name


def test_packages_import_only_those_below_them() -> None:
    assert below("optim") == {"nn", "runtime", "utils", "errors"}
    assert below("data") == {"runtime", "utils", "errors"}
    wrong = {
        f"{module} imports {imported}"
        for module, tree in modules().items()
        for imported in imports(tree)
        for upper, lower in [(package(module), package(imported))]
        if upper not in ("", "__main__") and lower and upper != lower and lower not in below(upper)
    }
    assert wrong == {"cnnlite.errors imports cnnlite.utils.printable.one_line"}  # itself without imports


@pytest.mark.parametrize("name", ["config", "runs", "runtime", "tools", "training", "utils"])
def test_packages_whose_modules_are_imported_one_by_one_import_none_themselves(name: str) -> None:
    assert list(imports(modules()[f"cnnlite.{name}"])) == []


def test_only_distributed_knows_ranks() -> None:
    asking = set()
    for name, tree in modules().items():
        if name.startswith("cnnlite.runtime.distributed"):
            continue
        inside = {imported for imported in imports(tree) if imported.startswith("cnnlite.runtime.distributed.")}
        assert all(imported.rpartition(".")[2] in interface() for imported in inside), name
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if attributes & {"rank", "Get_rank", "COMM_WORLD", "messages"}:
            asking.add(name)
    assert asking == ASKS_FOR_RANK


def interface() -> set[str]:
    """What `distributed` itself offers; its modules are its own business."""
    module = importlib.import_module("cnnlite.runtime.distributed")
    return {name for name, value in vars(module).items() if not isinstance(value, type(module))}


def writing(tree: ast.AST) -> Iterator[str]:
    """The calls in a module that change files."""
    own = {"mkdir", "touch", "unlink", "rmdir", "rmtree", "makedirs", "write_bytes", "hardlink_to", "symlink_to"}
    own |= {"replacing", "write_files", "open_to_append", "remove_temporary"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        text, arguments = ast.unparse(node.func), [ast.unparse(argument) for argument in node.args]
        name = text.rpartition(".")[2]
        opens = name == "open" and any(re.fullmatch(r"'[rb]*[wax+].*'", argument) for argument in arguments)
        opens |= text == "os.open" and bool(re.search("O_(WRONLY|RDWR)", ast.unparse(node)))
        # A path's write_text takes the text alone, that of `files` and of a run the name as well.
        writes = name == "write_text" and (len(node.args) == 1 or text == name)
        if name in own or opens or writes or text in {"os.replace", "os.rename", "os.link"}:
            yield text


def test_files_are_written_by_these_modules_alone() -> None:
    found = {name for name, tree in modules().items() if any(writing(tree))}
    places = {f"cnnlite.{place}." for place in WRITERS}
    assert not [name for name in found if not any(f"{name}.".startswith(place) for place in places)]
    assert not [place for place in places if not any(f"{name}.".startswith(place) for name in found)]


def test_files_are_opened_for_writing_by_one_module_which_follows_no_links() -> None:
    found = {name for name, tree in modules().items() if {"open", "write_text", "write_bytes"} & set(plainly(tree))}
    others = {"cnnlite.cli.group", "cnnlite.utils.console", "cnnlite.runtime.machine"}  # the null device and /proc
    inside = {"cnnlite.runs.checkpoint"}  # members of a file that is new
    assert found == {"cnnlite.utils.files", *inside, *others}


def plainly(tree: ast.AST) -> Iterator[str]:
    """The calls of `writing` that are not of functions in `files`."""
    for text in writing(tree):
        name = text.rpartition(".")[2]
        if name == "open" or (name in ("write_text", "write_bytes") and "." in text):
            yield name


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(path)", 0),
        ("open(path, 'rb')", 0),
        ("path.open('r+b')", 1),
        ("open(path, 'a')", 1),
        ("run.write_text('log.txt', text)", 0),
        ("write_text(path, text)", 1),
        ("path.write_text(text, encoding='utf-8')", 1),
        ("write_files({path: data}, force=force)", 1),
        ("open_to_append(path)", 1),
        ("text.replace('a', 'b')", 0),
        ("os.replace(one, other)", 1),
        ("os.open(path, os.O_RDONLY)", 0),
        ("os.open(path, os.O_WRONLY)", 1),
        ("shutil.rmtree(path)", 1),
    ],
)
def test_writing_is_recognized(code: str, found: int) -> None:
    assert len(list(writing(ast.parse(code)))) == found


def ways() -> list[list[tuple[str, str]]]:
    """For each tree of modules in CONTRIBUTING, who calls whom."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Two ways through the code")[1]
    found = []
    for block in section.split("\n## ")[0].split("```")[1::2]:
        above: list[str] = []
        edges = []
        for indent, name in re.findall(r"^( *)([\w.]+)  ", block, re.MULTILINE):
            del above[len(indent) // 2 :]
            edges += [(above[-1], name)] if above else []
            above.append(name)
        found.append(edges)
    return found


def module_of(frame: FrameType | None) -> str:
    """The innermost module of cnnlite that is at work, without its first name."""
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("cnnlite."):
        frame = frame.f_back
    return "" if frame is None else frame.f_globals["__name__"].removeprefix("cnnlite.")


def test_contributing_describes_the_way_of_a_batch_and_of_a_config_key_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    calls: set[tuple[str, str]] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            calls.add((module_of(frame.f_back), module_of(frame)))

    sys.setprofile(watch)
    try:
        done = CliRunner().invoke(cli, ["train", "-c", "tiny.yaml", "-o", "train.epochs=0.3", "--threads=1", "--quiet"])
    finally:
        sys.setprofile(None)
    assert done.exit_code == 0, done.output
    batch, key = ways()
    assert ("nn.layers.convolution", "nn.kernels.convolution") in batch
    assert ("config.load", "config.construct") in key
    drawn = {
        ("data.splits", "data.datasets.cifar"): ("data.splits", "data.datasets.shapes")
    }  # the tiny run draws its images
    assert not {drawn.get(edge, edge) for edge in batch + key} - calls


def test_no_module_is_imported_for_the_first_time_inside_a_test() -> None:
    # What another test has put in the place of a function would stay in it: tests/conftest.py imports all.
    names = {module.name for module in pkgutil.walk_packages(cnnlite.__path__, "cnnlite.")}
    assert {name for name in names - sys.modules.keys() if not name.endswith("__main__")} == set()
