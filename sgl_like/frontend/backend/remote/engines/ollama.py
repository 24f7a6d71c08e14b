"""Ollama: ollama/ollama, docs/api.md.

Messages go to ``/api/chat``, plain text to ``/api/generate`` with ``raw``; both take a schema as ``format``.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from sgl_like.frontend.backend.remote.codec import Chat, PlainText, Prompt
from sgl_like.frontend.backend.remote.dialect import SAME, Dialect, Mode, Spell, schema_object
from sgl_like.frontend.backend.remote.engines.common import PERMITTING
from sgl_like.frontend.backend.remote.openai_wire import chat_messages
from sgl_like.frontend.backend.remote.wire import Answer, Piece, Wire, finish_of
from sgl_like.runtime.protocol import Usage

__all__ = ["OLLAMA"]


class _OllamaWire(Wire):
    json_lines = True

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _OllamaAnswer()


class OllamaChat(_OllamaWire):
    """``/api/chat``. A last message of the assistant is continued."""

    chat = True

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/api/chat"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, Chat)
        messages = chat_messages(prompt)
        for message, turn in zip(messages, prompt.turns, strict=False):
            if not isinstance(
                turn.content, str
            ):  # pictures stand beside the text, whose place they do not have
                message["content"] = "".join(part for part in turn.content if isinstance(part, str))
                message["images"] = [
                    b64encode(p.data).decode() for p in turn.content if not isinstance(p, str)
                ]
        return {"model": model, "messages": messages, "stream": stream}


class OllamaText(_OllamaWire):
    """``/api/generate`` with ``raw``: no template is put around the prompt."""

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/api/generate"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, PlainText)
        return {"model": model, "prompt": prompt.text, "raw": True, "stream": stream}


class _OllamaAnswer(Answer):
    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        message = event.get("message") or {}
        finish = finish_of(event.get("done_reason") or "stop") if event.get("done") else None
        usage = None
        if event.get("done"):
            usage = Usage(event.get("prompt_eval_count") or 0, event.get("eval_count") or 0)
        return Piece(event.get("response") or message.get("content") or "", finish=finish, usage=usage)


def _chosen_of_string(text: str) -> str:
    return str(json.loads(text))


_OLLAMA = {
    **PERMITTING,
    "max_new_tokens": Spell("options.num_predict", SAME),
    "temperature": Spell("options.temperature", SAME),
    "top_p": Spell("options.top_p", SAME),
    "min_p": Spell("options.min_p", SAME),
    "top_k": Spell("options.top_k", 0),
    "repetition_penalty": Spell("options.repeat_penalty", SAME),
    "frequency_penalty": Spell("options.frequency_penalty"),
    "presence_penalty": Spell("options.presence_penalty"),
    "stop": Spell("options.stop"),
    "seed": Spell("options.seed"),
    "json_schema": Spell("format", write=schema_object),
}
_OLLAMA_CHOICE = Spell("format", write=lambda choices: {"type": "string", "enum": list(choices)})
OLLAMA = Dialect(
    "ollama",
    "Ollama",
    chat=Mode(OllamaChat(), _OLLAMA, prefill={}, choice=_OLLAMA_CHOICE, chosen=_chosen_of_string),
    text=Mode(OllamaText(), _OLLAMA, choice=_OLLAMA_CHOICE, chosen=_chosen_of_string),
    owners=frozenset({"library"}),
)
