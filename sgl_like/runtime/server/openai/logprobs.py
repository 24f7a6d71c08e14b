r"""Log-probabilities in OpenAI's two forms, and vLLM's for prompts.

A token that is a part of a character is shown by its bytes, as OpenAI does it: ``"bytes:\xe2\x82"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sgl_like.runtime.logprobs import NO_TOKEN, PlaceLogprobs, TokenLogprob
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer


class TokenTexts:
    """Texts of tokens.

    Args:
        tokenizer: whose.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, bytes]] = {}

    def of(self, token: int) -> tuple[str, bytes]:
        """Text and bytes of a token."""
        found = self._known.get(token)
        if found is None:
            (piece,) = self._tokenizer.pieces([token])
            data = piece.encode() if isinstance(piece, str) else piece
            try:
                text = data.decode()
            except UnicodeDecodeError:
                text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
            found = self._known[token] = (text, data)
        return found


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Of a completion: for each token its text, log-probability, the likeliest ones, and where it begins."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TopLogprob(msgspec.Struct, kw_only=True):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(msgspec.Struct, kw_only=True):
    """A token of a chat's answer."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """Of a chat's answer."""

    content: list[ChatLogprob]
    refusal: None = None


LEAST = -9999.0
"""In place of minus infinity, which JSON does not have; OpenAI's own number."""


def _number(value: float | None) -> float:
    return LEAST if value is None else max(value, LEAST)


def completion_logprobs(
    texts: TokenTexts, places: Sequence[PlaceLogprobs], top: int, offset: int
) -> tuple[CompletionLogprobs, int]:
    """Of the next tokens, the first of which begins at `offset`; and where the token after them begins."""
    found = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[] if top else None, text_offset=[])
    for place in places:
        if place.token == NO_TOKEN:
            continue
        logprob, token, _ = place.token
        text, data = texts.of(token)
        found.tokens.append(text)
        found.token_logprobs.append(None if logprob is None else _number(logprob))
        found.text_offset.append(offset)
        offset += len(data.decode(errors="ignore"))
        if found.top_logprobs is not None:
            found.top_logprobs.append(None if logprob is None else _by_text(texts, place))
    return found, offset


def _by_text(texts: TokenTexts, place: PlaceLogprobs) -> dict[str, float]:
    given = {texts.of(token)[0]: _number(value) for value, token, _ in place.top}
    return given | {texts.of(place.token[1])[0]: _number(place.token[0])}


def chat_logprobs(texts: TokenTexts, places: Sequence[PlaceLogprobs]) -> ChatLogprobs:
    """Of the next tokens."""
    found = []
    for place in places:
        logprob, token, _ = place.token
        text, data = texts.of(token)
        top = [_top(texts, each) for each in place.top]
        found.append(ChatLogprob(token=text, logprob=_number(logprob), bytes=list(data), top_logprobs=top))
    return ChatLogprobs(content=found)


def _top(texts: TokenTexts, entry: TokenLogprob) -> TopLogprob:
    text, data = texts.of(entry[1])
    return TopLogprob(token=text, logprob=_number(entry[0]), bytes=list(data))


def prompt_logprobs(texts: TokenTexts, places: Sequence[PlaceLogprobs]) -> list[dict[str, Any] | None]:
    """VLLM's form: for each token of the prompt ``{token id: {logprob, rank, decoded_token}}``; of the first one none.

    The rank of a token that is not among the likeliest ones is not known, and ``null``.
    """
    found: list[dict[str, Any] | None] = []
    for place in places:
        logprob, token, _ = place.token
        if place.token == NO_TOKEN:
            continue
        if logprob is None:
            found.append(None)
            continue
        entries = {
            str(other): {"logprob": _number(value), "rank": rank, "decoded_token": texts.of(other)[0]}
            for rank, (value, other, _) in enumerate(place.top, 1)
        }
        own = {"logprob": _number(logprob), "rank": None, "decoded_token": texts.of(token)[0]}
        found.append({str(token): entries.pop(str(token), own), **entries})
    return found
