"""Classes with all kinds of options, registered for a test, and ways to build them from YAML."""

from abc import ABC
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from cnnlite.config.construct import construct
from cnnlite.config.problem_list import Problems
from cnnlite.config.yaml_reader import read_yaml
from cnnlite.errors import ConfigError, OptionError, Problem
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array


class Shade(ABC):  # noqa: B024 - a base to register by
    """Stands for Loss, Optimizer and their like."""

    path = ""


def even(number: int) -> None:
    """A check of its own."""
    if number % 2:
        raise ValueError(f"{number!r} is not even")


class Plain(Shade):
    pass


class Matte(Shade):
    def __init__(self, depth: float, *, label: str = "m", even: Annotated[int, even] = 4, inner: Shade | None = None):
        if not 0 <= depth < 1:
            raise OptionError(f"depth {depth} is not in [0, 1)", "depth")
        if label == "bad":
            raise ValueError("the label is bad")
        self.depth, self.label, self.even, self.inner = depth, label, even, inner


@dataclass(frozen=True)
class Tone:
    """Options of an option."""

    hue: int = 1
    parts: tuple[float, ...] = (1, 2)


class Toned(Shade):
    def __init__(self, tone: Tone = Tone(), inner: Shade = Matte(0.25)):  # noqa: B008
        self.tone, self.inner = tone, inner


class Picky(Shade):
    def __init__(self, groups: list[dict[str, Any]] | None = None):
        if groups:
            raise OptionError("no such thing", "groups", 1)


@dataclass
class Room:
    shade: Shade
    size: tuple[int, int] = (3, 4)
    height: float = 2
    door: bool = True
    name: str = "hall"
    side: Literal["left", "right"] = "left"
    padding: int | tuple[int, int] | Literal["same", "valid"] = 0
    walls: list[float] = field(default_factory=lambda: [1.0])
    notes: dict[str, Any] = field(default_factory=dict)
    other: Shade = field(default_factory=Plain)
    weight: Annotated[float, lambda x: None] | None = None
    made_by: str = field(default="us", metadata={"option": False})

    def __post_init__(self) -> None:
        if self.name == "cellar":
            raise ConfigError([Problem("", "no light here")])


class Dense(Layer):
    def __init__(self, units: int):
        super().__init__()
        if units < 1:
            raise ValueError(f"units must be at least 1, not {units}")
        self.units = units

    def forward(self, x: Array, context: Context) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array | None:
        raise NotImplementedError


class Chain(Dense):
    def __init__(self, layers: list[Layer]):
        super().__init__(1)
        self.layers = layers


class Fork(Dense):
    def __init__(self, branches: list[Layer], tail: Layer | None = None):
        super().__init__(1)
        self.branches, self.tail = branches, tail


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries of this test alone: shades, and toy layers in the place of the real ones."""
    monkeypatch.setattr(Registry, "by_base", dict(Registry.by_base))
    shades: Registry[Shade] = Registry("shade", Shade)
    shades.register("plain")(Plain)
    shades.register("matte")(Matte)
    shades.register("picky")(Picky)
    shades.register("toned")(Toned)
    monkeypatch.setattr(layers, "_classes", {"dense": Dense, "sequential": Chain, "fork": Fork})


def build(annotation: Any, text: str) -> tuple[Any, Any]:
    """Object and resolved data; and proof that the resolved data gives the same resolved data again."""
    document = read_yaml(text, "f.yaml")
    problems = Problems({steps: ("f.yaml", line) for steps, line in document.lines.items()}, document.problems)
    made, resolved = construct(annotation, document.data, (), problems)
    problems.raise_any()
    again, resolved_again = construct(annotation, resolved, (), problems)
    problems.raise_any()
    assert type(again) is type(made)
    assert resolved_again == resolved
    return made, resolved


def faults(annotation: Any, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(annotation, text)
    return str(caught.value).splitlines()
