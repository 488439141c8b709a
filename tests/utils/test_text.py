import pytest

from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.text import duration, seconds_of, size_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (45.2, "45 s"), (60, "1 min 0 s"), (320, "5 min 20 s"), (7500, "2 h 5 min")],
)
def test_times_are_told_in_units_that_fit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("1h30m", 5400), ("2m 5s", 125), ("1h1m1s", 3661)]
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (44_695_848, "44.7 MB")])
def test_sizes_have_a_unit_that_fits(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("word", "hint"),
    [("kernal_size", "; did you mean 'kernel_size'?"), ("Stride", "; did you mean 'stride'?"), ("xyz", "")],
)
def test_suggestions_are_near_or_not_made(word: str, hint: str) -> None:
    assert did_you_mean(word, ["kernel_size", "stride", "padding"]) == hint


def test_what_is_suggested_can_be_written_in_full() -> None:
    assert did_you_mean("smal", {"small": 1}, {"small": "runs/small"}) == "; did you mean 'runs/small'?"
