"""Optimizers: update rules for flat arrays of parameters, with options by patterns of parameter names."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from cnnlite.errors import ConfigError, OptionError, Problem
from cnnlite.nn.network import Parameter, load_arrays, pack, places
from cnnlite.runtime import engine, shards
from cnnlite.utils.patterns import NamePattern
from cnnlite.utils.registry import Registry
from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.types import Array, Shape

Options: TypeAlias = Mapping[str, Any]

MOST_PATTERNS = 100
"""Groups of an optimizer, or members of a composite: each has a pattern, which is searched for in all names."""


@dataclass(eq=False)
class Group:
    """Parameters with the same options: values, gradients and state, each side by side in one flat array."""

    parameters: Sequence[Parameter]
    options: Options
    values: Array
    grads: Array
    slots: dict[str, Array]
    rows: Array | None = None
    """Gradients of each worker's own samples, (workers, numbers), if there are several workers."""

    def attach(self, own: Array) -> None:
        """Let the layers write the gradients of this worker's samples to ``own``, as flat as ``grads``.

        Those of large weights are of the whole batch, and written to ``grads`` by all workers.
        """
        for parameter, place in places(self.parameters):
            flat = self.grads if parameter.is_large else own
            parameter.layer.grads[parameter.key] = flat[place].reshape(parameter.shape)

    def add_up(self) -> None:
        """Sum the gradients of all workers' samples."""
        if self.rows is not None:
            for place in self._own:
                shards.add_up(self.rows[:, place], self.grads[place])

    @cached_property
    def _own(self) -> list[slice]:
        """Places of the parameters whose gradients are each worker's own, in as few slices as possible."""
        found: list[slice] = []
        for parameter, place in places(self.parameters):
            if parameter.is_large:
                continue
            if found and found[-1].stop == place.start:
                place = slice(found.pop().start, place.stop)
            found.append(place)
        return found


