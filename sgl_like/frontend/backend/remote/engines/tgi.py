"""Text Generation Inference: huggingface/text-generation-inference, docs/openapi.json.

Plain text goes to ``/generate_stream``, always as a stream, since only there it says how long the prompt was. It leaves
stop strings in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_like.frontend.backend.remote.codec import PlainText, Prompt
from sgl_like.frontend.backend.remote.dialect import SAME, Dialect, Mode, Spell, choice_regex, schema_object
from sgl_like.frontend.backend.remote.engines.common import PERMITTING, STANDARD, USAGE, chat_logprobs
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat
from sgl_like.frontend.backend.remote.wire import Answer, Piece, Wire, finish_of
from sgl_like.runtime.logprobs import PlaceLogprobs, TokenLogprob
from sgl_like.runtime.protocol import FinishReason, Usage

__all__ = ["TGI"]


class TgiGenerate(Wire):
    """``/generate_stream`` of Text Generation Inference."""

    only_streams = True

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/generate_stream"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, PlainText)
        return {"inputs": prompt.text, "parameters": {"details": True, "return_full_text": False}}

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _TgiAnswer(tuple(body["parameters"].get("stop") or ()))


class _TgiAnswer(Answer):
    """Holds back as much text as a stop string may take, to cut it off at the end."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self._longest = max((len(stop) for stop in stops), default=0)

    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        token, details = event.get("token") or {}, event.get("details")
        self._held += "" if token.get("special") else token.get("text") or ""
        places: tuple[PlaceLogprobs, ...] = ()
        if token.get("logprob") is not None:
            tops = tuple(map(_tgi_token, event.get("top_tokens") or ()))
            places = (PlaceLogprobs(_tgi_token(token), tops),)
        if not details:
            return Piece(self._released(self._longest), output_logprobs=places)
        finish = finish_of(details.get("finish_reason"))
        if details.get("finish_reason") == "stop_sequence":
            matched = max((stop for stop in self._stops if self._held.endswith(stop)), key=len, default=None)
            if matched:
                self._held = self._held[: -len(matched)]
            finish = FinishReason("stop", matched)
        usage = Usage(details.get("input_length") or 0, details.get("generated_tokens") or 0)
        return Piece(self._released(0), finish=finish, usage=usage, output_logprobs=places)

    def _released(self, keep: int) -> str:
        out = self._held[: len(self._held) - keep] if keep < len(self._held) else ""
        self._held = self._held[len(out) :]
        return out


def _tgi_token(item: Mapping[str, Any]) -> TokenLogprob:
    return item.get("logprob"), item.get("id", -1), item.get("text")


def _tgi_grammar(kind: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "value": value}


def _tgi_temperature(value: float) -> dict[str, Any]:
    """Greedy is the absence of sampling there; 0 is refused."""
    return {"do_sample": False} if value == 0 else {"do_sample": True, "temperature": value}


TGI = Dialect(
    "tgi",
    "Text Generation Inference",
    chat=Mode(
        OpenAIChat(USAGE),
        {
            **STANDARD,
            "regex": Spell("response_format", write=lambda regex: _tgi_grammar("regex", regex)),
            "json_schema": Spell(
                "response_format", write=lambda text: _tgi_grammar("json", schema_object(text))
            ),
        },
        logprobs=chat_logprobs,
        choice=Spell("response_format", write=lambda texts: _tgi_grammar("regex", choice_regex(texts))),
    ),
    text=Mode(
        TgiGenerate(),
        {
            **PERMITTING,
            "max_new_tokens": Spell("parameters.max_new_tokens", SAME),
            "temperature": Spell("parameters", SAME, write=_tgi_temperature),
            "top_p": Spell("parameters.top_p"),
            "top_k": Spell("parameters.top_k"),
            "repetition_penalty": Spell("parameters.repetition_penalty"),
            "frequency_penalty": Spell("parameters.frequency_penalty"),
            "stop": Spell("parameters.stop"),
            "seed": Spell("parameters.seed"),
            "regex": Spell("parameters.grammar", write=lambda regex: _tgi_grammar("regex", regex)),
            "json_schema": Spell(
                "parameters.grammar", write=lambda text: _tgi_grammar("json", schema_object(text))
            ),
        },
        logprobs=lambda asked: {"parameters": {"top_n_tokens": asked.top} if asked.top else {}},
        choice=Spell("parameters.grammar", write=lambda texts: _tgi_grammar("regex", choice_regex(texts))),
        scoring="tgi",
    ),
)
