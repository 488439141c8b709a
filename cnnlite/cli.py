"""The command line: parse, call one function, print.

Every command imports its room when it runs: ``--help`` has no need of NumPy and answers at once.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnlite import __version__
from cnnlite.errors import CheckpointError, CnnliteError, ConfigError
from cnnlite.stopping import StopFlag, Stopped

if TYPE_CHECKING:
    from cnnlite.data import DatasetMissing

_PATH = click.Path(path_type=Path)


def _complain(text: str) -> None:
    """Print to stderr, whatever state it is in."""
    from cnnlite.streams import say

    say(text, error=True)


def _explain(error: BaseException) -> int:
    """Print one or two lines about an error; returns the exit code."""
    if isinstance(error, Stopped):
        _complain(f"stopped by {error.name}{'; ' * bool(error.hint)}{error.hint}")
        return 128 + error.number
    if isinstance(error, CnnliteError):
        _complain("\n".join(f"error: {line}" for line in str(error).splitlines()))
        return error.exit_code
    if isinstance(error, MemoryError):
        _complain(f"error: out of memory: {error}".rstrip(": "))
        return 5
    if isinstance(error, OSError):
        _complain(f"error: {error.filename or 'input/output'}: {error.strerror or error}")
        return 5
    _complain(f"error: {type(error).__name__}: {error}\nthis is a bug in cnnlite; --debug shows where")
    return 1


class _Command(click.Command):
    """A command with the option ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, callback=_remember, help="Show tracebacks.")
        )


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta["debug"] = True


class _Group(click.Group):
    """Commands whose errors become a line on stderr and an exit code."""

    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        stop = ctx.obj = StopFlag()
        with stop.installed():
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except (Exception, Stopped) as error:
                if ctx.find_root().meta.get("debug"):
                    import traceback

                    traceback.print_exc()
                ctx.exit(_explain(error))


class _Subgroup(click.Group):
    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Train convolutional neural networks written in plain NumPy, from YAML configs."""


@cli.command()
@click.option("-c", "--config", metavar="FILE|NAME", help="A YAML file, or the name of a bundled config.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as train.epochs=5.")
@click.option("--epochs", type=float, help="Train for so many epochs.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--data", metavar="DIR", help="Folder of the downloaded datasets.")
@click.option("--run-dir", type=_PATH, help="New or empty directory for the run.  [default: runs/NAME]")
@click.option("--resume", type=_PATH, metavar="RUN", help="Go on with an interrupted run.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to compute on.  [default: one per core]")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and the result.")
@click.pass_obj
def train(stop: StopFlag, /, threads: int | None, quiet: bool, **wishes: Any) -> None:
    """Train a network and test it."""
    if wishes["resume"] and wishes["run_dir"]:
        raise click.UsageError("--resume goes on in its own directory: leave out --run-dir")
    from cnnlite import engine
    from cnnlite.launch import Request, launch
    from cnnlite.progress import Reporter
    from cnnlite.results import describe_result
    from cnnlite.streams import say

    engine.set_threads(threads)
    result, run = launch(Request(**wishes), Reporter(quiet=quiet), stop, _offer_download)
    say(describe_result(result, run))


def _offer_download(missing: "DatasetMissing") -> bool:
    """Ask at a terminal whether to download what is missing, and do so."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return False
    if not click.confirm(f"{missing.root} holds no {missing.dataset}. Download it now (about 170 MB)?", err=True):
        return False
    _download(missing.root, dataset=missing.dataset)
    return True


def _download(root: Path, **wishes: Any) -> None:
    from cnnlite.data.download import download_cifar
    from cnnlite.progress import ByteBar

    bar = ByteBar()

    def tell(text: str) -> None:
        bar.close()
        _complain(text)

    try:
        download_cifar(root, progress=bar, say=tell, **wishes)
    finally:
        bar.close()


