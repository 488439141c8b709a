"""cnnlite: train convolutional neural networks written in plain NumPy, from YAML configs."""

import os
from typing import TYPE_CHECKING

__all__ = ["__version__", "load", "train"]
__version__ = "0.1.0"

# cnnlite runs its own threads over blocks of samples (engine.py); a BLAS that also spreads each small matrix
# product over threads would fight with them. The libraries read these variables when NumPy loads them.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_variable] = "1"

if TYPE_CHECKING:
    from cnnlite.api import load, train
else:

    def __getattr__(name: str) -> object:
        """Import `load` and `train`, and NumPy with them, when they are first asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module("cnnlite.api"), name)
