"""Commands for the bundled configs."""

import itertools
import re
from pathlib import Path

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, Subgroup, cli
from cnnlite.errors import ConfigError
from cnnlite.utils.console import say


@cli.group(cls=Subgroup)
def configs() -> None:
    """List, show and copy the bundled configs.

    \b
    Examples:
      cnnlite configs list
      cnnlite configs copy small.yaml mine.yaml
    """


@configs.command(name="list")
def list_configs() -> None:
    """List the bundled configs, each with a short description.

    \b
    Example:
      cnnlite configs list
    """
    from cnnlite.config.bundled import bundled_configs, bundled_folder

    names = bundled_configs()
    width = max(map(len, names))
    for name in names:
        say(f"{name:{width}}  {_title((bundled_folder() / name).read_text(encoding='utf-8'))}")


@configs.command()
@click.argument("name", shell_complete=options.complete_bundled)
def show(name: str) -> None:
    """Print a config.

    \b
    Example:
      cnnlite configs show small
    """
    say(_bundled(name).read_text(encoding="utf-8").rstrip("\n"))


@configs.command(short_help="Copy a config to a folder or a new file.")
@click.argument("name", shell_complete=options.complete_bundled)
@click.argument("destination", type=PATH, default=Path())
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def copy(name: str, destination: Path, force: bool) -> None:
    """Copy a config to DESTINATION, a folder or a new file, to change it there.

    \b
    Examples:
      cnnlite configs copy small
      cnnlite configs copy small.yaml mine.yaml
    """
    from cnnlite.utils.files import write_files

    source = _bundled(name)
    target = destination / source.name if destination.is_dir() else destination
    write_files({target: source.read_bytes()}, force=force)
    say(str(target))


def _title(text: str) -> str:
    """Return the first words of the comment that a config begins with."""
    comment = " ".join(
        line.lstrip("# ") for line in itertools.takewhile(lambda line: line[:1] == "#", text.splitlines())
    )
    return re.split(r"[.:;] | \(", comment)[0].rstrip(".")


def _bundled(name: str) -> Path:
    """Return the path of a bundled config, ignoring files in the current directory."""
    from cnnlite.config.bundled import bundled_config, bundled_names
    from cnnlite.utils.suggest import did_you_mean

    if found := bundled_config(name):
        return found
    hint = did_you_mean(name, bundled_names())
    raise ConfigError(f"no bundled config {name!r}{hint or '; see `cnnlite configs list`'}")
