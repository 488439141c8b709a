"""Commands that put a trained network to use."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnlite.cli import options
from cnnlite.cli.group import PATH, cli
from cnnlite.errors import DataError

if TYPE_CHECKING:
    from cnnlite.data import Views


@cli.command()
@options.checkpoint
@click.argument("images", type=PATH, nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="How many classes to name.")
@options.tta
@options.threads
@options.as_json
def predict(
    checkpoint: Path, images: tuple[Path, ...], top: int, tta: "Views | None", threads: int | None, as_json: bool
) -> None:
    """Name the most probable classes of pictures: files of any size, or folders of them.

    RUN stands for its best checkpoint.

    \b
    Examples:
      cnnlite predict runs/small cat.jpg
      cnnlite predict runs/small/checkpoints/last.npz holiday/ --top 1 --json
    """
    import json

    from cnnlite import engine
    from cnnlite.prediction import Model, predict_files
    from cnnlite.printable import one_line
    from cnnlite.streams import say

    engine.set_threads(threads)
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


@cli.command()
@options.checkpoint
@click.argument("out", type=PATH, metavar="OUT.onnx")
@options.data_of_run
@click.option("--force", is_flag=True, help="Replace OUT.onnx if it exists.")
@options.threads
def export(checkpoint: Path, out: Path, data: str | None, force: bool, threads: int | None) -> None:
    """Write a run's best checkpoint, or another, as an ONNX file that takes raw images; check it with onnxruntime.

    \b
    Example:
      cnnlite export runs/small small.onnx
    """
    from cnnlite import engine
    from cnnlite.export import export
    from cnnlite.streams import say
    from cnnlite.words import size_text

    engine.set_threads(threads)
    size, check = export(options.checkpoint_of(checkpoint), out, root=data, force=force)
    say(f"{out}: {size_text(size)}; {check}")
