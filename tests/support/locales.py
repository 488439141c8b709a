"""Processes in other locales than that of the tests, whatever the folder of the tests is called."""

import os
import sys
import sysconfig
from pathlib import Path

PYTHON = [sys.executable, "-S", "-W", "error"]
"""Without .pth files: one has the folder of an editable installation, and Python < 3.13 must be able to decode that."""
_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")


def with_locale(**variables: str) -> dict[str, str]:
    """The environment for `PYTHON`, with the locale that ``variables`` say."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), sysconfig.get_path("purelib")])
    others = {name: value for name, value in os.environ.items() if name not in _LOCALE}
    return {**others, "PYTHONPATH": path, **variables}
