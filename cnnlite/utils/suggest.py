"""Suggestions: the word that a mistyped one may have meant.

Keys of configs are compared in `config.construct`, names of layers and the like in `utils.registry`.
"""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType


def did_you_mean(word: str, known: Iterable[str], in_full: Mapping[str, str] = MappingProxyType({})) -> str:
    """Suggest the nearest known word: ``"; did you mean 'x'?"``, or an empty string.

    ``in_full`` maps a known word to what to type for it.
    """
    names = list(known)
    nearest = difflib.get_close_matches(word, names, n=1) or difflib.get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {in_full.get(nearest[0], nearest[0])!r}?" if nearest else ""
