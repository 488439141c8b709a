"""Builds the page of a trained network and one image."""

from pathlib import Path

from cnnlite.data.datasets.base import center
from cnnlite.data.images import read_pictures
from cnnlite.errors import CheckpointError, CnnliteError, ConfigError, DataError
from cnnlite.runs.checkpoint import open_checkpoint
from cnnlite.runs.restore import load_data
from cnnlite.tools.predict import Model
from cnnlite.tools.show.collect import Subject, collect
from cnnlite.tools.show.numbers import Numbers
from cnnlite.tools.show.page import page_html
from cnnlite.utils.files import refuse_existing, write_files
from cnnlite.utils.hints import Argument


def write_show(
    checkpoint: Path,
    out: Path,
    *,
    image: Path | None = None,
    index: int = 0,
    root: str | None = None,
    force: bool = False,
) -> str:
    """Write the page of ``checkpoint`` and a picture, or the test image ``index``; returns a line about the result.

    ``root`` overrides the folder of the dataset.

    Raises:
        ConfigError: If ``out`` exists, unless ``force`` allows to replace it, or there is no such image.
        CheckpointError: If the checkpoint is not that of a whole network.
        DataError: If the picture or the dataset cannot be read.
        DivergedError: If the network's outputs are not finite.
        StorageError: If the page cannot be written.
    """
    refuse_existing([out], force=force)
    with open_checkpoint(checkpoint) as file:
        digest, step = file.meta.get("dataset"), file.meta.get("step")
    model = Model.load(checkpoint)
    if not isinstance(digest, dict) or not isinstance(step, int):
        raise CheckpointError(f"{checkpoint}: does not say what it was trained on")
    if image is not None:
        subject = _picture(model, image)
    else:
        subject = _test_image(model, index, root, str(digest.get("digest")))
    numbers = Numbers()
    name = _name(checkpoint)
    facts = collect(model, subject, step, numbers)
    facts |= {"title": name, "checkpoint": checkpoint.name, "step": step, "film": None}
    write_files({out: page_html(f"{name} at work", facts, numbers).encode()}, force=force)
    return _describe(facts, subject)


def _name(checkpoint: Path) -> str:
    """Name of the run that a checkpoint belongs to, or else of the file."""
    folder = checkpoint.resolve().parent
    return folder.parent.name if folder.name == "checkpoints" else checkpoint.stem


def _picture(model: Model, path: Path) -> Subject:
    """Read a picture file as `predict` does."""
    if model.image_shape[2] != 3:
        raise DataError(f"pictures have 3 channels, but this network takes {model.image_shape[2]}")
    images, faults = read_pictures([path], model.frame)
    if faults:
        raise DataError(f"{path}: {faults[0]}")
    if model.crop is not None:
        images = center(images, model.crop)
    return Subject(images[0], None, path.name)


def _test_image(model: Model, index: int, root: str | None, digest: str) -> Subject:
    """Take a test image of the dataset that the network was trained on."""
    try:
        dataset = load_data(model.config, root, model.classes)
    except (CnnliteError, OSError) as error:
        raise DataError(f"{error}\nor name a picture file instead") from None
    if dataset.digest != digest or dataset.classes != model.classes:
        raise DataError(f"the images of {dataset.name} here are not those that the run was trained on")
    if index >= len(dataset.test):
        raise ConfigError(f"{Argument('index', str(index))}: there are {len(dataset.test):,} test images, from 0 on")
    source = f"test image {index:,} of {dataset.name}"
    return Subject(dataset.test.images[index], int(dataset.test.labels[index]), source)


def _describe(facts: dict[str, object], subject: Subject) -> str:
    return f"{subject.source}"
