"""Several optimizers, each for parameters of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnnlite.errors import ConfigError, OptionError, Problem
from cnnlite.nn.network import Parameter
from cnnlite.optim.base import MOST_PATTERNS, Group, Optimizer, check_pattern, divide, optimizers
from cnnlite.optim.schedules import Schedule, steps_in


@dataclass(frozen=True)
class Member:
    """Part of a `Composite`.

    Args:
        match: regular expression searched for in a parameter's name, such as ``3.body.0.weight``.
        optimizer: the update rule for the parameters that match.
        schedule: factor for its learning rate; that of the training if left out.
        epochs: train them for so long only, with the schedule over this time; to the end if left out.
    """

    match: str
    optimizer: Optimizer
    schedule: Schedule | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        check_pattern(self.match)
        if isinstance(self.optimizer, Composite):
            raise OptionError("a composite is not a member of another; list its members here", "optimizer")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise OptionError(f"must be above 0, not {self.epochs}", "epochs")
        if self.epochs is not None and self.schedule is None:
            raise OptionError("needs a schedule of its own beside it, such as constant", "epochs")


@optimizers.register("composite")
class Composite(Optimizer):
    """Gives each parameter to the first of several optimizers whose ``match`` finds its name.

    Args:
        members: ``{match: "bias$", optimizer: {sgd: {...}}, schedule: linear, epochs: 3}``; the last two are optional.
    """

    def __init__(self, members: list[Member]):
        if not members:
            raise OptionError("needs at least one", "members")
        if len(members) > MOST_PATTERNS:
            raise OptionError(f"there may be {MOST_PATTERNS}, not {len(members)}", "members")
        self.members = members
        self._plan: tuple[int, int] | None = None

    def check(self, parameters: Sequence[Parameter]) -> None:
        """ConfigError if one of ``parameters`` is left over, a member is without any, or one does not fit its own."""
        for member, share in self._shares(parameters):
            member.optimizer.check(share)

    def bind(self, parameters: Sequence[Parameter]) -> None:
        """Divide ``parameters`` among the members; ConfigError as in `check`."""
        self.check(parameters)
        shares = self._shares(parameters)
        for member, share in shares:
            member.optimizer.bind(share)
        self.bound = [group for member in self.members for group in member.optimizer.bound]
        self._main, _ = max(shares, key=lambda pair: sum(math.prod(parameter.shape) for parameter in pair[1]))

    def _shares(self, parameters: Sequence[Parameter]) -> list[tuple[Member, list[Parameter]]]:
        """Members with their parameters; ConfigError if a parameter is left over, or a member without any."""
        owners, problems = divide(f"{self.path}.members", [member.match for member in self.members], parameters)
        if None in owners:
            left = [parameter.name for parameter, owner in zip(parameters, owners, strict=True) if owner is None]
            names = f"{', '.join(left[:4])}{', ...' if len(left) > 4 else ''}"
            message = f"none matches {names}; add a last member with match: ."
            problems.append(Problem(f"{self.path}.members", message))
        if problems:
            raise ConfigError(problems)
        return [
            (member, [parameter for parameter, owner in zip(parameters, owners, strict=True) if owner == index])
            for index, member in enumerate(self.members)
        ]

    def plan(self, total_steps: int, steps_per_epoch: int) -> None:
        """Lay out the members' schedules."""
        self._plan = total_steps, steps_per_epoch

    def step(self, step: int, factor: float) -> None:
        """Let each member make its update, with ``factor`` or that of its own schedule."""
        for member in self.members:
            own = self._factor(member, step, factor)
            if own is not None:
                member.optimizer.step(step, own)

    def active(self, step: int) -> list[Group]:
        """Those of members whose time is not over."""
        at_work = [member.optimizer for member in self.members if self._factor(member, step, 1.0) is not None]
        return [group for optimizer in at_work for group in optimizer.bound]

    def rate(self, step: int, factor: float) -> float:
        """The learning rate of the member that trains most numbers, known since `bind`."""
        return self._rate(self._main, step, factor)

    def rates(self, step: int, factor: float) -> dict[str, float]:
        """The learning rates of all members, by what they match."""
        return {member.match: self._rate(member, step, factor) for member in self.members}

    def _rate(self, member: Member, step: int, factor: float) -> float:
        own = self._factor(member, step, factor)
        return 0.0 if own is None else member.optimizer.rate(step, own)

    def _factor(self, member: Member, step: int, factor: float) -> float | None:
        """The factor for a member's learning rate; None if its time is over."""
        if self._plan is None:
            return factor
        total_steps, steps_per_epoch = self._plan
        if member.epochs is not None:
            total_steps = steps_in(member.epochs, steps_per_epoch)
            if step >= total_steps:
                return None
        return factor if member.schedule is None else member.schedule.factor(step, total_steps, steps_per_epoch)
