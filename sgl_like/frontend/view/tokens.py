"""Which characters of a text each token stands for.

Tokens are bytes and may end in the middle of a character, so they are decoded one after another. What they stand for
and the text need not be the same: a beginning-of-sequence token, or the blank that some tokenizers put first, is in
the tokens alone; what a stop string cut off is too.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Slice", "spread_given", "spread_output"]

Piece = bytes | str
"""A token as the backend has it: bytes, or the name of a special token."""


class Slice(NamedTuple):
    """The characters of token number `token` in one text: `text`, of which the last `cut` are not in it."""

    token: int
    text: str
    cut: int = 0
    joined: bool = False


def spread_given(pieces: Sequence[Piece], texts: Sequence[str]) -> list[list[Slice]] | None:
    """The tokens of texts that were tokenised in one go, for each text; None if they do not stand for it.

    What they have before the first text is cut off.
    """
    decoded = _decode(pieces)
    whole, wanted = "".join(decoded), "".join(texts)
    if not whole.endswith(wanted) or not texts:
        return None
    ends: list[int] = []
    for text in texts:
        ends.append(len(text) + (ends[-1] if ends else 0))
    found: list[list[Slice]] = [[] for _ in texts]
    at, place = len(wanted) - len(whole), 0  # of the token's first character, and the text that holds it
    for index, piece in enumerate(decoded):
        before = piece[: max(-at, 0)]
        start, end = max(at, 0), max(at + len(piece), 0)
        while place < len(texts) - 1 and ends[place] <= start:
            place += 1
        first = True
        while True:
            text = wanted[start : min(end, ends[place])]
            if first:
                kept = Slice(index, text) if text or not before else Slice(index, before, len(before))
                found[place].append(kept)
            elif text:
                found[place].append(Slice(index, text, joined=True))
            if end <= ends[place] or place == len(texts) - 1:
                break
            first, start, place = False, ends[place], place + 1
        at += len(piece)
    return found


def spread_output(pieces: Sequence[Piece], text: str) -> list[Slice] | None:
    """The tokens of an output; None if they do not stand for it. What comes after the text is cut off."""
    for with_special in (False, True):  # special tokens are usually left out of a text
        shown = [piece if with_special or isinstance(piece, bytes) else b"" for piece in pieces]
        decoded = _decode(shown)
        if "".join(decoded).startswith(text):
            break
    else:
        return None
    found, left = [], len(text)
    for index, (piece, part) in enumerate(zip(pieces, decoded, strict=True)):
        if isinstance(piece, str) and not part:
            found.append(Slice(index, piece, len(piece)))
            continue
        found.append(Slice(index, part, len(part) - min(left, len(part))))
        left -= min(left, len(part))
    return found


def _decode(pieces: Sequence[Piece]) -> list[str]:
    """The text of each token; a character counts for the token that completes it."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            texts.append(decoder.decode(piece))
        else:
            texts.append(decoder.decode(b"", True) + piece)
            decoder.reset()
    if texts:
        texts[-1] += decoder.decode(b"", True)
    return texts
