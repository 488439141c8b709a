"""Commands about the bundled configs."""

import os
from pathlib import Path

import click

from cnnlite.cli.group import PATH, Subgroup, cli
from cnnlite.errors import ConfigError


@cli.group(cls=Subgroup)
def configs() -> None:
    """List, show and copy the bundled configs."""


@configs.command(name="list")
def list_configs() -> None:
    """List the bundled configs."""
    from cnnlite.config import bundled_configs
    from cnnlite.streams import say

    say("\n".join(bundled_configs()))


@configs.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a config."""
    from cnnlite.streams import say

    say(_bundled(name).read_text(encoding="utf-8").rstrip("\n"))


@configs.command()
@click.argument("name")
@click.argument("destination", type=PATH, default=Path())
def copy(name: str, destination: Path) -> None:
    """Copy a config to DESTINATION, a folder or a new file, to change it there."""
    from cnnlite.files import write_text
    from cnnlite.streams import say

    source = _bundled(name)
    target = destination / source.name if destination.is_dir() else destination
    if os.path.lexists(target):
        raise ConfigError(f"{target}: exists already; name another file")
    write_text(target, source.read_text(encoding="utf-8"))
    say(str(target))


def _bundled(name: str) -> Path:
    """Find a bundled config, whatever files lie in the current folder."""
    from cnnlite.config import bundled_configs, bundled_folder
    from cnnlite.registry import did_you_mean

    for candidate in (name, f"{name}.yaml"):
        if candidate in bundled_configs():
            return bundled_folder() / candidate
    raise ConfigError(f"no bundled config {name!r}{did_you_mean(name, bundled_configs())} See `cnnlite configs list`.")


@cli.command()
def schema() -> None:
    """Print a JSON Schema of configs, with which editors complete and check them.

    Save it to a file, and name the file in the first line of a config:
    # yaml-language-server: $schema=cnnlite.schema.json
    """
    import json

    from cnnlite.schema import schema
    from cnnlite.streams import say

    say(json.dumps(schema(), indent=2))
