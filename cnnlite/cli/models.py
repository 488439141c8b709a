"""Commands for trained networks: evaluation, prediction, export."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, cli, complain
from cnnlite.errors import AccuracyError

if TYPE_CHECKING:
    from cnnlite.data import Split, Views

_TOP = 3
DATASETS = ("arrays", "cifar10", "cifar100", "coco", "folder", "idx", "list", "shapes")
"""Names in configs of datasets that have files; a test compares, as finding them would load NumPy for any help."""


def _fraction(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise click.BadParameter(f"{value} is not in [0, 1]: accuracies are fractions")
    return value


@cli.command(name="eval", short_help="Evaluate a run, or one of its checkpoints.")
@options.checkpoint
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Split of the dataset.  [default: test, or all of other images that nothing divides]",
)
@options.data_of_labelled
@click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    help="What other images are at --data.  [default: what it looks like]",
)
@options.tta
@options.workers
@options.as_json
@click.option("--min-accuracy", type=float, callback=_fraction, help="Minimum accuracy as a fraction, or exit code 3.")
def evaluate(
    checkpoint: Path,
    split: "Split | None",
    data: str | None,
    dataset: str | None,
    tta: "Views | None",
    workers: int | None,
    as_json: bool,
    min_accuracy: float | None,
) -> None:
    """Evaluate a run's best checkpoint, or any other: accuracy, loss, and figures of each class.

    --data takes other labelled images too, in any arrangement that can be trained on. They are matched by the names of
    classes; images of classes that the network does not know count in no figure.

    \b
    Examples:
      cnnlite eval runs/small
      cnnlite eval runs/small --data photographs/
      cnnlite eval runs/small/checkpoints/last.npz --split validation --json
    """
    import json

    from cnnlite.training.evaluation import describe, evaluate_checkpoint
    from cnnlite.utils.console import say

    options.compute_on(workers)
    checkpoint = options.checkpoint_of(checkpoint)
    found, facts, warnings = evaluate_checkpoint(checkpoint, split, data, tta, dataset)
    for warning in warnings:
        complain(f"warning: {warning}")
    images = f"{facts['dataset']} {facts['split']}".removesuffix(" all")
    say(json.dumps(facts, allow_nan=False) if as_json else describe(found, images))
    if min_accuracy is not None and found.accuracy < min_accuracy:
        raise AccuracyError(f"{checkpoint}: accuracy {found.accuracy:.4f} is below {min_accuracy:g}")


@cli.command(short_help="Predict the classes of images.")
@options.checkpoint
@click.argument("images", type=PATH, nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(1), help=f"Number of classes to print.  [default: {_TOP}]")
@click.option("--csv", "table", type=PATH, metavar="FILE", help="Write a table to FILE, or - for stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@options.tta
@options.workers
@options.as_json
def predict(
    checkpoint: Path,
    images: tuple[Path, ...],
    top: int | None,
    table: Path | None,
    force: bool,
    tta: "Views | None",
    workers: int | None,
    as_json: bool,
) -> None:
    """Predict the most probable classes of images: files of any size, or folders of them, however deep.

    RUN stands for its best checkpoint. The table of --csv has a row for each image: its path, the most probable class
    and its probability, and the probability of each class.

    \b
    Examples:
      cnnlite predict runs/small cat.jpg
      cnnlite predict runs/small holiday/ --csv holiday.csv
      cnnlite predict runs/small/checkpoints/last.npz holiday/ --top 1 --json
    """
    if table is not None and (as_json or top is not None):
        raise click.UsageError(f"--csv has all classes: leave out {'--json' if as_json else '--top'}")
    from cnnlite.tools.predict import Model, find_pictures, predict_files
    from cnnlite.tools.predict_formats import as_csv, as_text
    from cnnlite.tools.predict_formats import as_json as in_json
    from cnnlite.training.reporter import CountBar
    from cnnlite.utils.console import emit, say
    from cnnlite.utils.files import refuse_existing, replacing

    options.compute_on(workers)
    checkpoint = options.checkpoint_of(checkpoint)
    file = None if str(table) == "-" else table
    if file is not None:
        refuse_existing([file], force=force, source=checkpoint)
    model = Model.fixed(checkpoint)
    if tta:
        model.views, model.below = tta, 1.0
    found = find_pictures(images)
    for text in found.left_out:
        complain(text)
    bar = CountBar(" pictures")
    shown = file is not None or not sys.stdout.isatty()  # else what is printed shows the progress
    answers = predict_files(model, found, bar if shown else lambda *_: None)
    try:
        if file is not None:
            with replacing(file) as out:
                out.writelines(piece.encode() for piece in as_csv(answers, model.classes))
                refuse_existing([file], force=force)  # all that predicting takes time
            say(f"{file}: {len(found.files):,} pictures")
        elif table is not None or as_json:
            for piece in in_json(answers, top or _TOP, str(checkpoint)) if as_json else as_csv(answers, model.classes):
                emit(piece)
        else:
            for text in as_text(answers, top or _TOP):
                say(text)
    finally:
        bar.close()
    found.refuse_faults()


@cli.command(short_help="Export a network to a file of ONNX or safetensors.")
@options.checkpoint
@click.argument("out", type=PATH, metavar="OUT.onnx|OUT.safetensors")
@options.data_of_run
@click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")
@options.workers
def export(checkpoint: Path, out: Path, data: str | None, force: bool, workers: int | None) -> None:
    """Export a run's best checkpoint, or any other, to an ONNX file for raw images; check it with onnxruntime.

    If OUT ends in .safetensors, write parameters and statistics instead, with PyTorch's names and layouts.

    \b
    Examples:
      cnnlite export runs/small small.onnx
      cnnlite export runs/small small.safetensors
    """
    from cnnlite.tools import weights
    from cnnlite.tools.onnx import export as onnx
    from cnnlite.utils.console import say
    from cnnlite.utils.text import size_text

    options.compute_on(workers)
    checkpoint = options.checkpoint_of(checkpoint)
    if out.suffix == ".safetensors":
        size, about = weights.export(checkpoint, out, force=force)
    else:
        size, about = onnx.export(checkpoint, out, root=data, force=force)
    say(f"{out}: {size_text(size)}; {about}")
