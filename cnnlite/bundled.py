"""The configs that come with cnnlite."""

from pathlib import Path


def bundled_folder() -> Path:
    """Find the configs that come with cnnlite: inside the installed package, or at the top of a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def bundled_configs() -> list[str]:
    """List the file names of the configs that come with cnnlite."""
    return sorted(path.name for path in bundled_folder().glob("*.yaml"))
