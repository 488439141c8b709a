"""Trained networks to start from: where they are, and what is in their files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.config.bundled import bundled_network, networks_folder
from cnnlite.data import Normalizer
from cnnlite.errors import ConfigError, DamagedError
from cnnlite.runs.checkpoint import open_checkpoint
from cnnlite.runs.locate import checkpoint_of
from cnnlite.runs.restore import averaged_state_of
from cnnlite.runs.safetensors_file import SUFFIX, read_arrays
from cnnlite.utils.files import is_missing, opened
from cnnlite.utils.printable import has_codes, one_line
from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.types import Array

METADATA = "cnnlite"
"""Key of the facts about a network, in JSON, among the metadata of a file of safetensors that we wrote."""
_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of all names in PyTorch where a network was trained in parallel, or compiled."""
_PIECE = 1 << 20
_COUNTERS = ".num_batches_tracked"


@dataclass(frozen=True)
class Source:
    """Arrays of a trained network, by dotted names: our own, or those of PyTorch and in its layout."""

    path: Path
    sha256: str
    arrays: Mapping[str, Array]
    is_torch: bool
    classes: tuple[str, ...] = ()
    """Names of its classes; none if the file does not tell."""
    mode: Any = None
    """Value of ``data.normalize`` that it was trained with, as plain data; None if the file does not tell."""
    normalize: Mapping[str, Array] = field(default_factory=dict)
    """Statistics of that normalization, as `Normalizer.state` gives them; empty if the file does not tell."""


def locate(name: str) -> Path:
    """Find the file that ``train.from`` means: itself, a run's best checkpoint, or a bundled network.

    Raises:
        ConfigError: If there is nothing of that name.
        CheckpointError: If the run has no checkpoint yet.
    """
    path = Path(name)
    if is_missing(path):
        if bundled := bundled_network(name):
            return bundled
        if hint := did_you_mean(name, (file.stem for file in networks_folder().glob("*.npz"))):
            raise ConfigError(f"{one_line(name)}: no such run or file, and no bundled network of that name{hint}")
    return path if path.suffix == SUFFIX else checkpoint_of(path)


def read_source(path: Path) -> Source:
    """Read the arrays of a checkpoint or a file of safetensors, those to evaluate with where there are averages.

    Raises:
        CheckpointError: If the file is damaged, or no checkpoint.
        DataError: If it is missing or cannot be read.
        ConfigError: If it takes a library that is not installed.
    """
    return _of_safetensors(path) if path.suffix == SUFFIX else _of_checkpoint(path)


def _of_checkpoint(path: Path) -> Source:
    digest = hashlib.sha256()
    with opened(path) as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            digest.update(piece)
    with open_checkpoint(path) as checkpoint_file:
        checkpoint = checkpoint_file.read("param/", "buffer/", "average/", "normalize/")
    state = {name.partition("/")[2]: array for name, array in averaged_state_of(checkpoint).items()}
    arrays = {name: array.astype(np.float32) for name, array in state.items() if array.dtype.kind == "f"}
    config = checkpoint.meta.get("config")
    data = config.get("data") if isinstance(config, dict) else None
    mode = data.get("normalize") if isinstance(data, dict) else None
    statistics = {f"normalize/{name}": array for name, array in checkpoint.part("normalize").items()}
    facts = _facts(path, checkpoint.meta.get("classes"), mode, statistics)
    return Source(path.absolute(), digest.hexdigest(), arrays, False, *facts)


def _of_safetensors(path: Path) -> Source:
    with opened(path) as file:
        content = file.read()
    try:
        arrays, metadata = read_arrays(content)
        stated_facts = json.loads(metadata.get(METADATA, "{}"))
        stated = stated_facts.get("normalize", {})
        statistics = {f"normalize/{name}": np.array(stated[name], np.float32) for name in ("mean", "std") if stated}
        classes, mode = stated_facts.get("classes"), stated.get("mode")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path}: its metadata are not as cnnlite writes them ({error})") from None
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from None
    arrays = {name: array for name, array in arrays.items() if not name.endswith(_COUNTERS)}
    facts = _facts(path, classes, mode, statistics)
    return Source(path.absolute(), hashlib.sha256(content).hexdigest(), _unwrapped(arrays), True, *facts)


def _facts(
    path: Path, classes: Any, mode: Any, statistics: dict[str, Array]
) -> tuple[tuple[str, ...], Any, Mapping[str, Array]]:
    """Check what a file says of classes and normalization; DamagedError if that cannot be so."""
    if classes is None:
        classes = []
    if not isinstance(classes, list) or not all(isinstance(name, str) and not has_codes(name) for name in classes):
        raise DamagedError(f"{path}: its classes are not names")
    try:
        return tuple(classes), mode, Normalizer.from_state(statistics).state() if statistics else {}
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{path}: holds no normalization of images ({error})") from None


def _unwrapped(arrays: dict[str, Array]) -> dict[str, Array]:
    """Take away what wrappers of PyTorch put before all names."""
    while prefix := next((prefix for prefix in _WRAPPERS if arrays and all(n.startswith(prefix) for n in arrays)), ""):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
