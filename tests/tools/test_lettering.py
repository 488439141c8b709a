import numpy as np

from cnnlite.tools.lettering import HEIGHT, WIDTH, caption
from cnnlite.utils.types import Array

DRAWN = """\
..............................
.#...#..###........##..#......
.#...#.#...#.......##..#......
.#...#.....#.####.....#.......
.#####...##..#...#...#........
.#...#...#...#...#..#.........
.#...#.......#...#.#..##..##..
.#...#...#...#...#.#..##..##..
..............................
"""


def written(picture: Array) -> str:
    return "\n".join("".join(".#"[int(not pixel)] for pixel in row) for row in picture[..., 0].tolist()) + "\n"


def test_letters_look_like_letters() -> None:
    picture = caption("H?n%.", 5 * WIDTH)
    assert picture.shape == (HEIGHT, 5 * WIDTH, 3)
    assert written(picture) == DRAWN
    assert set(np.unique(picture)) == {0, 255}


def test_every_letter_is_another_one() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 %.,-_()/'&+:?[]{}=*#!"
    assert len({caption(letter, WIDTH).tobytes() for letter in letters}) == len(letters)


def test_what_does_not_fit_ends_in_dots_accents_are_left_out_and_what_is_unknown_is_a_question_mark() -> None:
    np.testing.assert_array_equal(caption("automobile", 8 * WIDTH + 3), caption("automo..", 8 * WIDTH + 3))
    np.testing.assert_array_equal(caption("automobile", 10 * WIDTH)[:, -WIDTH:], caption("e", WIDTH))
    np.testing.assert_array_equal(caption("K\xe4fer \u732b", 60), caption("Kafer ?", 60))
    assert caption("cat", 5).shape == (HEIGHT, 5, 3)
    assert (caption("", 40) == 255).all()
