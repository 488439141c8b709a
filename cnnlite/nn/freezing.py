"""Freezing: parameters that no update changes, found by their names, and layers that stand still with them."""

import re

from cnnlite.errors import ConfigError, Problem
from cnnlite.nn.layers.base import Layer, dotted
from cnnlite.utils.patterns import NamePattern
from cnnlite.utils.suggest import did_you_mean

_PLACE = "train.freeze"


def freeze(model: Layer, match: str) -> frozenset[str]:
    """Freeze the parameters of an inferred model in whose dotted names the regular expression ``match`` is found.

    A layer is fixed, with its statistics, if all its parameters are frozen; one without parameters, if ``match`` is
    found in the names of all its buffers.

    Returns:
        The names of the frozen parameters, and of the buffers of fixed layers.

    Raises:
        ConfigError: if nothing is found, or no parameter is left to train.
    """
    arrays = {dotted(prefix, key): (layer, spec) for prefix, layer in model.walk() for key, spec in layer.specs.items()}
    layers = {id(layer): layer for layer, _ in arrays.values()}
    trained = {name for name, (_, spec) in arrays.items() if spec.trained}
    with_parameters = {id(arrays[name][0]) for name in trained}
    names = [name for name, (layer, spec) in arrays.items() if spec.trained or id(layer) not in with_parameters]
    try:
        hits = dict(zip(names, NamePattern(match).among(names), strict=True))
    except ValueError as error:
        raise ConfigError([Problem(_PLACE, str(error))]) from None
    if not any(hits.values()):
        hint = did_you_mean(re.sub(r"[^\w.]", "", match), names)
        raise ConfigError(
            [Problem(_PLACE, f"{match!r} matches no parameter (names: {', '.join(names[:4])}, ...){hint}")]
        )
    if all(hits[name] for name in trained):
        last = [name for name in names if name in trained][-1].rpartition(".")[0]
        hint = f"'^(?!{last}[.])' freezes all but the last" if last else "leave it out"
        raise ConfigError([Problem(_PLACE, f"{match!r} matches every parameter, so that nothing would train; {hint}")])
    moving = {id(arrays[name][0]) for name in names if not hits[name]}
    for key, layer in layers.items():
        layer.is_fixed = key not in moving
        layer.is_frozen = layer.is_fixed and key in with_parameters
    found = {name for name in names if hits[name]}
    return frozenset(found | {name for name, (layer, _) in arrays.items() if layer.is_fixed})
