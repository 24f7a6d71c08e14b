"""MLC-LLM: python/mlc_llm/protocol/openai_api_protocol.py: ``response_format`` json_object with a schema's text."""

from __future__ import annotations

import json

from sgl_like.frontend.backend.remote.dialect import Dialect, Mode, Spell
from sgl_like.frontend.backend.remote.engines.common import (
    STANDARD,
    USAGE,
    chat_logprobs,
    choice_object,
    chosen_of_object,
    text_logprobs,
)
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat, OpenAIText

__all__ = ["MLC_LLM"]

_MLC = {
    **STANDARD,
    "json_schema": Spell("response_format", write=lambda text: {"type": "json_object", "schema": text}),
}
_MLC_CHOICE = Spell(
    "response_format",
    write=lambda texts: {"type": "json_object", "schema": json.dumps(choice_object(texts))},
)
MLC_LLM = Dialect(
    "mlc-llm",
    "MLC-LLM",
    chat=Mode(OpenAIChat(USAGE), _MLC, logprobs=chat_logprobs, choice=_MLC_CHOICE, chosen=chosen_of_object),
    text=Mode(OpenAIText(USAGE), _MLC, logprobs=text_logprobs, choice=_MLC_CHOICE, chosen=chosen_of_object),
    owners=frozenset({"MLC-LLM"}),
)
