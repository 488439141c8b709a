"""Command that checks the machine."""

from pathlib import Path

from cnnlite.cli import options
from cnnlite.cli.group import cli
from cnnlite.utils.console import say


@cli.command(short_help="Check this machine, installed packages and datasets.")
@options.data_of_all
def doctor(data: str | None) -> None:
    """Check this machine, the installed packages and the datasets.

    \b
    Example:
      cnnlite doctor
    """
    from cnnlite.data import default_root
    from cnnlite.tools.doctor import examine

    options.compute_on(None)
    for name, finding in examine(default_root() if data is None else Path(data)):
        say(f"{name:20}{finding}")
