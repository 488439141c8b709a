"""Hints as users of the command line read them: what to type."""

from collections.abc import Sequence

from cnnlite.utils.console import shell_word
from cnnlite.utils.hints import Argument, Download, Hint, Override, Train

_REPEATED = {"overrides": "-o", "plugins": "--plugin"}
"""Options that are given once for each of what is a list in Python."""


def flags(hint: Hint) -> str:
    """Say what to type to do what a hint advises."""
    match hint:
        case Argument(name, value):
            return _flag(name, value)
        case Override(assignment):
            return f"-o {assignment}"
        case Train(arguments):
            from cnnlite.runtime import distributed

            size = distributed.current().size
            given = (_flag(name, value) for name, value in arguments.items() if value is not None)
            return f"mpiexec -n {size} " * (size > 1) + " ".join(["cnnlite train", *given])
        case Download(dataset, root):
            choice = "" if dataset == "cifar10" else f" {_flag('dataset', dataset)}"
            return f"`cnnlite download-cifar {_flag('data', root)}{choice}`"


def _flag(name: str, value: str | bool | Sequence[str] | None) -> str:
    flag = _REPEATED.get(name, "--" + name.removesuffix("_").replace("_", "-"))
    if value is None or isinstance(value, bool):
        return flag
    return " ".join(f"{flag} {shell_word(word)}" for word in ([value] if isinstance(value, str) else value))
