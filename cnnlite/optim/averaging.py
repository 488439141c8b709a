"""Averages of the weights over the training, which validate and test better than the last weights."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.runtime import engine
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array


class Averaging(ABC):
    """Keeps averages of arrays of a network, by the names that `Network.state` gives them."""

    prefix = ""
    """Prefix of the names of averaged arrays."""

    def bind(self, arrays: Mapping[str, Array]) -> None:
        """Take charge of the live ``arrays`` of a network, with averages that begin as what they are now."""
        self._live = {name: array for name, array in arrays.items() if name.startswith(self.prefix)}
        self._averages = {name: engine.shared(array.shape, array.dtype) for name, array in self._live.items()}
        _copy(self._live, self._averages)

    @abstractmethod
    def update(self, step: int) -> None:
        """Take in the arrays as update ``step``, counted from 0, has left them."""

    def state(self) -> dict[str, Array]:
        """The live averages; between steps, what is to be validated and tested with."""
        return self._averages

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the averages inside the block, and its own arrays back after it."""
        own = {name: array.copy() for name, array in self._live.items()}
        try:
            _copy(self._averages, self._live)
            yield
        finally:
            _copy(own, self._live)

    def _approach(self, rate: float) -> None:
        """``average += rate * (array - average)``; an array that does not change is its own average, to the bit."""

        def block(average: Array, array: Array) -> None:
            part = engine.scratch("averaging.part", array.shape, array.dtype)
            np.subtract(array, average, out=part)
            part *= rate
            average += part

        self._for_pieces(block)

    def _for_pieces(self, task: Callable[[Array, Array], object]) -> None:
        """Call ``task`` with pieces of the averages and of the live arrays, on all workers together."""
        pieces = []
        for name, average in self._averages.items():
            flat, live = average.reshape(-1), self._live[name].reshape(-1)
            pieces += [(flat[i:j], live[i:j]) for i, j in engine.blocks(flat.size, 3 * flat.itemsize)]

        def piece(index: int) -> None:
            task(*pieces[index])

        engine.run(piece, len(pieces))


class NoAveraging(Averaging):
    """Keeps nothing: the network's own arrays are validated and tested with."""

    def bind(self, arrays: Mapping[str, Array]) -> None:
        """Take charge of nothing."""
        super().bind({})

    def update(self, step: int) -> None:
        """Do nothing."""


averagings: Registry[Averaging] = Registry("averaging", Averaging)  # type: ignore[type-abstract]


@averagings.register("ema")
class EMA(Averaging):
    """Exponential moving average of parameters and buffers: ``average += r * (w - average)``.

    ``r = (1 - d) / (1 - d^t)``, where ``d`` is ``decay`` and ``t`` counts the updates from 1, so that the weights of
    the sum add up to 1 and the network's beginning has none, as in Adam's means (Kingma & Ba 2015). Source: Polyak &
    Juditsky 1992; Tarvainen & Valpola 2017, arXiv:1703.01780.

    Args:
        decay: in [0, 1); the average looks back over about ``1 / (1 - decay)`` updates.
        every: steps of the training between two updates of the average.
    """

    def __init__(self, decay: float, every: int = 1):
        if not 0 <= decay < 1:
            raise OptionError(f"decay {decay} is not in [0, 1)", "decay")
        if every < 1:
            raise OptionError(f"every must be at least 1, not {every}", "every")
        self.decay = decay
        self.every = every

    def update(self, step: int) -> None:
        """One update of the formula above, where ``every`` says so."""
        count, rest = divmod(step + 1, self.every)
        if rest == 0:
            self._approach((1 - self.decay) / (1 - self.decay**count))


@averagings.register("lookahead")
class Lookahead(Averaging):
    """Slow weights that follow those of the optimizer, which then goes on from the slow ones.

    Every ``steps`` steps, ``slow += alpha * (w - slow)``, then ``w = slow``. The optimizer's state stays; validation
    and test use slow weights. Source: Zhang et al. 2019, arXiv:1907.08610.

    Args:
        steps: how many steps the optimizer makes on its own.
        alpha: how far the slow weights follow, in (0, 1].
    """

    prefix = "param/"

    def __init__(self, steps: int = 5, alpha: float = 0.5):
        if steps < 1:
            raise OptionError(f"steps must be at least 1, not {steps}", "steps")
        if not 0 < alpha <= 1:
            raise OptionError(f"alpha {alpha} is not in (0, 1]", "alpha")
        self.steps = steps
        self.alpha = alpha

    def update(self, step: int) -> None:
        """Follow, and take the network back, where ``steps`` says so."""
        if (step + 1) % self.steps == 0:
            self._approach(self.alpha)
            self._for_pieces(lambda average, array: np.copyto(array, average))


def _copy(source: Mapping[str, Array], target: Mapping[str, Array]) -> None:
    for name, array in target.items():
        np.copyto(array, source[name])
