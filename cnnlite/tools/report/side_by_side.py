"""Curves of several runs in one picture, or on a page with the tables of their comparison."""

from collections.abc import Sequence
from pathlib import Path

from cnnlite.errors import require
from cnnlite.tools.report import charts
from cnnlite.tools.report.compare import SAME, Comparison, describe_group, run_names
from cnnlite.tools.report.page import Page, figure, grid, paragraph, table
from cnnlite.tools.report.record import Record
from cnnlite.utils.files import refuse_existing, write_files
from cnnlite.utils.hints import Argument


def write_comparison(comparison: Comparison, records: Sequence[Record], out: Path, *, force: bool = False) -> None:
    """Draw the curves of runs into ``out``: a page (.html) with the tables too, or a picture (.png, .svg).

    Raises:
        ConfigError: If matplotlib is missing, or ``out`` exists and ``force`` does not allow to replace it.
        StorageError: If it cannot be written.
    """
    require(f"cnnlite compare {Argument('out')}", "matplotlib", "plot")
    refuse_existing([out], force=force)
    names = run_names(records)
    if out.suffix != ".html":
        chart = charts.comparison_chart(names, records, "accuracy", "loss")
        write_files({out: chart.png() if out.suffix == ".png" else chart.svg().encode()}, force=force)
        return
    page = Page("Runs compared", ", ".join(names))
    heading, *rows = comparison.rows()
    page.add(table(heading, rows, text=(1, 2)))
    page.add(*(paragraph(describe_group(group)) for group in comparison.groups))
    page.add(*(paragraph(pair.describe()) for pair in comparison.paired))
    page.section("Curves", "Of the validation images; dashed lines, of the training images, where nothing validates.")
    captions = {
        "accuracy": "Higher is better: the fraction of images called right.",
        "loss": "Lower is better, between runs that have the same loss.",
    }
    boxes = []
    for what, caption in captions.items():
        content = charts.comparison_chart(names, records, what).svg().encode()
        boxes.append(figure(page.image(f"{what}.svg", content, f"The {what} of all runs", keep=False), caption))
    page.add(grid(boxes))
    page.section("What the configs differ in")
    if comparison.differences:
        heading, *rows = comparison.difference_rows()
        page.add(table(heading, rows, text=range(1, 1 + len(names))))
    else:
        page.add(paragraph(SAME))
    write_files({out: page.html().encode()}, force=force)
