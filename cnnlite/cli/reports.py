"""Commands for runs: reports, explanations, comparisons."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, cli, complain
from cnnlite.errors import ConfigError
from cnnlite.utils.console import say

if TYPE_CHECKING:
    from cnnlite.tools.report.record import Record


def _record(run: Path) -> "Record":
    """Read a run, and warn if it was trained with other plugins than those given."""
    from cnnlite.tools.report.record import read_record

    record = read_record(run)
    options.compare_plugins(record.config.resolved)
    return record


@cli.command(short_help="Write an HTML report of a run.")
@options.run
@options.data_of_run
@click.option("--out", type=PATH, metavar="DIR", help="Directory of the report.  [default: RUN/report]")
@click.option("--force", is_flag=True, help="Overwrite an existing report.")
@options.workers
def report(run: Path, data: str | None, out: Path | None, force: bool, workers: int | None) -> None:
    """Write an HTML report of a run: curves, confusions, mistakes, and a look inside the network.

    The run need not be finished. The report is one page, which any browser opens from disk. Needs the extra plot:
    pip install "cnnlite[plot]".

    \b
    Examples:
      cnnlite report runs/small
      cnnlite report runs/small --out small-report
    """
    from cnnlite.tools.report.build import write_report

    options.compute_on(workers)
    say(str(write_report(_record(run), out or run / "report", data, complain, force=force)))


@cli.command(short_help="Write a page that shows every multiplication.")
@options.checkpoint
@click.argument("image", type=PATH, required=False)
@click.option(
    "--index", type=click.IntRange(0), help="Number of the test image to show, instead of IMAGE.  [default: 0]"
)
@options.data_of_run
@click.option("--out", type=PATH, metavar="FILE", default="show.html", show_default=True, help="File for the page.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--open", "open_it", is_flag=True, help="Open the page in a browser.")
@options.workers
def show(
    checkpoint: Path,
    image: Path | None,
    index: int | None,
    data: str | None,
    out: Path,
    force: bool,
    open_it: bool,
    workers: int | None,
) -> None:
    """Write a page that shows a network at work on one image: every layer, every multiplication, every gradient.

    IMAGE is a picture file of any size; without one, a test image of the dataset is shown. RUN stands for its best
    checkpoint. The page is one file, which any browser opens from disk.

    \b
    Examples:
      cnnlite show runs/small --open
      cnnlite show runs/small cat.jpg --out cat.html
    """
    import webbrowser

    from cnnlite.tools.show.build import write_show
    from cnnlite.utils.console import say

    if image is not None and index is not None:
        raise click.UsageError("name a picture, or the --index of a test image, not both")
    if image is not None and data is not None:
        raise click.UsageError("a picture needs no --data: leave it out, or the picture")
    options.compute_on(workers)
    checkpoint = options.checkpoint_of(checkpoint)
    say(write_show(checkpoint, out, image=image, index=index or 0, root=data, force=force, say=complain))
    if open_it and not webbrowser.open(out.resolve().as_uri()):
        complain(f"no browser could be started; open {out} yourself")


@cli.command(short_help="Explain the curves of a run, and what to try.")
@click.argument("run", type=PATH, required=False, shell_complete=options.complete_run)
@options.plugins
@options.data_of_run
@options.workers
@options.as_json
@click.option("--rules", is_flag=True, help="List the rules with their thresholds.")
def explain(run: Path | None, data: str | None, workers: int | None, as_json: bool, rules: bool) -> None:
    """Explain in plain words what the curves of a run show, and what to try.

    \b
    Examples:
      cnnlite explain runs/small
      cnnlite explain --rules
    """
    import json

    from cnnlite.tools.report.explain import describe_rules
    from cnnlite.tools.report.explain import explain as explain_run

    if run is None or rules:
        if not rules:
            raise click.UsageError("name a run, such as runs/small, or ask for --rules")
        say(describe_rules())
        return
    options.compute_on(workers)
    found = explain_run(_record(run), data)
    say(json.dumps(found.facts(), allow_nan=False) if as_json else found.describe())


def _picture(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix not in (".html", ".png", ".svg"):
        raise click.BadParameter(f"{value} should end in .html, .png or .svg")
    return value


@cli.command(short_help="Compare runs side by side.")
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN RUN...", shell_complete=options.complete_run)
@options.plugins
@click.option("--out", type=PATH, metavar="FILE", callback=_picture, help="File for the curves: .html, .png or .svg.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@options.as_json
def compare(runs: tuple[Path, ...], out: Path | None, force: bool, as_json: bool) -> None:
    """Compare runs side by side: their results, and the differences of their configs.

    Runs that differ only in their seeds are summarized by mean and standard deviation. Curves need the extra plot:
    pip install "cnnlite[plot]".

    \b
    Examples:
      cnnlite compare runs/small runs/small-2
      cnnlite compare runs/small runs/small-2 --out small.html
    """
    import json

    from cnnlite.tools.report.compare import compare as compare_runs

    if len(runs) < 2:
        raise click.UsageError("name at least two runs, such as runs/small runs/small-2")
    records = [_record(run) for run in runs]
    places = [run.resolve() for run in runs]
    if twice := [run for index, run in enumerate(runs) if places[index] in places[:index]]:
        raise ConfigError(f"{twice[0]}: named twice; name each run once")
    found = compare_runs(records)
    if out is not None:
        from cnnlite.tools.report.side_by_side import write_comparison

        write_comparison(found, records, out, force=force)
    say(json.dumps(found.facts(), allow_nan=False) if as_json else found.describe())
