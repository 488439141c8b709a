"""Patterns of names find what Python's find, in a time that no pattern can stretch."""

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite.utils.patterns import NamePattern

NAMES = [
    *("0.weight", "0.bias", "3.body.0.weight", "12.branches.1.beta", "25.weight", "3.shortcut.0.weight"),
    *("head_1.bias", "aab", "a b", "Ä.x"),
]
DEEP = ["0.body." * 60 + f"{number}.weight" for number in range(100)]
"""Names as long as configs can make them."""
MANY = [f"{number}.{name}" for number in range(5000) for name in ("gamma", "beta")]

ATOMS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "weight",
            "bias",
            r"\.",
            ".",
            r"\d",
            r"\D",
            r"\w",
            r"\W",
            r"\s",
            "[0-9]",
            "[^a]",
            r"[^\d.]",
            "[a-mx]",
        ),
        *(
            "^",
            "$",
            r"\b",
            r"\B",
            r"\A",
            r"\Z",
            "(?=b)",
            "(?!b)",
            "(?<=a)",
            r"(?<!\.)",
            "(?=.*a)",
            "(?!.*bias)",
            "(?:)",
        ),
    ]
)
REPETITIONS = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "*?", "+?", "??"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("({}){}".format, inner, REPETITIONS)
        | st.lists(inner, min_size=2, max_size=3).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda ways: f"(?:{'|'.join(ways)})")
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(PATTERNS)
def test_patterns_find_what_those_of_python_find(pattern: str) -> None:
    assert NamePattern(pattern).among(NAMES) == [bool(re.search(pattern, name)) for name in NAMES]


@pytest.mark.parametrize(
    "pattern",
    [
        *("bias$", r"^0\.bias$", ".", "weight|gamma", r".*\.weight", r"^(\d+\.)+(body|shortcut)\.\d+\.weight$", "[wb]"),
        *(r"^(?!.*bias)", r"(?<!0)\.bias", r"^(?P<layer>\d+)\.", "", "(?#of all).", "[[a]"),
    ],
)
@pytest.mark.filterwarnings("ignore:Possible nested set")
def test_usual_patterns_find_what_those_of_python_find(pattern: str) -> None:
    assert NamePattern(pattern).among(NAMES) == [bool(re.search(pattern, name)) for name in NAMES]


ENDLESS = [
    ".?" * 60 + "Z",
    ".*" * 90 + "Z",
    "(.|.)" * 39 + "Z",
    "(.|..)*" * 25 + "Z",
    "(.+)+Z",
    "((((.*?.)*.)*.)*.)*Z",
    "(((.?){9}){9}){9}Z",
    "(.{1,1000}){1,1000}Z",
    ".{0,4000000000}Z",
    "(.{2}){3000000000}",
    "(?=(?=(?=(?=.*)*)*.*)*)" * 6 + "Z",
    r"(\w+\.?)*Z",
    "(" * 60 + "." + ")*" * 60 + "Z",
    "(?:(?=0)|.)*" * 16,
    "(((((.|(?=b)){9}.){9}(?=.)){9}.){9}){9}Z",
]


@pytest.mark.parametrize("names", [NAMES, DEEP, MANY], ids=["few", "deep", "many"])
@pytest.mark.parametrize("pattern", ENDLESS, ids=lambda pattern: pattern[:20])
def test_no_pattern_takes_long_whatever_the_names(pattern: str, names: list[str]) -> None:
    began = time.process_time()
    with contextlib.suppress(ValueError):  # where it has too many repetitions
        found = NamePattern(pattern).among(names)
        assert not pattern.endswith("Z") or not any(found)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", r"missing \)"),
        ("*", "nothing to repeat"),
        ("a" * 201, "more than 200 characters"),
        ("a{99999999999}", "too large"),
        (r"(a)\1", "groupref is not known here"),
        (r"(?P<a>a)(?P=a)", "groupref is not known here"),
        (r"(a)?(?(1)b|c)", "groupref exists is not known here"),
        ("(?i)bias", "flags"),
        ("(?i:bias)", "subpattern is not known here"),
        ("(?>a)", "atomic group is not known here"),
        ("a*+", "possessive repeat is not known here"),
    ],
)
def test_what_is_no_pattern_or_not_known_here_is_refused_before_it_is_used(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        NamePattern(pattern)
    assert "is not a regular expression that can be used" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_without_names_nothing_is_found() -> None:
    assert NamePattern("a").among([]) == []
    assert NamePattern(".").among(["", "a", ""]) == [False, True, False]
