"""Problems of a config, collected so that one reading finds all of them.

They are found, and mistyped words answered, in `construct` (options), `kinds` (values) and `utils.registry` (names).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cnnlite.config.yaml_reader import BROKEN, Steps, dotted
from cnnlite.errors import ConfigError, Problem

MAX_PROBLEMS = 100
FAILED = (BROKEN, BROKEN)
"""Stands for an object and its data where there is a problem."""


class Problems:
    """List of all that is wrong with a config, each with the place where it stands."""

    def __init__(self, places: Mapping[Steps, tuple[str, int]] | None = None, found: Sequence[Problem] = ()):
        self.places = places or {}
        """File and line of values; the place of a value not listed is that of the nearest one around it."""
        self.found = list(found)

    def add(self, steps: Steps, message: str, at: Steps | None = None) -> tuple[Any, Any]:
        """Note that the value at ``steps`` is wrong; ``at`` is where to look if that is elsewhere."""
        at = steps if at is None else at
        file, line = next((self.places[at[:n]] for n in range(len(at), -1, -1) if at[:n] in self.places), ("", 0))
        self.found.append(Problem(dotted(steps), message, file, line))
        return FAILED

    def misplaced(self, steps: Steps, key: str) -> str:
        """Where the unknown option ``key`` of the object at ``steps`` would be right; empty if nobody knows."""
        return ""

    def raise_any(self) -> None:
        """ConfigError with all problems, in the order of the file, if there are any."""
        if self.found:
            shown = sorted(self.found, key=lambda problem: (problem.file, problem.line))[:MAX_PROBLEMS]
            more = [Problem("", "there may be more problems; mend these first")] if self.full else []
            raise ConfigError(shown + more)

    @property
    def full(self) -> bool:
        """True if there are so many that looking for more helps nobody."""
        return len(self.found) >= MAX_PROBLEMS
