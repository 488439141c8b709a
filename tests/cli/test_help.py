"""The help of every command: its examples work, what it names exists, and an option of one name is one thing."""

import contextlib
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for word, child in command.commands.items():
            yield from walk(child, f"{name} {word}")


COMMANDS = dict(walk(cli, "cnnlite"))
NEED_NOTHING = ("configs", "schema", "explain --rules", "validate small", "summary resnet20")
"""How the examples begin that need no data, no run and little time: these are run."""


def examples(command: click.Command) -> list[str]:
    """The lines below "Example" in the help as it is shown."""
    _, _, text = command.get_help(click.Context(command, info_name="x")).partition("\n  Example")
    return re.findall(r"^    (?:mpiexec -n \d+ )?(cnnlite .+)$", text, re.MULTILINE)


def parse(words: list[str]) -> click.Command:
    """Find the command that the words call, and let it parse the rest; UsageError if that cannot be."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context("cnnlite", words, resilient_parsing=False)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(name: str) -> None:
    lines = examples(COMMANDS[name])
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        found = parse(words[1:])
        assert COMMANDS[name] in (found, cli) or isinstance(COMMANDS[name], click.Group), line
        assert not isinstance(found, click.Group), line


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if isinstance(command, click.Group)])
def test_a_list_of_commands_cuts_nothing_in_a_narrow_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, _, listed = CliRunner().invoke(cli, [*name.split()[1:], "--help"]).stdout.partition("\nCommands:\n")
    group = COMMANDS[name]
    assert isinstance(group, click.Group)
    lines = listed.splitlines()
    assert [line.split()[0] for line in lines] == sorted(group.commands)
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in lines), listed


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_options_that_a_help_names_exist(name: str) -> None:
    command = COMMANDS[name]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert all(option.help for option in options)
    told = " ".join([command.help or "", *(option.help or "" for option in options)])
    told = re.sub(r"mpiexec -n \d+", "", told)
    known = {word for option in options for word in option.opts} | {"--help"}
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", told)) <= known


def test_examples_that_need_no_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = {line for command in COMMANDS.values() for line in examples(command)}
    chosen = sorted(line for line in lines if line.removeprefix("cnnlite ").startswith(NEED_NOTHING))
    assert len(chosen) >= 7
    for line in chosen:
        result = CliRunner().invoke(cli, shlex.split(line.partition(" > ")[0])[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
        assert result.stdout


def test_an_option_of_one_name_is_the_same_in_all_commands() -> None:
    kinds = defaultdict(set)
    for name, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option):
                kind = (tuple(option.opts), option.type.name, option.is_flag, option.multiple)
                for word in option.opts:
                    kinds[word].add(kind)
                assert not option.secondary_opts, f"{name} {option.name}: --no-... is not the manner here"
    assert {word: found for word, found in kinds.items() if len(found) > 1} == {}


def test_the_same_wish_has_one_name() -> None:
    """What a reader of one help guesses for another command: no second word for it anywhere."""
    names = {word for command in COMMANDS.values() for option in command.params for word in option.opts}
    assert names >= {"--data", "--workers", "--json", "-o", "--override", "--out", "--force", "-q", "--quiet", "-c"}
    assert not names & {"--output", "--outdir", "--overwrite", "--silent", "--root", "--data-dir", "--set", "--jobs"}


def test_copy_replaces_a_file_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("mine", encoding="utf-8")
    refused = CliRunner().invoke(cli, ["configs", "copy", "small", "mine.yaml"])
    assert (refused.exit_code, "--force" in refused.stderr) == (2, True)
    assert Path("mine.yaml").read_text(encoding="utf-8") == "mine"
    assert CliRunner().invoke(cli, ["configs", "copy", "small", "mine.yaml", "--force"]).exit_code == 0
    assert "model:" in Path("mine.yaml").read_text(encoding="utf-8")
