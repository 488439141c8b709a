"""The configs that come with cnnlite."""

from pathlib import Path


def bundled_folder() -> Path:
    """Find the configs that come with cnnlite: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def bundled_configs() -> list[str]:
    """List the file names of the configs that come with cnnlite."""
    return sorted(path.name for path in bundled_folder().glob("*.yaml"))


def bundled_names() -> list[str]:
    """List the names of the configs that come with cnnlite, as commands take them."""
    return [name.removesuffix(".yaml") for name in bundled_configs()]


def bundled_config(name: str) -> Path | None:
    """Find a config that comes with cnnlite, by its name with or without ``.yaml``; None if there is none."""
    stem = name.removesuffix(".yaml")
    return bundled_folder() / f"{stem}.yaml" if stem in bundled_names() else None


def networks_folder() -> Path:
    """Find the trained networks that come with cnnlite: inside the installed package, or at the top of a checkout."""
    return bundled_folder().parent / "networks"


def bundled_network(name: str) -> Path | None:
    """Find a trained network that comes with cnnlite, by the name of its config; None if there is none."""
    path = networks_folder() / f"{name}.npz"
    return path if path in networks_folder().glob("*.npz") else None
