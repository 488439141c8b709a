"""Commands for trained networks: evaluation, prediction, export."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, cli, complain
from cnnlite.errors import AccuracyError, DataError

if TYPE_CHECKING:
    from cnnlite.data import Views


def _fraction(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise click.BadParameter(f"{value} is not in [0, 1]: accuracies are fractions")
    return value


@cli.command(name="eval", short_help="Evaluate a run, or one of its checkpoints.")
@options.checkpoint
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Split of the dataset.",
)
@options.data_of_run
@options.tta
@options.workers
@options.as_json
@click.option("--min-accuracy", type=float, callback=_fraction, help="Minimum accuracy as a fraction, or exit code 3.")
def evaluate(
    checkpoint: Path,
    split: str,
    data: str | None,
    tta: "Views | None",
    workers: int | None,
    as_json: bool,
    min_accuracy: float | None,
) -> None:
    """Evaluate a run's best checkpoint, or any other: accuracy, loss, and accuracy of each class.

    \b
    Examples:
      cnnlite eval runs/small
      cnnlite eval runs/small/checkpoints/last.npz --split validation --json
    """
    import json

    from cnnlite.training.evaluation import describe, evaluate_checkpoint
    from cnnlite.utils.console import say

    options.compute_on(workers)
    checkpoint = options.checkpoint_of(checkpoint)
    found, facts, warnings = evaluate_checkpoint(checkpoint, split, data, tta)
    for warning in warnings:
        complain(f"warning: {warning}")
    say(json.dumps(facts, allow_nan=False) if as_json else describe(found, f"{facts['dataset']} {split}"))
    if min_accuracy is not None and found.accuracy < min_accuracy:
        raise AccuracyError(f"{checkpoint}: accuracy {found.accuracy:.4f} is below {min_accuracy:g}")


@cli.command(short_help="Predict the classes of images.")
@options.checkpoint
@click.argument("images", type=PATH, nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Number of classes to print.")
@options.tta
@options.workers
@options.as_json
def predict(
    checkpoint: Path, images: tuple[Path, ...], top: int, tta: "Views | None", workers: int | None, as_json: bool
) -> None:
    """Predict the most probable classes of images: files of any size, or folders of them.

    RUN stands for its best checkpoint.

    \b
    Examples:
      cnnlite predict runs/small cat.jpg
      cnnlite predict runs/small/checkpoints/last.npz holiday/ --top 1 --json
    """
    import json

    from cnnlite.tools.predict import Model, predict_files
    from cnnlite.utils.console import say
    from cnnlite.utils.printable import one_line

    options.compute_on(workers)
    checkpoint = options.checkpoint_of(checkpoint)
    model = Model.load(checkpoint)
    model.views = tta or model.views
    predictions, faults = [], []
    for prediction in predict_files(model, images, top):
        predictions.append(prediction.facts())
        if prediction.fault:
            faults.append(one_line(f"{prediction.image}: {prediction.fault}"))
        elif not as_json:
            say(prediction.describe())
    if as_json:
        say(json.dumps({"checkpoint": str(checkpoint), "predictions": predictions}, allow_nan=False))
    if faults:
        raise DataError("\n".join(faults))


@cli.command(short_help="Export a network to an ONNX file.")
@options.checkpoint
@click.argument("out", type=PATH, metavar="OUT.onnx")
@options.data_of_run
@click.option("--force", is_flag=True, help="Overwrite OUT.onnx if it exists.")
@options.workers
def export(checkpoint: Path, out: Path, data: str | None, force: bool, workers: int | None) -> None:
    """Export a run's best checkpoint, or any other, to an ONNX file for raw images; check it with onnxruntime.

    \b
    Example:
      cnnlite export runs/small small.onnx
    """
    from cnnlite.tools.onnx.export import export
    from cnnlite.utils.console import say
    from cnnlite.utils.text import size_text

    options.compute_on(workers)
    size, check = export(options.checkpoint_of(checkpoint), out, root=data, force=force)
    say(f"{out}: {size_text(size)}; {check}")
