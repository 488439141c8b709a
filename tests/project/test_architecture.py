"""Who may do what: which rooms know ranks, write files, stand below the core; and that two ways are as described."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from tests.project.test_packaging import ROOT, imports, modules, room
from tests.support.small_runs import TINY

CORE = {"layers", "kernels", "engine", "network", "optimizers", "schedules", "losses"}
BELOW_CORE = {
    "errors",
    "randomness",
    "registry",
    "types",
    "words",
    "distributed",
    "sizing",
    "misfits",
    "patterns",
    "cgroups",
}
"""What the core may use beside itself: no config, data, runs or commands. Only `training` brings them together."""

ASKS_FOR_RANK = {"evaluation"}
"""Takes its share of the images by the number of the rank. All others hand over what they have and get sums back."""

WRITERS = {
    "files": "how everything is written: whole or not at all",
    "checkpoint": "checkpoints",
    "runs": "the run directory: makes and empties it; its files but these three",
    "metrics": "metrics.csv, appended to, where `runs` says",
    "progress": "log.txt, appended to, where `runs` says",
    "report": "report/, after the run",
    "holding": "the lock in a run directory",
    "data": "datasets and their caches",
    "export": "the ONNX file",
    "cli": "configs that `configs copy` copies; the null device in the place of a closed stream",
    "streams": "the null device in the place of a closed stream",
    "machine": "resets the count of memory in /proc",
}
"""Who changes files, and which."""


def test_the_core_stands_on_little_else() -> None:
    used = {room(imported) for name, tree in modules().items() if room(name) in CORE for imported in imports(tree)}
    assert used - CORE - {""} == BELOW_CORE


def test_only_distributed_knows_ranks() -> None:
    asking = set()
    for name, tree in modules().items():
        if room(name) == "distributed":
            continue
        inside = {imported for imported in imports(tree) if imported.startswith("cnnlite.runtime.distributed.")}
        assert all(imported.rpartition(".")[2] in interface() for imported in inside), name
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if attributes & {"rank", "Get_rank", "COMM_WORLD", "messages"}:
            asking.add(room(name))
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


def test_files_are_written_by_these_rooms_alone() -> None:
    found = {room(name) for name, tree in modules().items() if any(writing(tree))}
    assert found == WRITERS.keys()


def test_files_are_opened_for_writing_by_one_room_which_follows_no_links() -> None:
    found = {name for name, tree in modules().items() if {"open", "write_text", "write_bytes"} & set(plainly(tree))}
    others = {"cnnlite.cli.group", "cnnlite.utils.console", "cnnlite.runtime.machine"}  # the null device and /proc
    inside = {
        "cnnlite.runs.checkpoint",
        "cnnlite.data.download.archive",
    }  # members of a file and of a folder that are new
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
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Two ways through the rooms")[1]
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
    assert ("layers.convolution", "kernels.convolution") in batch
    assert ("config", "builder") in key
    drawn = {("data.dataset", "data.cifar"): ("data.dataset", "data.shapes")}  # the tiny run draws its images
    assert not {drawn.get(edge, edge) for edge in batch + key} - calls
