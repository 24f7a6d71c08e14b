"""Spells that several engines share.

Where an engine's defaults change the distribution (``top_k=40``, a repetition penalty, a model's own
``generation_config``), its dialect sends the neutral values, so that a program samples from the same distribution
everywhere.
"""

from __future__ import annotations

import json
from typing import Any

from sgl_like.frontend.backend.remote.dialect import SAME, Spell, schema_object
from sgl_like.runtime.logprobs import LogprobParams

__all__ = [
    "BASIC", "CONTINUOUS", "OBJECT_CHOICE", "PERMITTING", "SAMPLERS", "SCHEMA", "STANDARD", "USAGE", "bias_object",
    "chat_logprobs", "choice_object", "chosen_of_object", "schema_format", "tag_object", "text_logprobs",
]  # fmt: skip

USAGE = {"include_usage": True}
CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}


def bias_object(pairs: tuple[tuple[int, float], ...]) -> dict[str, float]:
    """``logit_bias`` as OpenAI writes it."""
    return {str(token): bias for token, bias in pairs}


def choice_object(choices: tuple[str, ...]) -> dict[str, Any]:
    """A schema for engines that only take objects: ``{"choice": one of them}``."""
    return {
        "type": "object",
        "properties": {"choice": {"type": "string", "enum": list(choices)}},
        "required": ["choice"],
        "additionalProperties": False,
    }


def chosen_of_object(text: str) -> str:
    """The choice in what `choice_object` holds an output to."""
    return str(json.loads(text)["choice"])


def _response_format(schema: Any, strict: bool = True) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": strict}}


def tag_object(text: str) -> dict[str, Any]:
    """A structural tag with its type."""
    return {"type": "structural_tag", **schema_object(text)}


def chat_logprobs(asked: LogprobParams) -> dict[str, Any]:
    """Log-probabilities of a chat completion."""
    return {"logprobs": True, **({"top_logprobs": asked.top} if asked.top else {})}


def text_logprobs(asked: LogprobParams) -> dict[str, Any]:
    """Log-probabilities of a completion."""
    return {"logprobs": max(1, asked.top)}


def schema_format(text: str) -> dict[str, Any]:
    """A schema as OpenAI's ``response_format``."""
    return _response_format(schema_object(text))


PERMITTING = {name: Spell(None) for name in ("property_order", "whitespace", "jump_forward")}
"""Parameters whose default is not asked of other engines, and whose other value permits what they do."""

BASIC = {
    **PERMITTING,
    "max_new_tokens": Spell("max_tokens", SAME),
    "temperature": Spell("temperature", SAME),
    "top_p": Spell("top_p"),
    "stop": Spell("stop"),
}
STANDARD = {
    **BASIC,
    "frequency_penalty": Spell("frequency_penalty"),
    "presence_penalty": Spell("presence_penalty"),
    "logit_bias": Spell("logit_bias", write=bias_object),
    "seed": Spell("seed"),
}
SCHEMA = {"json_schema": Spell("response_format", write=schema_format)}
OBJECT_CHOICE = Spell("response_format", write=lambda choices: _response_format(choice_object(choices)))

SAMPLERS = {
    **STANDARD,
    "top_p": Spell("top_p", SAME),
    "min_p": Spell("min_p", SAME),
    "top_k": Spell("top_k", SAME),
    "repetition_penalty": Spell("repetition_penalty", SAME),
    "min_new_tokens": Spell("min_tokens"),
    "stop_token_ids": Spell("stop_token_ids"),
    "ignore_eos": Spell("ignore_eos"),
    "skip_special_tokens": Spell("skip_special_tokens"),
}
