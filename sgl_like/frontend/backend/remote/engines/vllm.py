"""vLLM: docs/serving/openai_compatible_server.md, docs/features/structured_outputs.md.

``structured_outputs`` came with 0.11, the ``guided_*`` fields were removed with 0.12.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sgl_like.frontend.backend.remote.dialect import Dialect, Mode, Spell, schema_object
from sgl_like.frontend.backend.remote.engines.common import (
    CONTINUOUS,
    SAMPLERS,
    chat_logprobs,
    tag_object,
    text_logprobs,
)
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat, OpenAIText

__all__ = ["VLLM", "VLLM_GUIDED"]

CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}


def _vllm(name: str, title: str, constraints: Mapping[str, Spell], choice: Spell) -> Dialect:
    params = {
        **SAMPLERS,
        **constraints,
        "no_stop_trim": Spell("include_stop_str_in_output"),
        "bad_words": Spell("bad_words"),
    }
    return Dialect(
        name,
        title,
        chat=Mode(
            OpenAIChat(CONTINUOUS),
            params,
            logprobs=chat_logprobs,
            prefill=CONTINUE,
            choice=choice,
            scoring="prompt_logprobs",
            counts=True,
        ),
        text=Mode(
            OpenAIText(CONTINUOUS),
            params,
            logprobs=text_logprobs,
            choice=choice,
            scoring="prompt_logprobs",
            counts=True,
        ),
        owners=frozenset({"vllm"}),
    )


VLLM = _vllm(
    "vllm",
    "vLLM",
    {
        "regex": Spell("structured_outputs.regex"),
        "json_schema": Spell("structured_outputs.json", write=schema_object),
        "ebnf": Spell("structured_outputs.grammar"),
        "structural_tag": Spell(
            "structured_outputs.structural_tag", write=lambda text: json.dumps(tag_object(text))
        ),
    },
    Spell("structured_outputs.choice", write=list),
)
VLLM_GUIDED = _vllm(
    "vllm-guided",
    "vLLM before 0.11",
    {
        "regex": Spell("guided_regex"),
        "json_schema": Spell("guided_json", write=schema_object),
        "ebnf": Spell("guided_grammar"),
    },
    Spell("guided_choice", write=list),
)
