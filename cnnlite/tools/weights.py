"""Export of parameters and statistics to a file of safetensors, with PyTorch's names and layouts."""

import json
from pathlib import Path

import numpy as np

from cnnlite import __version__
from cnnlite.config.options import to_plain
from cnnlite.nn.torch_layout import layouts
from cnnlite.runs.pretrained import METADATA
from cnnlite.runs.safetensors_file import file_of, read_arrays
from cnnlite.tools.predict import Model
from cnnlite.utils.files import refuse_existing, write_files
from cnnlite.utils.types import Array


def export(checkpoint: Path, out: Path, *, force: bool = False) -> tuple[int, str]:
    """Write the network of a checkpoint, as it is evaluated, as a file of safetensors.

    ``force`` allows ``out`` to exist.

    Returns:
        The size in bytes, and a description of the content.

    Raises:
        ConfigError: If ``out`` exists, or safetensors is not installed.
        CheckpointError: If the checkpoint cannot be loaded.
        StorageError: If the file cannot be written.
    """
    refuse_existing([out], force=force, source=checkpoint)
    model = Model.load(checkpoint)
    arrays = torch_state(model)
    content = file_of(arrays, {"format": "pt", METADATA: json.dumps(_facts(model), ensure_ascii=False)})
    back, _ = read_arrays(content)
    if back.keys() != arrays.keys() or not all(np.array_equal(back[name], arrays[name]) for name in arrays):
        raise RuntimeError("the file holds other numbers than the network")
    write_files({out: content}, force=force)
    numbers = sum(array.size for array in arrays.values())
    return len(content), f"{len(arrays)} arrays of {numbers:,} numbers, in PyTorch's layout; read back, the same bits"


def torch_state(model: Model) -> dict[str, Array]:
    """Return the arrays of a network by PyTorch's names, in its layout: as ``load_state_dict`` takes them."""
    places = layouts(model.network.model)
    state = {name.partition("/")[2]: array for name, array in model.network.state().items()}
    return {places[name].name: places[name].to_torch(array) for name, array in state.items()}


def _facts(model: Model) -> dict[str, object]:
    """Return what a program has to know beside the arrays: classes, and normalization of images in units of bytes."""
    statistics = {"mean": model.normalizer.mean.tolist(), "std": model.normalizer.std.tolist()}
    normalize = {"mode": to_plain(model.config.data.normalize), **statistics}
    return {"version": __version__, "classes": model.classes, "normalize": normalize}
