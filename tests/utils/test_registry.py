from abc import ABC

import pytest

from cnnlite.utils.registry import Registry


@pytest.fixture(autouse=True)
def of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that are made here are unknown to other tests."""
    monkeypatch.setattr(Registry, "by_base", dict(Registry.by_base))


class Animal(ABC):  # noqa: B024
    pass


def animals() -> Registry[Animal]:
    registry: Registry[Animal] = Registry("animal", Animal)

    @registry.register("zebra")
    class Zebra(Animal):
        pass

    @registry.register("ant_bear")
    class AntBear(Animal):
        pass

    return registry


def test_a_registered_class_is_found_by_its_name_and_stays_itself() -> None:
    registry = animals()

    class Fox(Animal):
        pass

    assert registry.register("fox")(Fox) is Fox
    assert registry["fox"] is Fox
    assert "fox" in registry
    assert "wolf" not in registry


def test_names_come_in_alphabetical_order() -> None:
    assert list(animals()) == ["ant_bear", "zebra"]


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"^unknown animal 'zebar'; did you mean 'zebra'\?$"):
        animals()["zebar"]


def test_a_name_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"^unknown animal 'whale'; known: ant_bear, zebra$"):
        animals()["whale"]


def test_a_name_cannot_be_taken_twice() -> None:
    registry = animals()
    with pytest.raises(ValueError, match="animal 'zebra' is registered already"):
        registry.register("zebra")(Animal)


def test_what_is_registered_is_forgotten_by_its_class_or_after_an_error() -> None:
    registry = animals()
    zebra = registry["zebra"]
    assert Registry.registered()["animal", "zebra"] is zebra

    class Fox(Animal):
        pass

    def change_and_fail() -> None:
        with Registry.unless_failing():
            registry.register("fox")(Fox)
            Registry.forget({("animal", "zebra")})
            assert list(registry) == ["ant_bear", "fox"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change_and_fail()
    assert list(registry) == ["ant_bear", "zebra"]
    with Registry.unless_failing():
        registry.register("fox")(Fox)
    assert "fox" in registry


def test_a_class_of_another_kind_is_refused() -> None:
    registry = animals()
    with pytest.raises(TypeError, match="animal 'number' must be a Animal"):
        registry.register("number")(int)
    assert "number" not in registry


def test_a_registry_is_found_by_the_base_class_of_its_kind() -> None:
    registry = animals()
    assert Registry.by_base[Animal] is registry
