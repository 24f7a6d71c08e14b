"""Log-probabilities of an answer's tokens in the form that OpenAI and Ollama share."""

from __future__ import annotations

from typing import Any

from sgl_like.runtime.logprobs import TokenLogprob
from sgl_like.runtime.protocol import Output
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer


def token_logprobs(tokenizer: Tokenizer, output: Output) -> list[dict[str, Any]]:
    """For each new token of an output itself, and the likeliest ones in its place; not for one that only ended it."""
    places, finish = output.output_logprobs, output.finish
    if places and finish is not None and places[-1].token[1] == finish.matched:
        places = places[:-1]
    return [
        _entry(tokenizer, place.token) | {"top_logprobs": [_entry(tokenizer, each) for each in place.top]}
        for place in places
    ]


def _entry(tokenizer: Tokenizer, token: TokenLogprob) -> dict[str, Any]:
    logprob, id, _ = token
    (piece,) = tokenizer.pieces([id])
    data = piece.encode() if isinstance(piece, str) else piece
    value = -9999.0 if logprob is None else max(logprob, -9999.0)  # JSON has no minus infinity
    return {"token": data.decode(errors="replace"), "logprob": value, "bytes": list(data)}
