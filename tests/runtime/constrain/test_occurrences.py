"""Matches in a growing text, against ``re.search`` on every beginning of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.occurrences import LOOK_BACK, OccurrenceSearch, Pattern
from tests.support.constrain_naive import CHARACTERS, naive_regexes


def naive(sources: list[str], text: str) -> tuple[int, int, str] | None:
    """The first beginning of the text in which something matches; of several matches the one that begins first."""
    for end in range(1, len(text) + 1):
        found = [(m.start(), end, s) for s in sources if (m := re.search(s, text[:end]))]
        if found:
            return min(found, key=lambda each: each[0])
    return None


def search(sources: list[str], text: str, cuts: int) -> tuple[int, int, str] | None:
    """Piece by piece; what has been let go must not be part of a later match."""
    one, settled = OccurrenceSearch([Pattern(source) for source in sources]), 0
    for at in range(0, len(text), cuts):
        found = one.push(text[at : at + cuts])
        if found is not None:
            assert found.start >= settled
            return found
        settled = at + len(text[at : at + cuts]) - one.held
    return None


texts = st.text(CHARACTERS, max_size=20)


@given(st.lists(naive_regexes(negated=True), min_size=1, max_size=2), texts, st.integers(1, 4))
def test_random_regexes(regexes: list[object], text: str, cuts: int) -> None:
    sources = [regex.source for regex in regexes if not re.search(regex.source, "")]  # type: ignore[attr-defined]
    assert search(sources, text, cuts) == naive(sources, text)


@pytest.mark.parametrize(
    "source",
    ["^a", "a$", r"\d{2}", "(?i)AB", "a(?=b)", "a(?!b).", "(a|ab)1", "[^a]b", r"(?s)a.b", "한+", "a*?b"],
)
@given(texts, st.integers(1, 3))
def test_python_syntax(source: str, text: str, cuts: int) -> None:
    assert search([source], text, cuts) == naive([source], text)


@pytest.mark.parametrize("source", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(a*)*b", "(.*a){12}b", "(x?){30}x{30}"])
def test_what_backtracking_would_not_survive(source: str) -> None:
    text = "a" * 3000
    one = OccurrenceSearch([Pattern(source)])
    assert one.push(text) is None and one.held <= LOOK_BACK


@pytest.mark.parametrize(
    "source, message",
    [
        ("a*", "matches the empty string"),
        ("(", "position 0"),
        (r"(a)\1", "back-references"),
        (r"\ba", "word boundary"),
    ],
)
def test_refused(source: str, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        Pattern(source)


def test_a_match_longer_than_the_look_back_is_not_found() -> None:
    one = OccurrenceSearch([Pattern("<.*>")])
    assert one.push("<" + "a" * LOOK_BACK + ">") is None
    assert one.push("<b>") == (LOOK_BACK + 2, LOOK_BACK + 5, "<.*>")