def _fraction(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise click.BadParameter(f"{value} is not in [0, 1]: accuracies are fractions")
    return value


@cli.command(name="eval")
@click.argument("checkpoint", type=_PATH)
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test", show_default=True)
@click.option("--data", metavar="DIR", help="Folder of the dataset.  [default: as in training]")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to compute on.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--min-accuracy", type=float, callback=_fraction, help="Fail (exit code 3) below this fraction.")
def evaluate(
    checkpoint: Path, split: str, data: str | None, threads: int | None, as_json: bool, min_accuracy: float | None
) -> None:
    """Evaluate a checkpoint: accuracy, loss, and the accuracy of each class."""
    import json

    from cnnlite import engine
    from cnnlite.evaluation import describe, evaluate_checkpoint
    from cnnlite.streams import say

    engine.set_threads(threads)
    found, facts, warnings = evaluate_checkpoint(checkpoint, split, data)
    for warning in warnings:
        _complain(f"warning: {warning}")
    say(json.dumps(facts, allow_nan=False) if as_json else describe(found, f"{facts['dataset']} {split}"))
    if min_accuracy is not None and found.accuracy < min_accuracy:
        raise CheckpointError(f"{checkpoint}: accuracy {found.accuracy:.4f} is below {min_accuracy:g}")


@cli.command(name="download-cifar")
@click.option("--data", metavar="DIR", help="Folder to put it in.  [default: $CNNLITE_DATA or data]")
@click.option("--dataset", type=click.Choice(["cifar10", "cifar100"]), default="cifar10", show_default=True)
@click.option("--from-file", type=_PATH, help="Take this archive instead of downloading one.")
@click.option("--url", help="Download from here: a mirror.")
def download_cifar(data: str | None, dataset: str, from_file: Path | None, url: str | None) -> None:
    """Download, verify and unpack CIFAR-10 or CIFAR-100."""
    if from_file and url:
        raise click.UsageError("give --from-file or --url, not both")
    from cnnlite.data import default_root

    _download(default_root() if data is None else Path(data), dataset=dataset, from_file=from_file, url=url)


@cli.command()
@click.argument("config")
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="As in train.")
def validate(config: str, overrides: tuple[str, ...]) -> None:
    """Check a config: grammar, options, and the shapes of the network."""
    from cnnlite.config import load_config
    from cnnlite.evaluation import describe_model
    from cnnlite.streams import say

    say(f"{config}: {describe_model(load_config(config, overrides))}")


@cli.command()
@click.argument("config")
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="As in train.")
@click.option("--batch-size", type=click.IntRange(1), help="Images in a step.  [default: as in the config]")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to compute on.  [default: one per core]")
@click.option("--steps", type=click.IntRange(1), help="Steps to time.  [default: two seconds of them]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--layers", is_flag=True, help="Time each layer as well.")
def bench(config: str, overrides: tuple[str, ...], threads: int | None, as_json: bool, **wishes: Any) -> None:
    """Measure training steps on random images: time, speed, memory."""
    import json

    from cnnlite import bench, engine, machine
    from cnnlite.config import load_config
    from cnnlite.streams import say

    engine.set_threads(threads)
    report = bench.bench(load_config(config, overrides), **wishes)
    if pinned := machine.pinned():
        _complain(f"warning: {pinned}")
    say(json.dumps(report.facts(), allow_nan=False) if as_json else report.describe(config))


@cli.command()
@click.option("--data", metavar="DIR", help="Folder of the datasets.  [default: $CNNLITE_DATA or data]")
def doctor(data: str | None) -> None:
    """Look at this machine, at what is installed, and at the datasets."""
    from cnnlite import engine
    from cnnlite.data import default_root
    from cnnlite.doctor import examine
    from cnnlite.streams import say

    engine.set_threads(None)
    for name, finding in examine(default_root() if data is None else Path(data)):
        say(f"{name:20}{finding}")


@cli.group(cls=_Subgroup)
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
@click.argument("destination", type=_PATH, default=Path())
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


def main() -> None:
    """Run the command line, with all three standard streams in place even if the caller closed some."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file opened would become stdout or stderr and get what is printed
            os.open(os.devnull, os.O_RDWR)
    cli(prog_name="cnnlite")
