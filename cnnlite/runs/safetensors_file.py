"""Files of safetensors, which hold named arrays and nothing that could run. The only module that imports safetensors.

The format is a header in JSON, which lists arrays with their places, and their bytes
(https://huggingface.co/docs/safetensors). The format's own library checks that all is within the file.
"""

import json
from collections.abc import Mapping

import numpy as np

from cnnlite.errors import DamagedError, require
from cnnlite.utils.printable import has_codes, is_text, one_line
from cnnlite.utils.types import Array

SUFFIX = ".safetensors"
EXTRA = "safetensors"
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_METADATA = "__metadata__"


def read_arrays(content: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """Read the arrays of real numbers in a file's content, as float32, and its metadata. Others are left out.

    Raises:
        DamagedError: If the content is not of the format, or holds a number that is not finite, or has no place in
            float32.
        ConfigError: If the library is not installed.
    """
    require(f"reading {SUFFIX} files", "safetensors", EXTRA)
    import safetensors

    try:
        found = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise DamagedError(f"is damaged, cut short, or no file of safetensors ({one_line(str(error), 200)})") from None
    arrays = {}
    for name, view in sorted(found, key=lambda entry: entry[0]):
        if has_codes(name) or not is_text(name):
            raise DamagedError(f"holds an array with control characters in its name ({one_line(name, 80)})")
        if (array := _floats(view["dtype"], view["data"])) is not None:
            arrays[name] = array.reshape(view["shape"])
            if not np.isfinite(array).all():
                raise DamagedError(f"{one_line(name, 80)} holds NaN, infinity, or numbers beyond float32")
    return arrays, header.get(_METADATA) or {}


def _floats(dtype: str, data: bytes) -> Array | None:
    """Convert the bytes of an array to float32; None if they are not of real numbers."""
    if dtype == "BF16":  # the upper half of a float32
        halves = np.frombuffer(data, "<u2").astype(np.uint32)
        return (halves << 16).view(np.float32)
    if dtype not in _FLOATS:
        return None
    with np.errstate(over="ignore"):  # infinite then, and found
        return np.frombuffer(data, _FLOATS[dtype]).astype(np.float32)


def file_of(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file that holds float32 ``arrays``; ConfigError if the library is not installed."""
    require(f"writing {SUFFIX} files", "safetensors", EXTRA)
    from safetensors.numpy import save

    plain = {name: np.asarray(array, np.float32, order="C") for name, array in arrays.items()}
    return save(plain, dict(metadata))
