"""The command line: parse, call one function, print. One family of commands a file.

Every command imports its room when it runs: ``--help`` has no need of NumPy and answers at once.
"""

from cnnlite.cli import configs, machine, models, networks, reports, training
from cnnlite.cli.group import cli, main

__all__ = ["cli", "configs", "machine", "main", "models", "networks", "reports", "training"]
