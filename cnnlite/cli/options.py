"""Arguments and options shared by several commands, and their completion in shells."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from cnnlite.cli.group import NAME, PATH, complain
from cnnlite.config.bundled import bundled_names
from cnnlite.utils.printable import is_text

Command = TypeVar("Command", bound=Callable[..., Any])
Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completion(find: Callable[[], Iterable[str]], otherwise: str = "") -> Completion:
    """Return a completion by the words of ``find``, or else by the shell: ``file``, ``dir``, or empty for none.

    Names that are not valid text are left to the shell too, as click writes UTF-8.
    """

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(word) for word in sorted(find()) if word.startswith(incomplete) and is_text(word)]
        return (
            found if found or not otherwise or not is_text(incomplete) else [CompletionItem(incomplete, type=otherwise)]
        )

    return complete


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint to use for a run, and report it; a file is returned as it is."""
    from cnnlite.runs import locate

    found = locate.checkpoint_of(path)
    if found != path:
        complain(f"taking {found}")
    if click.get_current_context().meta.get(_PLUGINS):
        from cnnlite.runs.checkpoint import open_checkpoint

        with open_checkpoint(found) as file:
            compare_plugins(file.meta.get("config"))
    return found


def compare_plugins(config: Any) -> None:
    """Warn if a run, of which this is the config as data, was trained with other plugins than those given."""
    from cnnlite.config.plugins import differences, readable_record

    for text in differences(readable_record(config)):
        complain(f"warning: {text}")


def compute_on(workers: int | None, most: int | None = None) -> None:
    """Set the number of workers, and warn if fewer could be started; by default at ``most`` one per core."""
    from cnnlite.runtime import engine

    if fewer := engine.set_workers(workers, most):
        complain(f"warning: {fewer}")


def _found(*patterns: str) -> list[str]:
    return [path.as_posix() for pattern in patterns for path in Path().glob(pattern)]


def _runs() -> list[str]:
    return [path.removesuffix("/checkpoints") for path in _found("runs/*/checkpoints")]


complete_bundled = _completion(bundled_names)
complete_config = _completion(lambda: [*bundled_names(), *_found("*.yaml", "*.yml")], "file")
complete_run = _completion(_runs, "dir")
complete_folder = _completion(lambda: (), "dir")
complete_path = _completion(lambda: (), "file")
complete_checkpoint = _completion(lambda: [*_runs(), *_found("runs/*/checkpoints/[!.]*.npz")], "file")

config_option = functools.partial(
    click.option,
    "-c",
    "--config",
    type=NAME,
    metavar="FILE|NAME",
    shell_complete=complete_config,
    help="YAML file, or name of a bundled config.",
)


plugin_option = functools.partial(
    click.option,
    "--plugin",
    "plugins",
    type=PATH,
    multiple=True,
    metavar="FILE",
    shell_complete=_completion(lambda: (), "file"),
    help="Python file with layers, losses and so on of your own; repeatable.",
)
_PLUGINS = "plugins"


def plugins(command: Command) -> Command:
    """Give a command the option ``--plugin``; the files are run before it."""

    @functools.wraps(command)
    def after_plugins(*arguments: Any, **wishes: Any) -> Any:
        if files := click.get_current_context().meta[_PLUGINS]:
            from cnnlite.config.plugins import load

            for file in files:
                load(file)
        return command(*arguments, **wishes)

    def remember(context: click.Context, _: click.Parameter, value: tuple[Path, ...]) -> None:
        context.meta[_PLUGINS] = value

    return cast(Command, plugin_option(expose_value=False, callback=remember)(after_plugins))


def config(command: Command) -> Command:
    """Give a command the argument CONFIG, which may also be written as `train` takes it: ``--config CONFIG``."""
    named = config_option("named_config", expose_value=False, is_eager=True, callback=_remember_config)
    given = click.argument(
        "config",
        type=NAME,
        required=False,
        metavar="CONFIG",
        shell_complete=complete_config,
        callback=_given_config,
    )
    return given(named(plugins(command)))


def _remember_config(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
    context.meta["config"] = value
    return value


def _given_config(context: click.Context, argument: click.Parameter, value: str | None) -> str:
    named: str | None = context.meta["config"]
    if value and named:
        raise click.UsageError(f"CONFIG is given twice: {named} and {value}")
    if found := value or named:
        return found
    raise click.MissingParameter(ctx=context, param=argument)


def run(command: Command) -> Command:
    """Give a command the argument RUN."""
    return click.argument("run", type=PATH, shell_complete=complete_run)(plugins(command))


def checkpoint(command: Command) -> Command:
    """Give a command the argument RUN|CHECKPOINT."""
    given = click.argument("checkpoint", type=PATH, metavar="RUN|CHECKPOINT", shell_complete=complete_checkpoint)
    return given(plugins(command))


overrides = click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a config option, such as train.epochs=5; repeatable.",
)


class _Workers(click.Option):
    """Option whose old name ``--threads`` is read, but not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0].replace("--threads, ", "").replace(", --threads", ""), record[1])


workers = click.option(
    "--workers",
    "--threads",
    "workers",
    cls=_Workers,
    type=click.IntRange(1, 1024),
    help="Number of workers.  [default: up to one per core]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
_data = functools.partial(click.option, "--data", type=NAME, metavar="PATH", shell_complete=complete_path)
data = _data(help="Directory or file of the dataset.  [default: the config's data.root]")
data_of_run = _data(help="Directory or file of the dataset.  [default: as in training]")
data_of_labelled = _data(
    help="Dataset, in the place of the one in training, or other labelled images: a directory or file."
)
data_of_all = _data(
    metavar="DIR", shell_complete=complete_folder, help="Directory of the datasets.  [default: $CNNLITE_DATA or data]"
)
tta = click.option(
    "--tta",
    type=click.Choice(["none", "mirror", "mirror_translate"]),
    help="Views of each image to average over.  [default: the config's train.tta and tta_below]",
)
