"""Streams of tokens join to the right text whatever the borders, and stop strings never slip out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.tokenizer.detokenizer import Detokenizer

BYTES: list[bytes | None] = [*(bytes([b]) for b in range(256)), None]


def run(data: bytes, stop: tuple[str, ...] = (), keep: bool = False) -> tuple[Detokenizer, list[str]]:
    detokenizer = Detokenizer(BYTES, {256: "<|end|>"}, stop, keep)
    pieces = []
    for byte in data:
        ended = detokenizer.push(byte)
        pieces.append(detokenizer.release())
        if ended:
            break
    detokenizer.finish()
    pieces.append(detokenizer.release(final=True))
    return detokenizer, pieces


@given(st.text())
def test_any_text_byte_by_byte(text: str) -> None:
    detokenizer, pieces = run(text.encode())
    assert "".join(pieces) == detokenizer.text == text


@given(st.binary())
def test_invalid_bytes_become_replacement_characters(data: bytes) -> None:
    assert "".join(run(data)[1]) == data.decode(errors="replace")


def test_korean_and_emoji_are_never_cut() -> None:
    _, pieces = run("서울 👩‍👩‍👧 맑음".encode())
    assert "�" not in "".join(pieces) and next(p for p in pieces if p) == "서"


@given(
    st.text("ab\n한"),
    st.lists(st.text("ab\n한", min_size=1, max_size=4), min_size=1, max_size=3),
    st.booleans(),
)
def test_stop_strings(text: str, stops: list[str], keep: bool) -> None:
    detokenizer, pieces = run(text.encode(), tuple(stops), keep)
    assert "".join(pieces) == detokenizer.text
    ends = [text.find(s) + len(s) for s in stops if s in text]
    if not ends:
        assert detokenizer.matched is None and detokenizer.text == text
        return
    seen = text[: min(ends)]  # what had come when the first stop string was complete
    assert detokenizer.matched in stops and seen.endswith(detokenizer.matched)
    cut = seen.find(detokenizer.matched)
    assert detokenizer.text == (seen[: cut + len(detokenizer.matched)] if keep else seen[:cut])


def test_special_tokens_show_only_when_asked() -> None:
    hidden, shown = Detokenizer(BYTES, {}), Detokenizer(BYTES, {256: "<|end|>"})
    for detokenizer in (hidden, shown):
        detokenizer.push(ord("x"))
        detokenizer.push(256)
        detokenizer.finish()
    assert (hidden.text, shown.text) == ("x", "x<|end|>")
