"""What tests hand to spawned workers: functions with what they close over, and constants that a test has changed."""

import importlib
import marshal
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType, ModuleType
from typing import Any


class Portable:
    """A function that can be handed over though it was made inside of another one."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __reduce__(self) -> Any:
        function = self.function
        if not isinstance(function, FunctionType) or "<" not in function.__qualname__:
            return Portable, (function,)
        cells = [portable(cell.cell_contents) for cell in function.__closure__ or ()]
        return _made, (marshal.dumps(function.__code__), function.__module__, cells, function.__defaults__)


def portable(value: Any) -> Any:
    """The value, which can be handed over if it is a function."""
    return Portable(value) if isinstance(value, FunctionType) else value


def _made(code: bytes, module: str, cells: Sequence[Any], defaults: tuple[Any, ...] | None) -> Portable:
    names = vars(importlib.import_module(module))
    closure = tuple(CellType(cell) for cell in cells)
    return Portable(FunctionType(marshal.loads(code), names, "made", defaults, closure))


class Constants:
    """Constants of modules, which are also set in a process that this is handed over to."""

    def __init__(self, values: Mapping[tuple[str, str], Any]):
        self.values = dict(values)

    @classmethod
    def of(cls, *places: tuple[ModuleType, str]) -> "Constants":
        """What the constants are now."""
        return cls({(module.__name__, name): getattr(module, name) for module, name in places})

    def __call__(self, argument: int) -> None:
        """Nothing; so that it can be one of the functions that workers call."""

    def __reduce__(self) -> Any:
        return _set, (self.values,)


def _set(values: Mapping[tuple[str, str], Any]) -> Constants:
    for (module, name), value in values.items():
        setattr(importlib.import_module(module), name, value)
    return Constants(values)
