"""Commands for training, and for downloading datasets."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnlite.cli import options
from cnnlite.cli.group import NAME, PATH, cli, complain
from cnnlite.utils.console import say, shell_word
from cnnlite.utils.hints import Argument
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.text import seconds_of

if TYPE_CHECKING:
    from cnnlite.data import DatasetMissing


def _duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a duration; BadParameter if it is none."""
    if value is None:
        return None
    try:
        return seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@cli.command(context_settings={"allow_extra_args": True})
@options.config_option()
@options.overrides
@click.option("--epochs", type=float, help="Number of epochs.")
@click.option(
    "--budget",
    metavar="TIME",
    callback=_duration,
    help="Time for loading, training, validation and test, such as 20m; sets the number of steps once, by the speed of "
    "a few.",
)
@click.option("--seed", type=int, help="Random seed.")
@click.option(
    "--from",
    "from_",
    type=NAME,
    metavar="RUN|FILE|NAME",
    shell_complete=options.complete_checkpoint,
    help="Trained network to start from: a run, a checkpoint, a .safetensors file, or a bundled one.",
)
@click.option("--freeze", metavar="REGEX", help="Names of parameters that are not trained, such as '^[0-3][.]'.")
@options.data
@click.option("--run-dir", type=PATH, metavar="DIR", help="Directory of the run, new or empty.  [default: runs/NAME]")
@click.option(
    "--resume",
    type=PATH,
    metavar="RUN",
    shell_complete=options.complete_run,
    help="Directory of a run to resume, or to train longer.",
)
@options.workers
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and the result.")
@options.plugin_option()
@click.option("--tensorboard", is_flag=True, help="Write metrics for TensorBoard too.")
@click.option("--dry-run", is_flag=True, help="Show network, data, time and memory, without a run.")
@click.pass_obj
def train(stop: StopFlag, /, workers: int | None, quiet: bool, dry_run: bool, **wishes: Any) -> None:
    """Train a network and test it.

    \b
    Examples:
      cnnlite train --config quickstart
      cnnlite train -c mine.yaml -o train.optimizer.sgd.lr=0.05 --seed 1
      cnnlite train -c small --dry-run
      cnnlite train -c small --budget 20m
      cnnlite train --resume runs/small
      cnnlite train -c mine.yaml --from small --freeze '^[0-5][.]'
      mpiexec -n 2 cnnlite train -c small
    """
    if stray := click.get_current_context().args:
        raise click.UsageError(f"{stray[0]!r} belongs to no option; write {_option_for(stray[0], wishes['overrides'])}")
    if wishes["resume"] and dry_run:
        raise click.UsageError("--dry-run tells of a new run: leave out --resume")
    from cnnlite.config.plugins import files_run
    from cnnlite.runs.results import describe_result
    from cnnlite.runtime import distributed
    from cnnlite.tools.dry_run import preview
    from cnnlite.training.launch import Request, launch
    from cnnlite.training.reporter import Reporter

    request = Request(**wishes)
    with distributed.joined() as ranks:
        options.compute_on(workers, ranks.most_workers())
        if dry_run:
            for part in preview(request, stop, offer_download):
                if ranks.first:
                    say(part)
            return
        reporter = Reporter(quiet=quiet, mute=not ranks.first)
        result, run = launch(request, reporter, stop, offer_download)
        if ranks.first:
            say(describe_result(result))
            say(f"run directory: {run}  (metrics.csv, result.json, log.txt, checkpoints)")
            commands = (f"cnnlite {name} {shell_word(str(run))}" for name in ("show", "explain", "report", "eval"))
            also = f", each with {Argument('plugins', files)}" if (files := [str(file) for file in files_run()]) else ""
            say(f"look closer: {', '.join(commands)}{also}")


def _option_for(stray: str, overrides: Sequence[str]) -> str:
    """Return the option meant by ``train -o train.epochs 5``, ``train runs/small`` or ``train small``."""
    if overrides and "=" not in overrides[-1]:
        return f"-o {overrides[-1]}={stray}"
    return f"--resume {stray}" if (Path(stray) / "checkpoints").is_dir() else f"--config {stray}"


def offer_download(missing: "DatasetMissing") -> bool:
    """Ask in a terminal whether to download the missing dataset; return True if it was downloaded."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return False
    try:
        if not click.confirm(f"{missing.root} holds no {missing.dataset}. Download it now (about 170 MB)?", err=True):
            return False
    except click.Abort:  # Ctrl-D
        complain("")  # the cursor is still behind the question
        return False
    _download(missing.root, dataset=missing.dataset)
    return True


def _download(root: Path, **wishes: Any) -> None:
    from cnnlite.data.download.cifar import download_cifar
    from cnnlite.training.reporter import CountBar

    bar = CountBar()

    def tell(text: str) -> None:
        bar.close()
        complain(text)

    try:
        download_cifar(root, progress=bar, say=tell, **wishes)
    finally:
        bar.close()


@cli.command(name="verify-resume", short_help="Interrupt and resume a short run, and compare every bit.")
@options.config
@options.overrides
@click.option("--steps", type=click.IntRange(2), default=6, show_default=True, help="Number of steps of the run.")
@options.data
@options.workers
@click.pass_obj
def verify_resume(
    stop: StopFlag, /, config: str, overrides: tuple[str, ...], steps: int, data: str | None, workers: int | None
) -> None:
    """Interrupt and resume a short run of a config, and compare every bit with an uninterrupted one.

    \b
    Examples:
      cnnlite verify-resume mine.yaml
      cnnlite verify-resume small --steps 20
    """
    from cnnlite.config.load import load_config
    from cnnlite.runs.restore import check_training, load_data
    from cnnlite.tools.verify_resume import verify

    options.compute_on(workers)
    settings = load_config(config, overrides, data=data)
    check_training(settings)
    say(f"{config}: {verify(settings, load_data(settings), steps, stop)}")


@cli.command(name="download-cifar")
@options.data_of_all
@click.option(
    "--dataset",
    type=click.Choice(["cifar10", "cifar100"]),
    default="cifar10",
    show_default=True,
    help="Dataset to download.",
)
@click.option("--from-file", type=PATH, metavar="FILE", help="Archive to unpack instead of downloading one.")
@click.option("--url", metavar="URL", help="URL of a mirror.")
def download_cifar(data: str | None, dataset: str, from_file: Path | None, url: str | None) -> None:
    """Download, verify and unpack CIFAR-10 or CIFAR-100.

    \b
    Examples:
      cnnlite download-cifar
      cnnlite download-cifar --dataset cifar100 --data ~/data
      cnnlite download-cifar --from-file cifar-10-python.tar.gz
    """
    if from_file and url:
        raise click.UsageError("give --from-file or --url, not both")
    from cnnlite.data import default_root

    _download(default_root() if data is None else Path(data), dataset=dataset, from_file=from_file, url=url)
