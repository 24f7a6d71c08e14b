"""OpenAI itself, and what can be assumed of a server that says no more than that it is compatible."""

from __future__ import annotations

from sgl_like.frontend.backend.remote.dialect import SAME, Dialect, Mode, Spell
from sgl_like.frontend.backend.remote.engines.common import (
    OBJECT_CHOICE,
    SCHEMA,
    STANDARD,
    USAGE,
    chat_logprobs,
    chosen_of_object,
    text_logprobs,
)
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat, OpenAIText

__all__ = ["COMPATIBLE", "OPENAI"]

OPENAI = Dialect(
    "openai",
    "OpenAI",
    chat=Mode(
        OpenAIChat(USAGE),
        {**STANDARD, **SCHEMA, "max_new_tokens": Spell("max_completion_tokens", SAME)},
        logprobs=chat_logprobs,
        choice=OBJECT_CHOICE,
        chosen=chosen_of_object,
        roles=frozenset({"system", "developer", "user", "assistant"}),  # "tool" needs the id of a call
    ),
    text=Mode(OpenAIText(USAGE), STANDARD, logprobs=text_logprobs),
)
COMPATIBLE = Dialect(
    "compatible",
    "this OpenAI-compatible server",
    chat=Mode(
        OpenAIChat(USAGE),
        {**STANDARD, **SCHEMA},
        logprobs=chat_logprobs,
        choice=OBJECT_CHOICE,
        chosen=chosen_of_object,
    ),
    text=Mode(OpenAIText(USAGE), STANDARD, logprobs=text_logprobs),
)
