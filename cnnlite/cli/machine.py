"""The command that looks at this machine."""

from pathlib import Path

import click

from cnnlite.cli.group import cli


@cli.command()
@click.option("--data", metavar="DIR", help="Folder of the datasets.  [default: $CNNLITE_DATA or data]")
def doctor(data: str | None) -> None:
    r"""Look at this machine, at what is installed, and at the datasets.

    \b
    Example:
      cnnlite doctor
    """
    from cnnlite import engine
    from cnnlite.data import default_root
    from cnnlite.doctor import examine
    from cnnlite.streams import say

    engine.set_threads(None)
    for name, finding in examine(default_root() if data is None else Path(data)):
        say(f"{name:20}{finding}")
