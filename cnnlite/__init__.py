"""cnnlite: train convolutional neural networks written in plain NumPy, from YAML configs."""

import os

__version__ = "0.1.0"

# cnnlite runs its own threads over blocks of samples (engine.py); a BLAS that also spreads each small matrix
# product over threads would fight with them. The libraries read these variables when NumPy loads them.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_variable] = "1"
