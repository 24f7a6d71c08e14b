"""The constant beginning of a program's prompts: what comes before anything that arguments or the model decide."""

from __future__ import annotations

from sgl_like.frontend.backend.base import Segment
from sgl_like.frontend.batches.prefix import common_length
from sgl_like.frontend.inspect.run import Traced

__all__ = ["constant_prefix"]

_NEXT = ("", " a", "a", "A", "1", ".", "\n", "é", "'s")
"""Texts that may come after the constant part; tokens that depend on which are not constant."""


def constant_prefix(run: Traced) -> tuple[str, list[int]]:
    """Its text, and the tokens it has whatever comes after it."""
    constant: list[Segment] = []
    for piece in run.state._interpreter.prompt.pieces:
        known = run.tracer.unknowns.known_prefix(piece.text)
        if known:
            constant.append(Segment(known, piece.trusted, piece.picture))
        if known != piece.text or piece.ids is not None:
            break
    if not constant:
        return "", []
    backend = run.backend
    ids, *others = (backend.encode([*constant, Segment(text, trusted=False)], start=True) for text in _NEXT)
    length = min(common_length(ids, other) for other in others)
    return "".join(segment.text for segment in constant), ids[:length]
