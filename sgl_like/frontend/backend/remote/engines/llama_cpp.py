"""llama.cpp's own server (ggml-org/llama.cpp, tools/server/README.md), and the one of llama-cpp-python.

Plain text goes to ``/completion``, which says more than ``/v1/completions``. llama-cpp-python
(llama_cpp/server/types.py) has only OpenAI's endpoints, takes a ``grammar`` in both and a schema only for messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_like.frontend.backend.remote.codec import PlainText, Prompt
from sgl_like.frontend.backend.remote.dialect import SAME, Dialect, Mode, Spell, schema_object
from sgl_like.frontend.backend.remote.engines.common import (
    SCHEMA,
    STANDARD,
    USAGE,
    chat_logprobs,
    text_logprobs,
)
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat, OpenAIText
from sgl_like.frontend.backend.remote.wire import Answer, Piece, Wire, finish_of
from sgl_like.runtime.logprobs import PlaceLogprobs, TokenLogprob
from sgl_like.runtime.protocol import Usage

__all__ = ["LLAMA_CPP", "LLAMA_CPP_PYTHON"]


class LlamaCompletion(Wire):
    """``/completion`` of llama.cpp's server."""

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/completion"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, PlainText)
        return {"prompt": prompt.text, "stream": stream, "cache_prompt": True}

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _LlamaAnswer()


class _LlamaAnswer(Answer):
    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        finish = None
        if event.get("stop"):
            finish = finish_of(event.get("stop_type") or "eos", event.get("stopping_word"))
        usage = None
        if "tokens_evaluated" in event:
            timings = event.get("timings") or {}
            prompt = event["tokens_evaluated"]
            cached = max(0, prompt - timings["prompt_n"]) if "prompt_n" in timings else 0
            usage = Usage(prompt, event.get("tokens_predicted") or 0, cached)
        places = tuple(_llama_place(item) for item in event.get("completion_probabilities") or ())
        return Piece(event.get("content") or "", finish=finish, usage=usage, output_logprobs=places)


def _llama_place(item: Mapping[str, Any]) -> PlaceLogprobs:
    return PlaceLogprobs(_llama_token(item), tuple(map(_llama_token, item.get("top_logprobs") or ())))


def _llama_token(item: Mapping[str, Any]) -> TokenLogprob:
    return item.get("logprob"), item.get("id", -1), item.get("token")


def _choices(choices: tuple[str, ...]) -> str:
    from sgl_like.frontend.backend.remote.gbnf import choices_to_gbnf  # loads numpy: only when it is needed

    return choices_to_gbnf(choices)


def _regex(pattern: str) -> str:
    from sgl_like.frontend.backend.remote.gbnf import regex_to_gbnf

    return regex_to_gbnf(pattern)


_LLAMA = {
    **STANDARD,
    "top_p": Spell("top_p", SAME),
    "min_p": Spell("min_p", SAME),
    "top_k": Spell("top_k", 0),
    "repetition_penalty": Spell("repeat_penalty", SAME),
    "ebnf": Spell("grammar"),
    "regex": Spell("grammar", write=_regex),
}
LLAMA_CPP = Dialect(
    "llama.cpp",
    "llama.cpp",
    chat=Mode(
        OpenAIChat(USAGE),
        {**_LLAMA, **SCHEMA, "ignore_eos": Spell("ignore_eos")},
        logprobs=chat_logprobs,
        prefill={},
        choice=Spell("grammar", write=_choices),
    ),
    text=Mode(
        LlamaCompletion(),
        {
            **_LLAMA,
            "max_new_tokens": Spell("n_predict", SAME),
            "logit_bias": Spell("logit_bias", write=lambda pairs: [list(pair) for pair in pairs]),
            "json_schema": Spell("json_schema", write=schema_object),
            "ignore_eos": Spell("ignore_eos"),
        },
        logprobs=lambda asked: {"n_probs": max(1, asked.top)},
        choice=Spell("grammar", write=_choices),
    ),
    owners=frozenset({"llamacpp"}),
)
_LLAMA_PYTHON = {**_LLAMA, "min_new_tokens": Spell("min_tokens")}
LLAMA_CPP_PYTHON = Dialect(
    "llama-cpp-python",
    "llama-cpp-python",
    chat=Mode(
        OpenAIChat(),
        {
            **_LLAMA_PYTHON,
            "json_schema": Spell(
                "response_format",
                write=lambda text: {"type": "json_object", "schema": schema_object(text)},
            ),
        },
        logprobs=chat_logprobs,
        choice=Spell("grammar", write=_choices),
    ),
    text=Mode(OpenAIText(), _LLAMA_PYTHON, logprobs=text_logprobs, choice=Spell("grammar", write=_choices)),
    owners=frozenset({"me"}),
)
