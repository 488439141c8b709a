"""The command line: parse, call one function, print. One family of commands a file.

Commands import what they need when they run, so that ``--help`` needs no NumPy and answers at once.
"""

from cnnlite.cli import configs, machine, models, networks, reports, training
from cnnlite.cli.group import cli, main

__all__ = ["cli", "configs", "machine", "main", "models", "networks", "reports", "training"]
