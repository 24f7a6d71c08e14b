"""TensorRT-LLM and Triton Inference Server.

* TensorRT-LLM: tensorrt_llm/serve/openai_protocol.py: ``response_format`` of type json, regex or ebnf.
* Triton's OpenAI front end drops ``response_format`` (python/openai/openai_frontend/engine/utils/triton.py); it holds
  an output to a schema as the arguments of a tool that must be called.
"""

from __future__ import annotations

from typing import Any

from sgl_like.frontend.backend.remote.dialect import Dialect, Mode, Spell, choice_regex, schema_object
from sgl_like.frontend.backend.remote.engines.common import (
    CONTINUOUS,
    SAMPLERS,
    STANDARD,
    chat_logprobs,
    choice_object,
    chosen_of_object,
    text_logprobs,
)
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat, OpenAIText

__all__ = ["TENSORRT_LLM", "TRITON"]


def _forced_tool(schema: Any) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "output", "parameters": schema}}
    return {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "output"}}}


_TRT = {
    **SAMPLERS,
    "top_k": Spell("top_k", 0),
    "no_stop_trim": Spell("include_stop_str_in_output"),
    "regex": Spell("response_format", write=lambda regex: {"type": "regex", "regex": regex}),
    "json_schema": Spell(
        "response_format", write=lambda text: {"type": "json", "schema": schema_object(text)}
    ),
    "ebnf": Spell("response_format", write=lambda ebnf: {"type": "ebnf", "ebnf": ebnf}),
}
_TRT_CHOICE = Spell("response_format", write=lambda texts: {"type": "regex", "regex": choice_regex(texts)})
TENSORRT_LLM = Dialect(
    "tensorrt-llm",
    "TensorRT-LLM",
    chat=Mode(OpenAIChat(CONTINUOUS), _TRT, logprobs=chat_logprobs, choice=_TRT_CHOICE, counts=True),
    text=Mode(OpenAIText(CONTINUOUS), _TRT, logprobs=text_logprobs, choice=_TRT_CHOICE, counts=True),
    owners=frozenset({"tensorrt_llm"}),
)
_TRITON = {name: spell for name, spell in STANDARD.items() if name != "logit_bias"}
TRITON = Dialect(
    "triton",
    "Triton Inference Server",
    chat=Mode(
        OpenAIChat(),
        {**_TRITON, "json_schema": Spell("", write=lambda text: _forced_tool(schema_object(text)))},
        choice=Spell("", write=lambda texts: _forced_tool(choice_object(texts))),
        chosen=chosen_of_object,
        images=False,
    ),
    text=Mode(OpenAIText(), _TRITON),
    owners=frozenset({"Triton Inference Server"}),
)
