"""Film of a training in the page: the snapshots of a run, as many filters as fit."""

import math
from typing import Any

import numpy as np

from cnnlite.errors import CheckpointError
from cnnlite.nn.filters import first_filters
from cnnlite.nn.network import Network
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.tools.show.numbers import Numbers, planar

MOST_NUMBERS = 400_000
"""Maximum floats of the filters of a film, and of its maps."""


def film_facts(snapshots: Checkpoint, network: Network, numbers: Numbers) -> dict[str, Any]:
    """Add the snapshots to ``numbers`` and return the facts about them; CheckpointError if they are none."""
    steps = snapshots.arrays.get("steps")
    if steps is None or steps.ndim != 1 or not len(steps):
        raise CheckpointError("snapshots.npz: holds no snapshots")
    found = first_filters(network)
    facts: dict[str, Any] = {"steps": steps.tolist(), "place": "" if isinstance(found, str) else found.place}
    facts |= {name: snapshots.meta[name] for name in ("of", "layer", "kind") if type(snapshots.meta.get(name)) is str}
    image = snapshots.arrays.get("image")
    if image is not None and image.ndim == 3 and image.dtype == np.uint8 and 0 < image.size <= MOST_NUMBERS:
        facts["image"] = numbers.add(planar(image, np.arange(image.shape[-1])))
    for name, sides in (("filters", 5), ("maps", 4)):
        array = snapshots.arrays.get(name)
        if array is None:
            facts[name] = None
            continue
        if array.ndim != sides or len(array) != len(steps) or not array.size:
            raise CheckpointError(f"snapshots.npz: holds {name} of shape {array.shape}")
        most = max(1, MOST_NUMBERS // (len(steps) * math.prod(array.shape[2:])))
        facts[name] = numbers.add(np.asarray(array[:, :most], np.float32))
    return facts
