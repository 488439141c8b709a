"""Restores datasets and networks from configs and checkpoints."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite import __version__
from cnnlite.config.load import Config, config_from_data
from cnnlite.config.plugins import names_unknown
from cnnlite.data import Dataset, Normalizer, load_dataset
from cnnlite.data.augment import check_shapes
from cnnlite.data.datasets.base import refuse_unread
from cnnlite.data.frames import Frame
from cnnlite.data.sampling import shown_counts
from cnnlite.errors import CheckpointError, ConfigError, PluginError
from cnnlite.nn.losses import Loss
from cnnlite.nn.memory import refuse_if_too_large
from cnnlite.nn.network import Described, Network, check_arrays
from cnnlite.nn.shape_errors import refuse_small_batches
from cnnlite.runs.checkpoint import Checkpoint, CheckpointFile, open_checkpoint
from cnnlite.runs.locate import PLUGINS
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import has_codes, is_text
from cnnlite.utils.types import Array, Shape

_STATE = ("param/", "buffer/")
_AVERAGE = "average/"
_NORMALIZE = "normalize/"
_SEEN = "seen/"
_OPTIMIZER = "optimizer/"
_LARGEST_SIDE = 2**20
_MANY = 10**15
"""More images than there are."""


def load_data(config: Config, root: str | None = None, classes: tuple[str, ...] | None = None) -> Dataset:
    """Load and split the dataset of a config, from the folder ``root`` if given.

    The config of a checkpoint is untrusted: with the ``classes`` that it was trained on, nothing is written where the
    config says.

    Raises:
        ConfigError: If there is a ``root``, but the dataset reads no files.
        DataError: If the dataset is missing or damaged, or has other classes; these are checked before decoding images.
        ConfigError: If the network does not fit the images of a training; this too.
    """
    data = config.data
    refuse_unread(data.dataset, root)
    return load_dataset(
        data.dataset.checked_by(partial(check_model, config))
        if classes is None
        else data.dataset.reading_only(classes),
        Path(data.root if root is None else root),
        validation=data.validation,
        center_crop=data.center_crop,
        seed=config.seed,
    )


def check_model(config: Config, shape: Shape | None = None, classes: int | None = None) -> Network | None:
    """Infer the shapes of a network before any image is read, if its shape is known.

    ``shape`` and number of ``classes`` are those of the images as they are stored; else what the config tells of them.

    Returns:
        The network, without arrays, or None if only the data tells.

    Raises:
        ConfigError: If layers do not fit each other, or the network does not fit in memory.
    """
    in_shape = config.data.cropped(config.data.dataset.in_shape if shape is None else shape)
    if in_shape is None:
        return None
    with config.located():
        classes = classes or config.data.dataset.class_count
        network = Network(config.model, in_shape, seed=None, classes=classes, frozen=config.train.freeze)
        refuse_if_too_large(network.model, config.train.batch_size)
        return network


def check_training(config: Config) -> Network | None:
    """Infer a network as `check_model` does, and check that what trains it fits; ConfigError if not."""
    network = check_model(config)
    if network is not None:
        with config.located():
            check_shapes(config.data.augment, network.in_shape)
            refuse_small_batches(network.model, config.train.batch_size)
            config.train.optimizer.check(network.trainable)
            config.train.loss.fit(np.ones(math.prod(network.out_shape)))
    return network


def fitted_loss(config: Config, class_counts: Array) -> Loss:
    """Return the loss for training images of which so many, ``(K,)``, are of each class; ConfigError if it is not.

    Classes that the batches show equally often have equal weights if these are ``balanced``.
    """
    return config.train.loss.fit(shown_counts(config.data.sampling, class_counts))


def loss_of(checkpoint: Checkpoint, config: Config, classes: int) -> Loss:
    """Return the loss that the network of a checkpoint was trained with; CheckpointError if the file does not tell."""
    counts = image_counts(checkpoint.meta.get("class_counts"), classes)
    try:
        loss = fitted_loss(config, np.array(counts or [1] * classes))
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint is not whole: {error}") from None
    if counts is None and loss is not config.train.loss:  # that of older versions never depends on them
        raise CheckpointError("the checkpoint is not whole: class_counts are not the numbers of images of its classes")
    return loss


def image_counts(fact: Any, classes: int) -> list[int] | None:
    """Return ``fact``, of a checkpoint's metadata, if it is a number of images for each class; else None."""
    if not isinstance(fact, list) or len(fact) != classes:
        return None
    return fact if all(type(count) is int and 0 <= count < _MANY for count in fact) else None


def infer_model(config: Config) -> Network:
    """Infer a network as `check_model` does, and read the dataset only if nothing else tells the shape of the images.

    Raises:
        ConfigError: If the network cannot be built.
        DataError: If the images are needed and missing.
    """
    if (network := check_model(config)) is not None:
        return network
    dataset = load_data(config)
    in_shape, classes = dataset.train.images.shape[1:], len(dataset.classes)
    return Network(config.model, in_shape, seed=None, classes=classes, frozen=config.train.freeze)


def describe_model(config: Config) -> str:
    """Infer the network of a config and return a line about its size; ConfigError if it cannot be built or trained."""
    network = check_training(config)
    if network is None:
        return "every option is right; the shapes can be checked with the dataset only"
    return f"fine; {network.size:,} parameters, from {network.in_shape} to {network.out_shape}"


