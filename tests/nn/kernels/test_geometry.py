import pytest

from cnnlite.nn.kernels.geometry import MOST, Windows, pair
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.pooling import AvgPool2d, MaxPool2d


def test_a_pair_is_one_number_twice_or_two() -> None:
    assert pair(3, "stride") == (3, 3)
    assert pair((2, MOST), "stride") == (2, MOST)


@pytest.mark.parametrize("number", [MOST + 1, 2**62])
def test_numbers_that_no_image_has_are_refused_at_once(number: int) -> None:
    with pytest.raises(ValueError, match=f"stride must be at most 4,096, not {number}"):
        Conv2d(4, 3, stride=number)
    for one in (number, 2), (2, number):
        with pytest.raises(ValueError, match="stride must be at most"):
            pair(one, "stride")
    with pytest.raises(ValueError, match="kernel_size must be at most"):
        Conv2d(4, number)
    with pytest.raises(ValueError, match="padding must be at most"):
        Conv2d(4, 3, padding=number)
    with pytest.raises(ValueError, match="stride must be at most"):
        MaxPool2d(2, stride=number)
    with pytest.raises(ValueError, match="kernel_size must be at most"):
        AvgPool2d(number)


def test_same_puts_what_is_odd_of_its_padding_at_the_end() -> None:
    windows = Windows.fit((6, 7, 1), (2, 4), (1, 2), "same", exact=False)
    assert (windows.top_left, windows.bottom_right, windows.out) == ((0, 1), (1, 2), (6, 4))
