"""The group of all commands, which turns errors into a line and an exit code, and signals into a flag."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cnnlite import __version__
from cnnlite.cli.flags import flags
from cnnlite.errors import CnnliteError, cannot_load, exit_code, no_more_threads
from cnnlite.utils.console import say
from cnnlite.utils.files import place
from cnnlite.utils.hints import rendered_by
from cnnlite.utils.printable import one_line
from cnnlite.utils.signals import StopFlag, Stopped


class _Name(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """Name of a file or folder, with ``~`` for the home; line breaks and control characters are refused."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return place(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"'{one_line(value, 100)}': {error}", param, ctx)


class _Path(click.Path):
    """A name as `_Name` takes it, converted to a Path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(NAME.convert(value, param, ctx), param, ctx)


NAME, PATH = _Name(), _Path(path_type=Path, readable=False)  # the reader of a file reports errors


def complain(text: str) -> None:
    """Print to stderr, even if it is closed or cannot show all characters."""
    say(text, error=True)


def _explain(error: BaseException) -> str:
    """Return the one or two lines to print for an error."""
    if isinstance(error, Stopped):
        return f"stopped by {error.name}{'; ' * bool(error.hint)}{error.hint}"
    if isinstance(error, CnnliteError):
        return "\n".join(f"error: {one_line(line)}" for line in str(error).split("\n"))
    if isinstance(error, MemoryError):
        return f"error: out of memory: {one_line(str(error))}".rstrip(": ")
    if isinstance(error, OSError):
        return f"error: {one_line(str(error.filename or 'input/output'))}: {error.strerror or error}"
    if no_more_threads(error):
        return "error: no more threads can be started; allow more processes (ulimit -u, pids.max) or memory"
    if cannot_load(error):
        reason = str(error).rpartition("Original error was:")[2].strip().partition("\n")[0]  # NumPy's is a page long
        return f"error: a library cannot be loaded: {one_line(reason, 300)}; is there memory for it, is it whole?"
    from cnnlite.config.plugins import fault_of  # costs nothing where it matters, with an error that nobody expects

    place = fault_of(error)
    what = f"error: {place}{': ' * bool(place)}{type(error).__name__}: {one_line(str(error))}"
    return f"{what}\nthis is a bug in {'the plugin' if place else 'cnnlite'}; --debug shows where"


class _Command(click.Command):
    """Command with the option ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, callback=_remember, help="Show tracebacks.")
        )


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta["debug"] = True


@contextlib.contextmanager
def _like_other_errors() -> Iterator[None]:
    """Print click's errors of usage in the format of all other errors."""
    try:
        yield
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        complain(re.sub("^Error:", "error:", text.getvalue(), flags=re.MULTILINE).rstrip("\n"))
        raise click.exceptions.Exit(error.exit_code) from None


class _Group(click.Group):
    """Group whose errors become a line on stderr and an exit code."""

    command_class = _Command

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _like_other_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        stop = ctx.obj = StopFlag()
        with stop.installed(), rendered_by(flags):
            try:
                with _like_other_errors():
                    return super().invoke(ctx)
            except (click.exceptions.Exit, click.Abort):
                raise
            except (Exception, Stopped) as error:
                if ctx.find_root().meta.get("debug"):
                    import traceback

                    traceback.print_exc()
                complain(_explain(error))
                ctx.exit(exit_code(error))


class Subgroup(click.Group):
    """Group of commands below a command."""

    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Train convolutional neural networks written in plain NumPy, from YAML configs.

    \b
    Examples:
      cnnlite train --config quickstart
      cnnlite configs list
      cnnlite train --help
    """


def main() -> None:
    """Run the command line, after reopening standard streams that the caller closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    cli(prog_name="cnnlite")
