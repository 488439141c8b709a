"""Commands that look back at runs."""

from pathlib import Path

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, cli, complain
from cnnlite.errors import ConfigError


@cli.command(short_help="Write a page about a run, with pictures.")
@options.run
@options.data_of_run
@click.option("--out", type=PATH, metavar="DIR", help="Folder for the page and its pictures.  [default: RUN/report]")
@click.option("--force", is_flag=True, help="Replace a page and pictures that are there already.")
@options.threads
def report(run: Path, data: str | None, out: Path | None, force: bool, threads: int | None) -> None:
    """Write a page about a run: curves, confusions, mistakes, and a look inside the network.

    Takes a finished run or one on its way, and needs the extra plot: pip install "cnnlite[plot]". The page opens in any
    browser, from disk.

    \b
    Examples:
      cnnlite report runs/small
      cnnlite report runs/small --out small-report
    """
    from cnnlite.tools.report.build import write_report
    from cnnlite.tools.report.record import read_record
    from cnnlite.utils.console import say

    options.compute_on(threads)
    say(str(write_report(read_record(run), out or run / "report", data, complain, force=force)))


@cli.command(short_help="Say what the curves of a run show, and what to try.")
@click.argument("run", type=PATH, required=False, shell_complete=options.complete_run)
@options.data_of_run
@options.threads
@options.as_json
@click.option("--rules", is_flag=True, help="List what is looked for, with all thresholds.")
def explain(run: Path | None, data: str | None, threads: int | None, as_json: bool, rules: bool) -> None:
    """Say in plain words what the curves of a run show, and what to try.

    \b
    Examples:
      cnnlite explain runs/small
      cnnlite explain --rules
    """
    import json

    from cnnlite.tools.report.explain import describe_rules
    from cnnlite.tools.report.explain import explain as explain_run
    from cnnlite.tools.report.record import read_record
    from cnnlite.utils.console import say

    if run is None or rules:
        if not rules:
            raise click.UsageError("name a run, such as runs/small, or ask for --rules")
        say(describe_rules())
        return
    options.compute_on(threads)
    found = explain_run(read_record(run), data)
    say(json.dumps(found.facts(), allow_nan=False) if as_json else found.describe())


def _picture(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix not in (".html", ".png", ".svg"):
        raise click.BadParameter(f"{value} should end in .html, .png or .svg")
    return value


@cli.command(short_help="Put runs side by side.")
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN RUN...", shell_complete=options.complete_run)
@click.option("--out", type=PATH, metavar="FILE", callback=_picture, help="Draw the curves into a .html, .png or .svg.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.as_json
def compare(runs: tuple[Path, ...], out: Path | None, force: bool, as_json: bool) -> None:
    """Put runs side by side: their figures, and what their configs differ in.

    Runs that differ in their seeds only are summed up too, with mean and standard deviation. Curves need the
    extra plot: pip install "cnnlite[plot]".

    \b
    Examples:
      cnnlite compare runs/small runs/small-2
      cnnlite compare runs/small runs/small-2 --out small.html
    """
    import json

    from cnnlite.tools.report.compare import compare as compare_runs
    from cnnlite.tools.report.record import read_record
    from cnnlite.utils.console import say

    if len(runs) < 2:
        raise click.UsageError("name at least two runs, such as runs/small runs/small-2")
    records = [read_record(run) for run in runs]
    places = [run.resolve() for run in runs]
    if twice := [run for index, run in enumerate(runs) if places[index] in places[:index]]:
        raise ConfigError(f"{twice[0]}: named twice; name each run once")
    found = compare_runs(records)
    if out is not None:
        from cnnlite.tools.report.side_by_side import write_comparison

        write_comparison(found, records, out, force=force)
    say(json.dumps(found.facts(), allow_nan=False) if as_json else found.describe())