def load_network(path: Path) -> tuple[Checkpoint, Config, Network, Normalizer, tuple[str, ...]]:
    """Read a checkpoint, and rebuild its config, network, normalization and class names.

    Only arrays that fit the network are read.

    Raises:
        CheckpointError: If it does not describe a whole network.
    """
    with open_checkpoint(path) as file:
        config, network, classes = _rebuild(file.meta, file.announced, path)
        checkpoint = file.read(*_STATE, _AVERAGE, _NORMALIZE, _SEEN)
    network.load_state(averaged_state_of(checkpoint))
    return checkpoint, config, network, normalizer_of(checkpoint, path), classes


def frame_of(config: Config, network: Network) -> Frame:
    """Return the frame that makes pictures of any size as large as the images that a network was trained on."""
    height, width, channels = network.in_shape
    return config.data.dataset.frame or Frame(height, width, channels=channels)


def _rebuild(
    meta: dict[str, Any], arrays: Mapping[str, Described], path: Path, *, training: bool = False
) -> tuple[Config, Network, tuple[str, ...]]:
    """Build the network that ``meta`` describes, without loading weights; CheckpointError if ``arrays`` do not fit.

    With ``training``, what the config freezes is frozen.
    """
    try:
        config = config_from_data(meta["config"])
        classes, in_shape = tuple(meta["classes"]), tuple(meta["in_shape"])
        if not all(isinstance(name, str) and is_text(name) and not has_codes(name) for name in classes):
            raise ValueError("classes are not names")
        if len(in_shape) != 3 or not all(type(side) is int and 0 < side < _LARGEST_SIDE for side in in_shape):
            raise ValueError(f"in_shape {in_shape!r:.40} is not that of images")
        crop = config.data.center_crop
        if in_shape != (config.data.in_shape or in_shape) or (crop is not None and in_shape[:2] != (crop, crop)):
            raise ValueError(f"in_shape {in_shape} is not that of the images of its config")
        announced = sum(math.prod(array.shape) for array in arrays.values())
        outline = Network(config.model, in_shape, seed=None)
        if outline.size > announced:
            raise ValueError(f"does not fit the network: {announced:,} numbers for {outline.size:,} parameters")
        frozen = config.train.freeze if training else None
        network = Network(config.model, in_shape, seed=config.seed, classes=len(classes), frozen=frozen)
        own = {name: array for name, array in arrays.items() if name.startswith(_STATE)}
        check_arrays(network.state(), own, "network")
        averages = {name[len(_AVERAGE) :]: array for name, array in arrays.items() if name.startswith(_AVERAGE)}
        check_arrays(network.state(), own | averages, "network")
        shapes = [arrays[f"{_NORMALIZE}{name}"].shape for name in ("mean", "std")]
        if shapes[0] != shapes[1] or shapes[0] not in (in_shape, in_shape[-1:]):
            raise ValueError(f"normalize/mean {shapes[0]} and normalize/std {shapes[1]} do not fit images {in_shape}")
    except KeyError as error:
        raise CheckpointError(f"{path}: holds no {error.args[0]!r}, so it is not a whole network") from None
    except PluginError as error:
        raise with_copies(error, path) from None
    except (ConfigError, CheckpointError, TypeError, ValueError, OverflowError) as error:
        why = "; ".join(str(error).splitlines())
        why += unregistered(error) if isinstance(error, ConfigError) else ""
        raise CheckpointError(f"{path}: does not describe a network of cnnlite {__version__}: {why}") from None
    return config, network, classes


def unregistered(error: ConfigError) -> str:
    """Return a hint if a run's config has a name that is not registered, such as a custom layer; else empty."""
    return " (one of your own has to be registered first)" if names_unknown(error.problems) else ""


def with_copies(error: PluginError, path: Path) -> PluginError:
    """Return the error for a checkpoint or a run, which names the run's copies of the plugins where there are."""
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    copies = [run / PLUGINS / name for name in error.needed]
    files = [str(copy) if copy.is_file() else name for copy, name in zip(copies, error.needed, strict=True)]
    look = "look at the copy in the run, then" if any(copy.is_file() for copy in copies) else "to run that file,"
    message = f"was trained with {', '.join(error.needed)}; {look} give {Argument('plugins', files)}"
    return PluginError(f"{path}: {message}", error.needed)


def check_run(path: Path) -> Callable[[CheckpointFile], None]:
    """Return a check that the file of a run at ``path`` has everything needed to resume training.

    The check raises CheckpointError for missing or unfit arrays of network, averages, normalization or optimizer.
    """

    def check(file: CheckpointFile) -> None:
        config, network, _ = _rebuild(file.meta, file.announced, path, training=True)
        try:
            config.train.optimizer.bind(network.trainable)
            slots = {name[len(_OPTIMIZER) :]: a for name, a in file.announced.items() if name.startswith(_OPTIMIZER)}
            check_arrays(config.train.optimizer.state(), slots, "optimizer")
        except (ConfigError, CheckpointError) as error:
            raise CheckpointError(f"{path}: {error}") from None

    return check


def normalizer_of(checkpoint: Checkpoint, path: Path) -> Normalizer:
    """Return the normalization of images in a checkpoint; CheckpointError if there is none."""
    try:
        return Normalizer.from_state(checkpoint.arrays)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no normalization of images ({error})") from None


def state_of(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return the arrays of a checkpoint that belong to the network."""
    return {name: array for name, array in checkpoint.arrays.items() if name.startswith(_STATE)}


def averaged_state_of(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return the arrays to evaluate with: the averages, where training kept some, else the network's own."""
    return state_of(checkpoint) | checkpoint.part("average")
