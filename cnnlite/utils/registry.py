"""Registries: the names that a config may use, and the classes they stand for."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from cnnlite.utils.suggest import did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])
Entry: TypeAlias = tuple[str, str]
"""Kind and name of a registered class."""


class Registry(Generic[T]):
    """Maps config names to subclasses of one base class.

    The constructor's parameters of a registered class are its options in a config; their annotations are the types that
    the config is checked against.
    """

    by_base: ClassVar[dict[type, "Registry[Any]"]] = {}
    """Registry for an annotation: base class -> registry."""

    def __init__(self, kind: str, base: type[T]):
        self.kind = kind
        self.base = base
        self._classes: dict[str, type[Any]] = {}
        Registry.by_base[base] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that makes the class available in configs as ``name``."""

        def add(cls: C) -> C:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")
            if self.base not in cls.__mro__:
                raise TypeError(f"{self.kind} {name!r} must be a {self.base.__name__}")
            self._classes[name] = cls
            return cls

        return add

    def __getitem__(self, name: str) -> type[T]:
        """Return the class called ``name``; ValueError with a suggestion if there is none."""
        try:
            return self._classes[name]
        except KeyError:
            hint = did_you_mean(name, self._classes) or f"; known: {', '.join(self)}"
            raise ValueError(f"unknown {self.kind} {name!r}{hint}") from None

    def name_of(self, cls: type) -> str:
        """Name of a class in configs, or of its nearest registered base; its own name if there is none."""
        names = {known: name for name, known in self._classes.items()}
        return next((names[known] for known in cls.__mro__ if known in names), cls.__name__)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    @classmethod
    def registered(cls) -> dict[Entry, type[Any]]:
        """Return the classes in all registries, each by its kind and name, such as ``("layer", "conv2d")``."""
        return {
            (registry.kind, name): known
            for registry in cls.by_base.values()
            for name, known in registry._classes.items()
        }

    @classmethod
    def forget(cls, entries: Collection[Entry]) -> None:
        """Take the classes with these kinds and names out of their registries."""
        for registry in cls.by_base.values():
            own = registry._classes.items()
            registry._classes = {name: known for name, known in own if (registry.kind, name) not in entries}

    @classmethod
    @contextlib.contextmanager
    def unless_failing(cls) -> Iterator[None]:
        """Keep what is registered inside the block, but after an error have the registries as they were before."""
        before = {registry: dict(registry._classes) for registry in cls.by_base.values()}
        try:
            yield
        except BaseException:
            for registry, classes in before.items():
                registry._classes = classes
            raise
