"""Log-probabilities of an answer's new tokens, in the form that OpenAI's responses and Ollama share."""

from __future__ import annotations

from typing import Any

import msgspec

from sgl_like.runtime.protocol import Output
from sgl_like.runtime.server.openai.logprobs import TokenTexts, chat_logprobs


def token_logprobs(texts: TokenTexts, output: Output) -> list[dict[str, Any]]:
    """For each new token of an output itself, and the likeliest ones in its place; not for one that only ended it."""
    places, finish = output.output_logprobs, output.finish
    if places and finish is not None and places[-1].token[1] == finish.matched:
        places = places[:-1]
    found: list[dict[str, Any]] = msgspec.to_builtins(chat_logprobs(texts, places).content)
    return found
