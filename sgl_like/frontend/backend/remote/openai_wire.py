"""OpenAI's chat completions and completions, as they are spoken by most engines.

https://platform.openai.com/docs/api-reference/chat and .../completions; field names checked against the ``openai``
package (types/chat/completion_create_params.py) and against the request classes of vLLM, SGLang, TensorRT-LLM
(serve/openai_protocol.py), MLC-LLM (protocol/openai_api_protocol.py) and llama-cpp-python (server/types.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.frontend.backend.base import Picture
from sgl_like.frontend.backend.remote.codec import Chat, Content, PlainText, Prompt, Turn
from sgl_like.frontend.backend.remote.wire import Answer, Piece, Wire, finish_of, usage_of
from sgl_like.runtime.logprobs import PlaceLogprobs, TokenLogprob

__all__ = ["OpenAIChat", "OpenAIText", "chat_messages"]


def _image_url(picture: Picture) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture.data_url}}


class _OpenAIWire(Wire):
    """What the two have in common.

    Args:
        stream_options: sent with a stream, to be told how many tokens it took.
    """

    def __init__(self, stream_options: Mapping[str, Any] | None = None) -> None:
        self._stream_options = stream_options

    def _stream_fields(self, stream: bool) -> dict[str, Any]:
        if not stream:
            return {"stream": False}
        options = {"stream_options": dict(self._stream_options)} if self._stream_options else {}
        return {"stream": True, **options}

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _OpenAIAnswer()


class OpenAIChat(_OpenAIWire):
    """``/v1/chat/completions``."""

    chat = True

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/v1/chat/completions"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, Chat)
        return {"model": model, "messages": chat_messages(prompt), **self._stream_fields(stream)}


class OpenAIText(_OpenAIWire):
    """``/v1/completions``."""

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/v1/completions"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        assert isinstance(prompt, PlainText)
        return {"model": model, "prompt": prompt.text, **self._stream_fields(stream)}


def chat_messages(
    prompt: Chat, image: Callable[[Picture], dict[str, Any]] = _image_url
) -> list[dict[str, Any]]:
    """Messages, the last one the assistant's if it is begun; with pictures as the parts that `image` makes of them."""
    turns = [*prompt.turns, Turn("assistant", prompt.begun)] if prompt.begun else prompt.turns
    return [{"role": role, "content": _parts(content, image)} for role, content in turns]


def _parts(content: Content, image: Callable[[Picture], dict[str, Any]]) -> Any:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": each} if isinstance(each, str) else image(each) for each in content]


class _OpenAIAnswer(Answer):
    """Chunks and whole responses of both endpoints: they differ in where the text is."""

    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        usage = usage_of(event.get("usage"))
        choices = event.get("choices")
        if not choices:
            return Piece(usage=usage)
        choice = choices[0]
        message = choice.get("delta") or choice.get("message") or {}
        text = choice.get("text") or message.get("content") or _tool_text(message)
        matched = choice.get("stop_reason", choice.get("matched_stop"))  # vLLM and TensorRT-LLM; SGLang
        return Piece(
            text=text,
            reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
            finish=finish_of(choice.get("finish_reason"), matched),
            usage=usage,
            output_logprobs=_logprobs(choice.get("logprobs")),
        )


def _tool_text(message: Mapping[str, Any]) -> str:
    """The arguments of a tool that stands for a JSON output (Triton)."""
    calls = message.get("tool_calls") or ()
    return "".join((call.get("function") or {}).get("arguments") or "" for call in calls)


def _logprobs(found: Mapping[str, Any] | None) -> tuple[PlaceLogprobs, ...]:
    """Of a chat (``content``) or of a completion (parallel lists). Neither says token ids."""
    if not found:
        return ()
    if found.get("content") is not None:
        return tuple(
            PlaceLogprobs(_entry(item), tuple(map(_entry, item.get("top_logprobs") or ())))
            for item in found["content"]
        )
    tokens, values = found.get("tokens") or (), found.get("token_logprobs") or ()
    tops = found.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        PlaceLogprobs((value, -1, token), tuple((lp, -1, text) for text, lp in (top or {}).items()))
        for token, value, top in zip(tokens, values, tops, strict=False)
    )


def _entry(item: Mapping[str, Any]) -> TokenLogprob:
    return item.get("logprob"), item.get("id", -1), item.get("token")
