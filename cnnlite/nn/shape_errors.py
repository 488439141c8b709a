"""Shape errors: all of a model in one report, where inference stops at the first."""

from cnnlite.errors import ConfigError, Problem
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel, Sequential
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.memory import refuse_if_too_large
from cnnlite.utils.hints import Override
from cnnlite.utils.types import Shape


def misfits(model: Layer, in_shape: Shape, classes: int | None = None) -> list[Problem]:
    """Find all layers that cannot take their input shape, and an output that is not ``(classes,)``.

    After such a layer, shapes are known again from the next linear layer on; branches are checked separately.
    """
    found: list[Problem] = []
    out_shape = _passed(model, in_shape, found)
    if out_shape is not None and classes is not None and out_shape != (classes,):
        found.append(wrong_output(model, out_shape, classes))
    return list(dict.fromkeys(found))  # what repeats a layer repeats its problem


def wrong_output(model: Layer, out_shape: Shape, classes: int) -> Problem:
    """Describe an output that is not ``(classes,)``, with its place if the last layer is linear."""
    if len(out_shape) > 1:
        return Problem("model", f"its output has shape {out_shape}; end it with flatten or global_avg_pool2d")
    last, message = model, f"gives {out_shape[0]} numbers for each image, but the dataset has {classes} classes"
    while isinstance(last, Sequential) and last.layers:
        last = last.layers[-1]
    if isinstance(last, Linear) and last.path:
        return Problem(f"{last.path}.out_features", f"{message}; write {classes}")
    return Problem("model", message)


def refuse_small_batches(model: Layer, batch_size: int, last: int | None = None) -> None:
    """Raise ConfigError if batches, or an epoch's ``last`` one, are too small for an inferred model to train on."""
    layer = max((layer for _, layer in model.walk()), key=lambda layer: layer.least_batch)
    least, smallest = layer.least_batch, batch_size if last is None else min(last, batch_size)
    if smallest >= least:
        return
    why = f"{layer.path or 'the model'} gets too few values of each channel from a batch of {smallest} for a variance"
    if batch_size < least:
        raise ConfigError([Problem("train.batch_size", f"{why}; take {least} or more")])
    hint = f"leave out an epoch's last batch with {Override('data.drop_last=true')}, or change train.batch_size"
    raise ConfigError([Problem("data.drop_last", f"{why}; {hint}")])


def _passed(layer: Layer, shape: Shape | None, found: list[Problem]) -> Shape | None:
    """Infer a layer's output shape, adding its errors to ``found``; None if the shape is unknown."""
    if isinstance(layer, Sequential):
        for part in layer.layers:
            shape = _passed(part, shape, found)
        return shape
    known = (layer.out_features,) if isinstance(layer, Linear) else None
    try:
        if isinstance(layer, Parallel):
            shapes = [_passed(branch, shape, found) for branch in layer.branches]
            return layer.joined([out for out in shapes if out is not None]) if None not in shapes else None
        if shape is None:
            return known
        layer.out_shape = layer.infer(shape)
        refuse_if_too_large(layer)
        return layer.out_shape
    except ConfigError as error:
        found += error.problems
    except ValueError as error:
        found.append(Problem(layer.path or "model", str(error)))
    return known
