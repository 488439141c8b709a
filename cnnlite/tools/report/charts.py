"""Charts as SVG files, drawn with matplotlib, for light and dark pages."""

import io
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.tools.report.behaviour import Calibration
from cnnlite.tools.report.record import Record
from cnnlite.utils.printable import readable
from cnnlite.utils.types import Array

INK, PAPER, RULE = "#1f2328", "#ffffff", "#d1d9e0"
_DARK = {INK: "#e6edf3", PAPER: "#161b22", RULE: "#3d444d"}
COLOURS = ("#2f7ae5", "#d9730d", "#23925b", "#b14bd1", "#cf3f5a", "#0f8fa8", "#8a6d1f", "#6b7280")
"""Distinguishable for most readers, with contrast on white and on the dark page; lines differ in dashes too."""
_WIDTH, _HEIGHT = 4.7, 2.9
_NUMBERS_UP_TO = 20
"""Number of classes; numbers and names in larger confusion matrices would be illegible."""


def _style(**more: Any) -> AbstractContextManager[None]:
    """Apply ``charts.mplstyle``, and ``more`` settings of matplotlib, inside a ``with``."""
    from matplotlib import rc_context, rc_params_from_file

    sheet = rc_params_from_file(Path(__file__).with_name("charts.mplstyle"), use_default_template=False)
    settings: Any = {**sheet, **more}
    return rc_context(settings)


class Chart:
    """A figure with one pair of axes per title, side by side, written by ``svg`` and ``png``."""

    def __init__(self, *titles: str, width: float = _WIDTH, height: float = _HEIGHT):
        self.title = " and ".join(titles)
        from matplotlib.figure import Figure

        with _style():
            self.figure = Figure(figsize=(width * len(titles), height), layout="constrained")
            self.panels = list(self.figure.subplots(1, len(titles), squeeze=False)[0])
            self.axes = self.panels[0]
            for axes, title in zip(self.panels, titles, strict=True):
                axes.set_title(title, loc="left")

    def _draw(self, kind: str) -> bytes:
        from matplotlib.text import Text

        for text in self.figure.findobj(Text):
            text.set_text(readable(text.get_text()))  # names of runs need not be valid text
        stream = io.BytesIO()
        with _style(**{"svg.hashsalt": self.title}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about glyphs that its font lacks; the reader's fonts show the text
            metadata = {"Date": None} if kind == "svg" else None
            self.figure.savefig(stream, format=kind, metadata=metadata)
        return stream.getvalue()

    def svg(self) -> str:
        """Return the chart as SVG that follows the reader's choice of light or dark."""
        text = self._draw("svg").decode()
        rules = "".join(
            f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
            for light, dark in _DARK.items()
            for kind in ("fill", "stroke")
        )
        style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
        return re.sub(r"(<svg [^>]*>)", lambda match: match[1] + style, text, count=1)

    def png(self) -> bytes:
        """Return the chart as PNG, on white."""
        return self._draw("png")


def _curve(axes: Any, x: Sequence[float], y: Sequence[float], label: str, colour: str, dashes: str = "-") -> None:
    """Draw a line with a point for each value."""
    axes.plot(x, y, linestyle=dashes, marker="o", color=colour, label=label)


def _finish(axes: Any, what: str) -> None:
    """Label the axes of curves over epochs, and the curves."""
    with _style():
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        if what == "accuracy":
            axes.yaxis.set_major_formatter(_percent)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.10g} %"


def curve_chart(record: Record, what: str) -> Chart:
    """Draw training and validation ``accuracy``, or ``loss``, over the epochs."""
    chart = Chart(what.capitalize())
    for part, colour, dashes in (("train", COLOURS[0], "--"), ("validation", COLOURS[1], "-")):
        x, y = record.column(f"{part}_{what}")
        if x:
            _curve(chart.axes, x, y, "training" if part == "train" else part, colour, dashes)
    _finish(chart.axes, what)
    return chart


def lr_chart(record: Record) -> Chart:
    """Draw the learning rates: the schedule, if the number of steps is known, and the rows of the metrics."""
    chart = Chart("Learning rate")
    steps_per_epoch, total = record.steps_per_epoch, record.total_steps
    if steps_per_epoch and total:
        rates = record.config.train.rates(total, steps_per_epoch)
        steps = np.unique(np.linspace(0, total - 1, min(total, 400)).astype(int))
        found = [rates(int(step)) for step in steps]
        for index, name in enumerate(found[0]):
            curve, label = [each[name] for each in found], f"schedule of {name}" if name else "schedule"
            colour = COLOURS[1:][(index + 1) % (len(COLOURS) - 1)]
            chart.axes.plot((steps + 1) / steps_per_epoch, curve, color=colour, label=label)
    _curve(chart.axes, *record.column("lr"), "when validated", COLOURS[0], "none")
    chart.axes.set_ylim(bottom=0)
    _finish(chart.axes, "learning rate")
    return chart


def comparison_chart(names: Sequence[str], records: Sequence[Record], *figures: str) -> Chart:
    """Draw validation ``accuracy``, ``loss`` or both of several runs; training's, dashed, without validation."""
    chart = Chart(*(figure.capitalize() for figure in figures))
    for axes, figure in zip(chart.panels, figures, strict=True):
        for index, (name, record) in enumerate(zip(names, records, strict=True)):
            colour = COLOURS[index % len(COLOURS)]
            x, y = record.column(f"validation_{figure}")
            if x:
                _curve(axes, x, y, name, colour)
            else:
                _curve(axes, *record.column(f"train_{figure}"), f"{name}, training", colour, "--")
        _finish(axes, figure)
    return chart


def confusion_chart(counts: Array, classes: Sequence[str]) -> Chart:
    """Draw the confusion matrix, each row (true class) as fractions over its columns (predicted class)."""
    from matplotlib.colors import to_rgb

    few = len(classes) <= _NUMBERS_UP_TO
    side = min(2.2 + 0.36 * len(classes), 7.0)
    chart = Chart("Confusion matrix", width=side, height=side)
    rows = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shades = np.empty((*rows.shape, 4))
    shades[..., :3] = to_rgb(COLOURS[0])
    shades[..., 3] = np.sqrt(rows)  # makes rare confusions visible beside a strong diagonal
    with _style():
        axes = chart.axes
        axes.imshow(shades, interpolation="nearest")
        axes.grid(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        ticks = range(len(classes)) if few else []
        axes.set_xticks(ticks, classes if few else [], rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, classes if few else [])
        for (row, column), count in np.ndenumerate(counts if few else counts[:0]):
            if count:
                colour = "#fefefe" if rows[row, column] > 0.4 else INK
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    return chart


def calibration_chart(found: Calibration) -> Chart:
    """Draw the reliability diagram: accuracy in each bin of confidence, beside the line of perfect calibration."""
    chart = Chart("Reliability diagram", width=4.2, height=3.6)
    bins = len(found.counts)
    with _style():
        axes = chart.axes
        axes.bar(
            (np.arange(bins) + 0.5) / bins,
            np.nan_to_num(found.accuracy),
            width=0.9 / bins,
            color=COLOURS[0],
            label="accuracy",
        )
        axes.plot([0, 1], [0, 1], "--", color=COLOURS[1], label="as right as it is sure")
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_percent)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(loc="upper left")
    return chart