class Optimizer(ABC):
    """Changes parameters by their gradients, in place."""

    path: str = "train.optimizer"  # the builder writes the whole place in the config
    bound: list[Group]
    """The parameters in its charge, since `bind`."""

    @abstractmethod
    def check(self, parameters: Sequence[Parameter]) -> None:
        """ConfigError if ``parameters`` do not fit the options; nothing is changed."""

    @abstractmethod
    def bind(self, parameters: Sequence[Parameter]) -> None:
        """Take charge of ``parameters``, with state at zero; ConfigError as in `check`."""

    def plan(self, total_steps: int, steps_per_epoch: int) -> None:  # noqa: B027 (most need not know)
        """Learn how long the training is to be; without, nothing depends on it."""

    @abstractmethod
    def step(self, step: int, factor: float) -> None:
        """Make update ``step`` (counted from 0) with ``factor`` times every learning rate."""

    @abstractmethod
    def rate(self, step: int, factor: float) -> float:
        """The learning rate that update ``step`` has with ``factor``, for the metrics."""

    def rates(self, step: int, factor: float) -> dict[str, float]:
        """All learning rates of update ``step``, by whose they are; one that is for all has an empty name."""
        return {"": self.rate(step, factor)}

    def active(self, step: int) -> list[Group]:
        """The groups that update ``step`` changes; one that it leaves alone is changed by no later one either."""
        return self.bound

    def finished(self, step: int) -> list[Parameter]:
        """The parameters that neither update ``step`` nor a later one changes."""
        active = self.active(step)
        return [parameter for group in self.bound if group not in active for parameter in group.parameters]

    def state(self) -> dict[str, Array]:
        """Live views of all state, ``"<slot>/<parameter name>"``, in the parameters' shapes."""
        views = {}
        for group in self.bound:
            edges = np.cumsum([parameter.value.size for parameter in group.parameters])[:-1]
            for slot, flat in group.slots.items():
                for parameter, piece in zip(group.parameters, np.split(flat, edges), strict=True):
                    views[f"{slot}/{parameter.name}"] = piece.reshape(parameter.value.shape)
        return views

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Copy ``arrays`` into the state; CheckpointError, and nothing changed, unless names and shapes agree."""
        load_arrays(self.state(), arrays, "optimizer")


@dataclass(eq=False)
class Rule(Optimizer):
    """One update rule for all parameters.

    A subclass adds its options as fields, ``lr`` among them, names its state in ``slots_for``, and writes ``update``,
    the rule for a piece of the flat arrays; or ``step_group`` too, where the rule needs whole matrices.

    Weight decay is for parameters called ``weight``: biases and the scales and shifts of normalizations have none.

    Args:
        groups: other options for some parameters, from the first entry that matches: ``{match: "bias$", lr: 0.2}``,
            ``match`` being a regular expression searched for in the parameter's name. A ``weight_decay`` there goes to
            all that it matches.
    """

    groups: list[dict[str, Any]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.options = {name: _checked(name, value, value) for name, value in vars(self).items() if name != "groups"}
        if not self.options["lr"]:
            raise OptionError("lr 0 would train nothing", "lr")
        if self.options.get("nesterov") and not self.options["momentum"]:
            raise OptionError("nesterov needs a momentum above 0", "nesterov")
        if self.groups and len(self.groups) > MOST_PATTERNS:
            raise OptionError(f"there may be {MOST_PATTERNS}, not {len(self.groups)}", "groups")
        self._rules = [self._rule(index, group) for index, group in enumerate(self.groups or ())]

    def _rule(self, index: int, group: Options) -> tuple[str, Options]:
        match, changed = group.get("match"), {name: value for name, value in group.items() if name != "match"}
        if not isinstance(match, str):
            raise OptionError("'match' must be a regular expression for parameter names", "groups", index)
        for name in changed:
            if name not in self.options:
                hint = did_you_mean(str(name), self.options)
                raise OptionError(f"unknown option {name!r}{hint}", "groups", index)
        try:
            check_pattern(match)
            return match, {name: _checked(name, value, self.options[name]) for name, value in changed.items()}
        except OptionError as error:
            raise OptionError(str(error), "groups", index) from None

    def check(self, parameters: Sequence[Parameter]) -> None:
        """ConfigError if a group is left without any of ``parameters``."""
        self._members(parameters)

    def bind(self, parameters: Sequence[Parameter]) -> None:
        """Take charge of ``parameters``, with state at zero; ConfigError as in `check`."""
        self.check(parameters)
        self.bound = []
        for items, group in self._members(parameters).items():
            options, (values, grads) = dict(items), pack(group)
            slots = {slot: engine.shared(values.shape, values.dtype) for slot in self.slots_for(options)}
            self.bound.append(Group(group, options, values, grads, slots))

    def _members(self, parameters: Sequence[Parameter]) -> dict[tuple[tuple[str, Any], ...], list[Parameter]]:
        """Those of ``parameters`` with the same options together; ConfigError if a group is left without any."""
        owners, problems = divide(f"{self.path}.groups", [match for match, _ in self._rules], parameters)
        if problems:
            raise ConfigError(problems)
        members: dict[tuple[tuple[str, Any], ...], list[Parameter]] = {}
        for parameter, owner in zip(parameters, owners, strict=True):
            options = dict(self.options)
            if parameter.name.rpartition(".")[2] != "weight":
                options["weight_decay"] = 0.0
            if owner is not None:
                options.update(self._rules[owner][1])
            members.setdefault(tuple(options.items()), []).append(parameter)
        return members

    def slots_for(self, options: Options) -> tuple[str, ...]:
        """Names of the arrays of state that parameters with these options need."""
        return ()

    @abstractmethod
    def update(self, values: Array, grads: Array, slots: Mapping[str, Array], scratch: Array, options: Options) -> None:
        """Change ``values`` and ``slots`` in place and leave ``grads``; all and ``scratch`` are of one shape.

        They are flat pieces of any size where ``step_group`` makes no matrices of them. ``options`` are those of the
        group, with ``lr`` as scheduled and ``step`` counted from 0.
        """

    def step(self, step: int, factor: float) -> None:
        """Update one group after the other."""
        for group in self.bound:
            self.step_group(group, {**group.options, "lr": float(group.options["lr"] * factor), "step": step})

    def rate(self, step: int, factor: float) -> float:
        """``factor`` times the option ``lr``."""
        return float(self.options["lr"] * factor)

    def step_group(self, group: Group, options: Options) -> None:
        """Update a group piece by piece, so that every array passes through the cache once."""

        def task(start: int, stop: int) -> None:
            self.update_piece(group, start, stop, options)

        # Larger pieces than fit in L2: in passes shorter than ~20 us, threads wait for the interpreter lock instead.
        engine.for_blocks(task, group.values.size, 2 * group.values.itemsize)

    def update_piece(self, group: Group, start: int, stop: int, options: Options, shape: Shape = (-1,)) -> None:
        """Call ``update`` for the numbers of a group from ``start`` to ``stop``, in that shape."""

        def piece(flat: Array) -> Array:
            return flat[start:stop].reshape(shape)

        values, slots = piece(group.values), {name: piece(flat) for name, flat in group.slots.items()}
        scratch = engine.scratch("optimizer", values.shape, values.dtype)
        self.update(values, piece(group.grads), slots, scratch, options)


def check_pattern(match: str) -> None:
    """OptionError if ``match`` is no pattern that can be searched for in names."""
    try:
        NamePattern(match)
    except ValueError as error:
        raise OptionError(str(error), "match") from None


def divide(
    path: str, patterns: Sequence[str], parameters: Sequence[Parameter]
) -> tuple[list[int | None], list[Problem]]:
    """Find the first of ``patterns`` in the name of each of ``parameters``: its index, or None.

    Also returns what is wrong with patterns that are left without any, as part of the list at ``path``. ConfigError
    for a pattern that cannot be searched for.
    """
    names, found = [parameter.name for parameter in parameters], []
    for index, match in enumerate(patterns):
        try:
            found.append(NamePattern(match).among(names))
        except ValueError as error:
            raise ConfigError([Problem(f"{path}[{index}].match", f"{match!r:.60}: {error}")]) from None
    owners = [next((i for i, hits in enumerate(found) if hits[number]), None) for number in range(len(names))]
    without = f"matches no parameter that is left (names: {', '.join(names[:4])}, ...)"
    unused = (index for index in range(len(patterns)) if index not in owners)
    return owners, [Problem(f"{path}[{index}].match", f"{patterns[index]!r} {without}") for index in unused]


def _checked(name: str, value: Any, example: Any) -> Any:
    """``value`` as what ``example`` is: a bool, a tuple of numbers or a float; OptionError if it is not."""
    if name == "iterations" and type(value) is int and 1 <= value <= 100:
        return value
    if name == "iterations":
        raise OptionError(f"iterations {value!r} is not a whole number in [1, 100]", "iterations")
    if isinstance(example, list | tuple) and isinstance(value, list | tuple) and len(value) == len(example):
        return tuple(_checked(name, *pair) for pair in zip(value, example, strict=True))
    if isinstance(example, bool) and isinstance(value, bool):
        return value
    if isinstance(example, bool | list | tuple) or isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionError(f"{name} {value!r} is not of the kind of {example!r}", name)
    limit = 1 if name in ("momentum", "betas") else math.inf
    if not 0 <= value < limit or (name == "eps" and not value):
        raise OptionError(f"{name} {value} is not in {'(' if name == 'eps' else '['}0, {limit})", name)
    return float(value)  # a NumPy float64 would make all arithmetic with it float64


def gradient_norm(groups: Sequence[Group]) -> float:
    """The L2 norm of all gradients of ``groups`` together; infinite or NaN if a gradient is."""
    pieces = [g.grads[i:j] for g in groups for i, j in engine.blocks(g.grads.size, g.grads.itemsize)]
    squares = shards.collect(lambda index: float(np.vdot(pieces[index], pieces[index])), len(pieces))
    total = sum(squares.tolist())  # of vdot, where np.dot would warn of an overflow
    if math.isinf(total):  # perhaps only beyond float32
        total = sum(shards.collect(lambda index: _square(pieces[index]), len(pieces)).tolist())
    return math.sqrt(total)


def _square(piece: Array) -> float:
    return float(np.einsum("i,i", piece, piece, dtype=np.float64))


def scale_gradients(groups: Sequence[Group], factor: float) -> None:
    """Multiply all gradients of ``groups`` by ``factor``."""
    for group in groups:

        def scale(start: int, stop: int, grads: Array = group.grads) -> None:
            grads[start:stop] *= float(factor)

        engine.for_blocks(scale, group.grads.size, 2 * group.grads.itemsize)


optimizers: Registry[Optimizer] = Registry("optimizer", Optimizer)  # type: ignore[type-abstract]
