"""Scalars of YAML: unquoted words and figures, and their values.

Scalars follow the YAML 1.2 core schema: ``1e-3`` is a number, ``on``, ``no`` and dates are text.
"""

import re
from typing import Any

from cnnlite.utils.text import clip

MAX_INT = 2**63 - 1

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_BASED_INT = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def resolve(text: str) -> Any:
    """Find the value of an unquoted scalar; ValueError for a number that cannot be represented."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(f"{clip(text, 30)} starts with 0; leave the zero out, or quote it if it is text")
    if _INT.fullmatch(text) or _BASED_INT.fullmatch(text):
        # int() is quadratic in the digits, so the length is looked at first.
        value = int(text, 0) if len(text) <= 100 else MAX_INT + 1
        if abs(value) > MAX_INT:
            raise ValueError(f"{clip(text, 30)} does not fit in 64 bits ({len(text)} characters)")
        return value
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if _FLOAT.fullmatch(text):
        number = float(text)
        if abs(number) == float("inf"):
            raise ValueError(f"{clip(text, 30)} is too large for a floating-point number")
        if number == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
            raise ValueError(f"{clip(text, 30)} is too small for a floating-point number")
        return number
    return text
