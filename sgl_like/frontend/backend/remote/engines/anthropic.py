"""Anthropic's ``/v1/messages``.

https://docs.anthropic.com/en/api/messages and .../messages-streaming; field names checked against the ``anthropic``
package (types/message_create_params.py, types/raw_*_event.py), which since 2.x has no ``temperature``, ``top_p`` and
``top_k`` any more: newer models take none. The system message is a field of its own; the state's
messages are not touched for it (b#27).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.base import Picture
from sgl_like.frontend.backend.remote.codec import Chat, Prompt
from sgl_like.frontend.backend.remote.dialect import Dialect, Mode, Spell, schema_object
from sgl_like.frontend.backend.remote.engines.common import BASIC, choice_object, chosen_of_object
from sgl_like.frontend.backend.remote.openai_wire import chat_messages
from sgl_like.frontend.backend.remote.wire import Answer, Piece, Wire, finish_of
from sgl_like.runtime.protocol import Usage

__all__ = ["ANTHROPIC", "anthropic_dialect"]


def _image(picture: Picture) -> dict[str, Any]:
    data = b64encode(picture.data).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": picture.mime, "data": data}}


class AnthropicMessages(Wire):
    """The messages API."""

    chat = True

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/v1/messages"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, Chat)
        turns = list(prompt.turns)
        system: list[str] = []
        while turns and turns[0].role == "system":
            content = turns.pop(0).content
            if not isinstance(content, str):
                raise RequestError("Anthropic takes no image in a system message; put it into sgl.user(...)")
            system.append(content)
        if any(turn.role == "system" for turn in turns):
            raise RequestError(
                "Anthropic takes a system message only before all others; move it to the beginning"
            )
        if prompt.begun != prompt.begun.rstrip():
            raise RequestError(
                f"Anthropic does not continue a message that ends with a blank: {prompt.begun[-20:]!r};"
                " move the blank behind the gen"
            )
        messages = chat_messages(Chat(tuple(turns), prompt.begun), _image)
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": stream}
        return {**body, "system": "\n\n".join(system)} if system else body

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _AnthropicAnswer()


class _AnthropicAnswer(Answer):
    """Events of a stream by their ``type``; a whole response is of the type ``message``."""

    def __init__(self) -> None:
        self._usage = Usage()

    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        match event.get("type"):
            case "message":
                text = "".join(part.get("text") or "" for part in event.get("content") or ())
                return self._piece(event, event.get("usage"), text)
            case "message_start":
                return self._piece({}, (event.get("message") or {}).get("usage"))
            case "content_block_delta":
                return Piece((event.get("delta") or {}).get("text") or "")
            case "message_delta":
                return self._piece(event.get("delta") or {}, event.get("usage"))
        return Piece()

    def _piece(self, stopped: Mapping[str, Any], usage: Mapping[str, Any] | None, text: str = "") -> Piece:
        usage = usage or {}
        cached = usage.get("cache_read_input_tokens") or 0
        prompt = (usage.get("input_tokens") or 0) + cached + (usage.get("cache_creation_input_tokens") or 0)
        self._usage = Usage(
            max(self._usage.prompt_tokens, prompt),
            usage.get("output_tokens") or self._usage.completion_tokens,
            max(self._usage.cached_tokens, cached),
        )
        finish = finish_of(stopped.get("stop_reason"), stopped.get("stop_sequence"))
        return Piece(text, finish=finish, usage=self._usage)


ANTHROPIC = Dialect(
    "anthropic",
    "Anthropic",
    chat=Mode(
        AnthropicMessages(),
        {
            **BASIC,
            "temperature": Spell("temperature"),
            "top_k": Spell("top_k"),
            "stop": Spell("stop_sequences"),
            "json_schema": Spell(
                "output_config.format",
                write=lambda text: {"type": "json_schema", "schema": schema_object(text)},
            ),
        },
        prefill={},
        choice=Spell(
            "output_config.format",
            write=lambda texts: {"type": "json_schema", "schema": choice_object(texts)},
        ),
        chosen=chosen_of_object,
        roles=frozenset({"system", "user", "assistant"}),
    ),
)

_SAMPLING = ("temperature", "top_p", "top_k")
_UP_TO_4_5 = (
    "claude-2", "claude-3", "claude-sonnet-4-2", "claude-opus-4-2", "claude-sonnet-4-0", "claude-opus-4-0",
    "claude-opus-4-1", "claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5",
)  # fmt: skip
_4_6 = ("claude-opus-4-6", "claude-sonnet-4-6")


def anthropic_dialect(model: str, prefill: bool | None, sampling: bool | None) -> Dialect:
    """What `model` can be asked; ``None`` stands for what is known of it."""
    old = any(name in model for name in _UP_TO_4_5)
    if prefill is None:
        prefill = old
    if sampling is None:
        sampling = old or any(name in model for name in _4_6)
    chat = ANTHROPIC.chat
    assert chat is not None
    params = {name: spell for name, spell in chat.params.items() if sampling or name not in _SAMPLING}
    return replace(
        ANTHROPIC,
        title=f"Anthropic's {model}",
        chat=replace(chat, params=params, prefill=chat.prefill if prefill else None),
    )
