"""Commands for configs, with their networks and images, without a run."""

from pathlib import Path
from typing import Any

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, cli, complain
from cnnlite.cli.training import offer_download
from cnnlite.utils.console import say


@cli.command(short_help="Check a config: syntax, options, shapes.")
@options.config
@options.overrides
def validate(config: str, overrides: tuple[str, ...]) -> None:
    """Check a config: syntax, options, and the shapes of the network.

    \b
    Examples:
      cnnlite validate mine.yaml
      cnnlite validate small -o train.batch_size=128
    """
    from cnnlite.config.load import load_config
    from cnnlite.runs.restore import describe_model

    say(f"{config}: {describe_model(load_config(config, overrides))}")


@cli.command(short_help="Show the layers of a network: shapes, parameters, memory.")
@options.config
@options.overrides
@options.as_json
def summary(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show the layers of a network: output shapes, parameters, multiply-adds, memory.

    Memory is that of the layers' outputs, as if each wrote an output of its own. A layer that holds others shows their
    sum.

    \b
    Examples:
      cnnlite summary mine.yaml
      cnnlite summary resnet20 --json
    """
    import json

    from cnnlite.config.load import load_config
    from cnnlite.tools.summary import summarize

    found = summarize(load_config(config, overrides))
    say(json.dumps({"config": config, **found.facts()}) if as_json else found.describe(config))


def _png(_: click.Context, __: click.Parameter, value: Path) -> Path:
    if value.suffix != ".png":
        raise click.BadParameter(f"{value} should end in .png")
    return value


@cli.command(short_help="Show the images of a training step.")
@options.config
@options.overrides
@click.option("--step", type=click.IntRange(0), default=0, show_default=True, help="Number of the step, from 0.")
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="Largest number of images.")
@options.data
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    default=Path("preview.png"),
    show_default=True,
    callback=_png,
    help="PNG file for the images.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@options.as_json
def preview(
    config: str,
    overrides: tuple[str, ...],
    step: int,
    count: int,
    data: str | None,
    out: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Show the images of a training step as the network gets them: augmented, mixed, with their labels.

    They go into a PNG file, and their numbers and labels to stdout. Training makes the very same ones in that step;
    only their normalization is undone.

    \b
    Examples:
      cnnlite preview mine.yaml
      cnnlite preview small --step 1000 --out step-1000.png
      cnnlite preview -c small -o data.augment=[trivial_augment_wide] --force
    """
    import json

    from cnnlite.config.load import load_config
    from cnnlite.tools.preview import preview
    from cnnlite.training.launch import checked_data
    from cnnlite.utils.console import say
    from cnnlite.utils.files import refuse_existing, write_files
    from cnnlite.utils.png import png

    options.compute_on(None)
    refuse_existing([out], force=force)
    settings = load_config(config, overrides, data=data)
    found = preview(settings, checked_data(settings, offer_download), step, count)
    write_files({out: png(found.sheet())}, force=force)
    facts = {"config": config, "file": str(out), **found.facts()}
    say(json.dumps(facts, allow_nan=False) if as_json else f"{found.describe()}\n{out}")


@cli.command(short_help="Check gradients against finite differences.")
@options.config
@options.overrides
@click.pass_context
def gradcheck(context: click.Context, config: str, overrides: tuple[str, ...]) -> None:
    """Check the gradients of each layer, and of the whole network, against finite differences.

    Everything is computed in float64, with random inputs and along random directions. Exits with 1 if a gradient is
    wrong.

    \b
    Example:
      cnnlite gradcheck mine.yaml
    """
    from cnnlite.config.load import load_config
    from cnnlite.tools.gradcheck import check, describe

    checks = check(load_config(config, overrides))
    say(describe(checks))
    context.exit(0 if all(found.right for found in checks) else 1)


@cli.command(short_help="Benchmark training steps: time, speed, memory.")
@options.config
@options.overrides
@click.option("--batch-size", type=click.IntRange(1), help="Number of images per step.  [default: as in the config]")
@options.workers
@click.option("--steps", type=click.IntRange(1), help="Number of steps.  [default: two seconds of them]")
@options.as_json
@click.option("--layers", is_flag=True, help="Time each layer too.")
def bench(config: str, overrides: tuple[str, ...], workers: int | None, as_json: bool, **wishes: Any) -> None:
    """Benchmark training steps on random images: time, speed, memory.

    \b
    Examples:
      cnnlite bench small --layers
      cnnlite bench resnet18 --batch-size 64 --workers 1 --json
    """
    import json

    from cnnlite.config.load import load_config
    from cnnlite.runtime import machine
    from cnnlite.tools import bench

    options.compute_on(workers)
    report = bench.bench(load_config(config, overrides), **wishes)
    if slowed := machine.slowed():
        complain(f"warning: {slowed}")
    facts = {"config": config, **report.facts()}
    say(json.dumps(facts, allow_nan=False) if as_json else report.describe(config))


@cli.command(short_help="Print a JSON Schema of configs, for editors.")
@options.plugins
def schema() -> None:
    """Print a JSON Schema of configs, with which editors complete and check them.

    Save it to a file, and name the file in the first line of a config:
    # yaml-language-server: $schema=cnnlite.schema.json

    \b
    Example:
      cnnlite schema > cnnlite.schema.json
    """
    import json

    from cnnlite.config.json_schema import schema

    say(json.dumps(schema(), indent=2))
