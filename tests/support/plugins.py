"""Plugins for tests: those that the pages show, and others with one thing about them."""

import sys

from cnnlite.config import plugins
from cnnlite.utils.registry import Registry
from tests.support.pages import blocks
from tests.support.small_runs import TINY

LAYER = """\
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.utils.types import Array, Shape


@layers.register("doubled")
class Doubled(Layer):
    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.factor = factor

    def forward(self, x: Array, context: Context) -> Array:
        return x * self.factor

    def backward(self, dy: Array) -> Array | None:
        return dy * self.factor
"""
CONFIG = TINY.replace("  - relu\n", "  - doubled\n  - relu\n")
"""The small config with that layer, and without the plugin that has it."""
WITH_PLUGIN = f"plugins: [doubled.py]\n{CONFIG}"
MARKING = f"from pathlib import Path\nPath('marker').write_text('it was run')\n{LAYER}"
"""A plugin that leaves a file behind when it is run."""


def forget_plugins() -> None:
    """Make this process as if it had never run a plugin."""
    for plugin in plugins._loaded.values():
        Registry.forget(plugin.classes)
        del sys.modules[plugin.module]
    plugins._loaded.clear()


def shown() -> dict[str, str]:
    """The files that docs/plugins.md speaks of, by name, as the pages have them."""
    named = {
        "channel_scale.py": ("docs/python.md", "class ChannelScale"),
        "random_invert.py": ("docs/augmentation.md", "class RandomInvert"),
        "stripes.py": ("CONTRIBUTING.md", "class Stripes"),
        "squared_hinge.py": ("docs/plugins.md", "class SquaredHinge"),
    }
    found = {}
    for name, (page, mark) in named.items():
        (found[name],) = (block for block in blocks(page, "python") if mark in block)
    return found
