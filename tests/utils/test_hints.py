"""Hints: in Python for programs, and as what to type on the command line; nobody else names a flag."""

import ast
import re
from collections.abc import Iterator

import pytest

from cnnlite.cli import cli
from cnnlite.cli.flags import flags
from cnnlite.utils.hints import Argument, Download, Hint, Override, Train, rendered_by
from tests.project.test_packaging import modules, package

RUN = "runs/my net"

FLAG = re.compile(r"(?<![\w-])(--[a-z]|-o( |$))|\bcnnlite train\b")
OTHER_PROGRAMS = {
    "cnnlite.runs.environment": "git",
    "cnnlite.runtime.machine": "pip",
    "cnnlite.runtime.distributed.joining": "srun",
}
"""Whose flags these modules name."""


@pytest.mark.parametrize(
    ("hint", "in_python", "typed"),
    [
        (Argument("run_dir"), "run_dir", "--run-dir"),
        (Argument("overrides"), "overrides", "-o"),
        (Argument("resume", RUN), f"resume='{RUN}'", f"--resume '{RUN}'"),
        (Argument("force", True), "force=True", "--force"),
        (Override("train.epochs=3"), "train.epochs=3", "-o train.epochs=3"),
        (
            Train({"resume": RUN, "data": None}),
            f"cnnlite.train(resume='{RUN}')",
            f"cnnlite train --resume '{RUN}'",
        ),
        (
            Train({"config": "small", "overrides": ["seed=1", "data.root=my data"]}),
            "cnnlite.train(config='small', overrides=['seed=1', 'data.root=my data'])",
            "cnnlite train --config small -o seed=1 -o 'data.root=my data'",
        ),
        (
            Download("cifar10", "data"),
            "`cnnlite download-cifar` (cifar10 into data)",
            "`cnnlite download-cifar --data data`",
        ),
        (
            Download("cifar100", "my data"),
            "`cnnlite download-cifar` (cifar100 into my data)",
            "`cnnlite download-cifar --data 'my data' --dataset cifar100`",
        ),
    ],
)
def test_a_hint_is_in_the_words_of_whoever_reads_it(
    hint: Hint, in_python: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.name", "posix")  # whose quotes these are
    assert str(hint) == in_python
    with rendered_by(flags):
        assert f"{hint}" == typed
    assert f"{hint}" == in_python


def test_the_words_are_those_of_programs_again_after_an_error() -> None:
    with pytest.raises(KeyError), rendered_by(flags):
        raise KeyError
    assert str(Argument("data")) == "data"


def texts(tree: ast.AST) -> Iterator[str]:
    """All texts in a module, docstrings included, and the parts of those with braces."""
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_flags_are_named_in_the_command_line_alone() -> None:
    found = {
        name: text
        for name, tree in modules().items()
        if package(name) != "cli" and name != "cnnlite.api"  # whose docstring compares itself with the command
        for text in texts(tree)
        if FLAG.search(text)
    }
    assert found.keys() == OTHER_PROGRAMS.keys(), found


def arguments(tree: ast.AST) -> Iterator[str]:
    """The names in the hints of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Argument", "Train"):
            given = node.args[0]
            for name in given.keys if isinstance(given, ast.Dict) else [given]:
                yield ast.literal_eval(name) if name else "**"


def test_every_argument_that_a_hint_names_is_an_option_of_a_command() -> None:
    options = {option for command in cli.commands.values() for given in command.params for option in given.opts}
    named = {name for tree in modules().values() for name in arguments(tree)}
    assert len(named) > 10
    assert {flags(Argument(name)) for name in named} <= options
