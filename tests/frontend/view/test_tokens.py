"""Characters of tokens, compared with what joins back to the text, for any way to cut bytes into tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.frontend.view.tokens import Slice, spread_given, spread_output

TEXTS = st.text(st.sampled_from("ab é🎉\n"), max_size=12)


@st.composite
def cut_bytes(draw: Any, text: str) -> list[bytes]:
    data = text.encode()
    places = sorted(draw(st.sets(st.integers(1, max(len(data) - 1, 1)))) | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places) if data[a:b]]


def kept(slices: list[Slice]) -> str:
    return "".join(each.text[: len(each.text) - each.cut] for each in slices)


@given(st.data(), st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from(["", " ", "<s>"]))
def test_given_texts_are_the_joined_slices(data: Any, texts: list[str], first: str) -> None:
    pieces: list[bytes | str] = [*data.draw(cut_bytes("".join(texts)))]
    if first:
        pieces.insert(0, first if first == "<s>" else first.encode())
    spread = spread_given(pieces, texts)
    assert spread is not None and [kept(each) for each in spread] == texts
    begun = [each.token for slices in spread for each in slices if not each.joined]
    assert begun == list(range(len(pieces)))  # each token once, in order


@given(st.data(), TEXTS, TEXTS)
def test_an_output_ends_where_its_text_does(data: Any, text: str, stop: str) -> None:
    pieces: list[bytes | str] = [*data.draw(cut_bytes(text + stop)), "<|end|>"]
    slices = spread_output(pieces, text)
    assert slices is not None and kept(slices) == text
    assert [each.token for each in slices] == list(range(len(pieces)))
    assert slices[-1] == Slice(len(pieces) - 1, "<|end|>", 7)


def test_a_token_over_a_border_is_in_both_texts() -> None:
    spread = spread_given([b"is", b" yes"], ["is ", "yes"])
    assert spread == [[Slice(0, "is"), Slice(1, " ")], [Slice(1, "yes", joined=True)]]


def test_special_tokens_that_are_part_of_the_text() -> None:
    assert spread_output([b"a", "<x>", b"b"], "a<x>b") == [Slice(0, "a"), Slice(1, "<x>"), Slice(2, "b")]
    assert spread_output([b"a", "<x>", b"b"], "ab") == [Slice(0, "a"), Slice(1, "<x>", 3), Slice(2, "b")]


@pytest.mark.parametrize("text", ["other", "\ud800"])
def test_tokens_of_another_text(text: str) -> None:
    assert spread_given([b"a"], [text]) is None and spread_output([b"a"], text) is None


def test_bytes_that_are_no_character() -> None:
    assert spread_output([b"a\xf0", b"\x9f"], "a\ufffd") == [Slice(0, "a"), Slice(1, "\ufffd")]
