"""Captions of pictures, in a font of five by seven pixels."""

import unicodedata

import numpy as np

from cnnlite.utils.types import Array

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%.,-_()/'&+:?[]{}=*#!"
_GLYPHS = """
3a31fc631 7a31f463e 3a308422e 7a318c63e 7e10f421f 7e10f4210 3a30bc62e 4631fc631 38842108e 1c4210a4c 4654c5251
42108421f 4775ac631 4739ace71 3a318c62e 7a31f4210 3a318d64d 7a31f5251 3e107043e 7c8421084 46318c62e 46318a944
4631ad771 462a22a31 462a21084 7c222221f 000e0be2f 421e8c63e 000f8420f 042f8c62f 000e8fe0e 191e42108 000f8bc2e
421e8c631 100c2108e 080610a4c 4212a6292 30842108e 001aad6b5 001e8c631 000e8c62e 001e8fa10 000f8bc21 0016c4210
000f8383e 211e42106 00118c62f 00118c544 0011ad6aa 001151151 00118bc2e 001f1111f 3a33ae62e 11842108e 3a213221f
3a213062e 08ca97c42 7e1e0862e 1910f462e 7c2221108 3a317462e 3a317844c 672222273 00000018c 000003088 0000f8000
00000001f 088842082 208210888 042222210 108000000 32544564d 0084f9080 018c03180 3a2131004 39084210e 38421084e
088441082 208411088 001f07c00 009575480 295f57d4a 108421004
"""
"""Pixels of each letter, row by row from the upper left, as the bits of a number in base 16."""
HEIGHT, WIDTH = 9, 6
"""Pixels of a letter with the space around it."""


def _drawn() -> dict[str, Array]:
    rows = [[int(bit) for bit in f"{int(glyph, 16):035b}"] for glyph in _GLYPHS.split()]
    return {
        letter: np.pad(np.array(bits, bool).reshape(7, 5), ((1, 1), (1, 0)))
        for letter, bits in zip(_LETTERS, rows, strict=True)
    }


_FONT = {" ": np.zeros((HEIGHT, WIDTH), bool), **_drawn()}


def caption(text: str, width: int) -> Array:
    """Write a line in black on white, uint8 ``(HEIGHT, width, 3)``; what does not fit ends in two dots.

    An accent is left out; a letter that the font does not have is a question mark.
    """
    text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    most = width // WIDTH
    shown = text if len(text) <= most else text[: max(0, most - 2)] + ".."
    line = np.zeros((HEIGHT, width), bool)
    for index, letter in enumerate(shown[:most]):
        line[:, index * WIDTH : (index + 1) * WIDTH] = _FONT.get(letter, _FONT["?"])
    return np.repeat(np.where(line, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
