"""Builds the page of a trained network and one image."""

from collections.abc import Callable
from pathlib import Path

from cnnlite.data.datasets.base import center
from cnnlite.data.images import read_pictures
from cnnlite.errors import CheckpointError, CnnliteError, ConfigError, DataError
from cnnlite.nn.losses import Loss
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint, open_checkpoint
from cnnlite.runs.directory import SNAPSHOTS
from cnnlite.runs.restore import load_data, loss_of
from cnnlite.tools.predict import Model
from cnnlite.tools.show.collect import Subject, collect
from cnnlite.tools.show.film import film_facts
from cnnlite.tools.show.numbers import Numbers
from cnnlite.tools.show.page import page_html
from cnnlite.utils.files import is_missing, refuse_existing, write_files
from cnnlite.utils.hints import Argument
from cnnlite.utils.text import size_text


def write_show(
    checkpoint: Path,
    out: Path,
    *,
    image: Path | None = None,
    index: int = 0,
    root: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Write the page of ``checkpoint`` and a picture, or the test image ``index``; returns a line about the result.

    ``root`` overrides the folder of the dataset; ``say`` is told what is left out.

    Raises:
        ConfigError: If ``out`` exists, unless ``force`` allows to replace it, or there is no such image.
        CheckpointError: If the checkpoint is not that of a whole network.
        DataError: If the picture or the dataset cannot be read.
        DivergedError: If the network's outputs are not finite.
        StorageError: If the page cannot be written.
    """
    refuse_existing([out], force=force, source=checkpoint)
    with open_checkpoint(checkpoint) as file:
        meta = file.meta
    step, trained_on = meta.get("step"), meta.get("dataset")
    model = Model.load(checkpoint)
    if type(step) is not int or not isinstance(trained_on, dict):
        raise CheckpointError(f"{checkpoint}: does not say on what it was trained, and for how long")
    if image is not None:
        subject = read_picture(model, image)
    else:
        subject = test_image(model, index, root, str(trained_on.get("digest")))
    snapshots = None
    try:
        snapshots = _snapshots(checkpoint)
    except CheckpointError as error:
        say(f"left out: the film of the training: {error}")
    loss = loss_of(Checkpoint({}, meta), model.config, len(model.classes))
    page = show_page(
        model, loss, subject, step=step, title=_name(checkpoint), checkpoint=checkpoint.name, snapshots=snapshots
    )
    content = page.encode()
    write_files({out: content}, force=force)
    return f"{out}: {size_text(len(content))}; {subject.source}"


def show_page(
    model: Model,
    loss: Loss,
    subject: Subject,
    *,
    step: int = 0,
    title: str = "a network",
    checkpoint: str = "no checkpoint",
    snapshots: Checkpoint | None = None,
) -> str:
    """Return the page of ``model`` at work on ``subject``; DivergedError if its outputs are not finite."""
    numbers = Numbers()
    facts = collect(model, loss, subject, step, numbers)
    facts |= {"title": title, "checkpoint": checkpoint, "step": step}
    facts["film"] = film_facts(snapshots, model.network, numbers) if snapshots else None
    return page_html(f"{title} at work", facts, numbers)


def _snapshots(checkpoint: Path) -> Checkpoint | None:
    """Load the snapshots of the run that a checkpoint is in; None if it has none."""
    folder = checkpoint.resolve().parent
    path = folder.parent / SNAPSHOTS
    return None if folder.name != "checkpoints" or is_missing(path) else load_checkpoint(path)


def _name(checkpoint: Path) -> str:
    """Name of the run that a checkpoint belongs to, or else of the file."""
    folder = checkpoint.resolve().parent
    return folder.parent.name if folder.name == "checkpoints" else checkpoint.stem


def read_picture(model: Model, path: Path) -> Subject:
    """Read a picture file as `predict` does.

    Raises:
        DataError: If it cannot be read, or the network takes no colours.
    """
    if model.image_shape[2] not in (1, 3):
        raise DataError(f"pictures have 3 channels, or 1 if grey, but this network takes {model.image_shape[2]}")
    images, faults = read_pictures([path], model.frame)
    if faults:
        raise DataError(f"{path}: {faults[0]}")
    if model.crop is not None:
        images = center(images, model.crop)
    return Subject(images[0], None, path.name)


def test_image(model: Model, index: int, root: str | None, digest: str) -> Subject:
    """Take test image ``index`` of the dataset that the network was trained on, which has this ``digest``.

    Raises:
        ConfigError: If there are not so many.
        DataError: If the dataset is missing, or another one.
    """
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
