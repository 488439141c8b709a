"""Learning-rate schedules: pure functions from a step to a factor for the learning rate."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from cnnlite.errors import OptionError
from cnnlite.utils.registry import Registry


def steps_in(epochs: float, steps_per_epoch: int) -> int:
    """Number of steps of so many epochs, an incomplete last one included."""
    return math.ceil(epochs * steps_per_epoch - 1e-6)  # 0.3 epochs must not have one step more for the last bits of 0.3


@dataclass(frozen=True)
class Schedule(ABC):
    """A curve over the training, times a linear warm-up.

    During a warm-up of ``w`` steps, given in epochs or in steps, the factor of step ``i`` is ``(i + 1) / (w + 1)``.

    Args:
        warmup_epochs: length of the warm-up in epochs.
        warmup_steps: its length in steps; give one of the two.
    """

    warmup_epochs: float = field(default=0.0, kw_only=True)
    warmup_steps: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            for number in value if isinstance(value, list) else (value,):
                limit = 1 if name in ("gamma", "final", "peak", "start", "end") else 1e9
                if number is not None and not 0 <= number <= limit:
                    raise OptionError(f"{name} {number} is not in [0, {limit:g}]", name)
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("give warmup_epochs or warmup_steps, not both")

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor of the learning rates at ``step``, counted from 0, of ``total_steps``."""
        warmup = self.warmup(steps_per_epoch)
        ramp = min(1.0, (step + 1) / (warmup + 1))
        progress = (step - warmup) / max(1, total_steps - warmup)
        return ramp * self._curve(min(max(progress, 0.0), 1.0), step / steps_per_epoch)

    def warmup(self, steps_per_epoch: int) -> int:
        """Steps of the warm-up."""
        return self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)

    @abstractmethod
    def _curve(self, progress: float, epoch: float) -> float:
        """The factor without warm-up; ``epoch`` counts from 0.

        ``progress`` goes from 0 after the warm-up towards 1, which would be the step after the last.
        """


schedules: Registry[Schedule] = Registry("schedule", Schedule)  # type: ignore[type-abstract]


@schedules.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The learning rate as given."""

    def _curve(self, progress: float, epoch: float) -> float:
        return 1.0


@schedules.register("step")
@dataclass(frozen=True)
class Step(Schedule):
    """Multiplies by ``gamma`` at each of the ``milestones`` or ``every`` so many epochs; both count from the start.

    Args:
        gamma: factor for the learning rate, between 0 and 1.
        milestones: list of epochs; give this or ``every``.
        every: number of epochs between two of these steps.
    """

    gamma: float = 0.1
    milestones: list[float] | None = None
    every: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.milestones is None) == (not self.every) or (self.every or 1) < 1e-6:
            raise ValueError("give either milestones, a list of epochs, or every, a number of epochs above 0")

    def _curve(self, progress: float, epoch: float) -> float:
        if self.every:
            return float(self.gamma ** math.floor(epoch / self.every + 1e-9))  # 0.3 / 0.1 is a little less than 3
        return float(self.gamma ** sum(epoch >= milestone for milestone in self.milestones or ()))


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine wave from 1 down to ``final`` (Loshchilov & Hutter 2017, arXiv:1608.03983).

    Args:
        final: part of the learning rate that is left at the end.
    """

    final: float = 0.0

    def _curve(self, progress: float, epoch: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@schedules.register("linear")
@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from 1 down to ``final``.

    Args:
        final: part of the learning rate that is left at the end.
    """

    final: float = 0.0

    def _curve(self, progress: float, epoch: float) -> float:
        return 1 + (self.final - 1) * progress


@schedules.register("one_cycle")
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Linear from ``start`` to 1 at the fraction ``peak``, then to ``end`` (Smith & Topin 2018, arXiv:1708.07120).

    Args:
        peak: fraction of the training, behind the warm-up, after which the learning rate is greatest.
        start: part of the learning rate at first.
        end: part of it that is left at the end.
    """

    peak: float = 0.3
    start: float = 0.04
    end: float = 0.0

    def _curve(self, progress: float, epoch: float) -> float:
        if progress < self.peak:
            return self.start + (1 - self.start) * progress / self.peak
        return 1 + (self.end - 1) * (progress - self.peak) / max(1 - self.peak, 1e-9)
