"""Plugins in training: their gradients are checked before it, and their sources kept in the run."""

from collections.abc import Iterator

import numpy as np

from cnnlite.config.load import Config
from cnnlite.config.plugins import loaded
from cnnlite.data import Dataset
from cnnlite.errors import ConfigError, Problem
from cnnlite.nn.gradients import Check, check_layers, check_loss
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.losses import losses
from cnnlite.runs.directory import RunDirectory


def check_gradients(config: Config, dataset: Dataset) -> None:
    """Compare the gradients of the layers and of the loss that plugins brought with finite differences.

    Those that say of themselves that they estimate their gradient are left out.

    Raises:
        ConfigError: If one is wrong.
    """
    own = {entry: cls for plugin in loaded(config.plugins).values() for entry, cls in plugin.classes.items()}
    if not own:
        return
    kinds = {name: cls for (_, name), cls in own.items() if issubclass(cls, Layer)}

    def chosen(kind: str) -> bool:
        parts = [kinds[name] for name in kind.split(" + ") if name in kinds]
        return bool(parts) and not any(cls.estimates_gradient for cls in parts)

    classes, loss = len(dataset.classes), config.train.loss
    with np.errstate(all="ignore"):
        checks = check_layers(config.model, dataset.train.images.shape[1:], config.seed, chosen)
        if type(loss) in own.values() and not loss.estimates_gradient:
            mixed = config.data.mix is not None
            checks.append(check_loss(loss, losses.name_of(type(loss)), classes, config.seed, mixed=mixed))
    if wrong := [Problem(found.path, _describe(found)) for found in checks if not found.right]:
        with config.located():
            raise ConfigError(wrong)


def _describe(found: Check) -> str:
    off = f"{found.errors[found.worst]:.1e} of its length off finite differences"
    return (
        f"the gradient of {found.kind} for {found.worst} is wrong: {off}; mend it, and try `cnnlite gradcheck`, or say "
        "estimates_gradient = True in the class if that is meant"
    )


def keep_plugins(config: Config, run: RunDirectory) -> None:
    """Write copies of the plugins of a config into the run; StorageError if that fails."""
    run.keep_plugins({name: plugin.source for name, plugin in loaded(config.plugins).items()})


def describe_plugins(config: Config) -> Iterator[str]:
    """Yield a line for each plugin of a config, for the log."""
    for name, digest in config.plugins.items():
        yield f"plugin {name}, SHA-256 {digest}"
