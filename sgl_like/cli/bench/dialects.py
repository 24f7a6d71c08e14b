"""How the endpoints spell a request, and what their events say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from sgl_like.cli.bench.datasets import Prompt
from sgl_like.errors import DataError

Endpoint = Literal["completions", "chat", "generate"]

PATHS: dict[Endpoint, str] = {
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "generate": "/generate",
}


class News(NamedTuple):
    """What an event says.

    Args:
        wrote: whether it brings output.
        finished: outputs that have ended with it.
        error: what went wrong.
        prompt_tokens: of the prompt so far as the event says; as the two below.
        output_tokens: of all outputs so far.
        cached_tokens: of the prompt that were cached.
    """

    wrote: bool = False
    finished: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class Sampling(NamedTuple):
    """What all requests ask for alike."""

    model: str | None = None
    temperature: float = 0.0
    ignore_eos: bool = True
    stream: bool = True
    extra: Mapping[str, Any] = {}


def body(endpoint: Endpoint, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """The body of a request.

    Raises:
        DataError: the endpoint does not take such a prompt.
    """
    made: dict[str, Any]
    if endpoint == "generate":
        made = {
            "sampling_params": {
                "max_new_tokens": prompt.max_tokens,
                "temperature": sampling.temperature,
                "ignore_eos": sampling.ignore_eos,
            },
            "stream": sampling.stream,
        }
        made["text" if isinstance(prompt.text, str) else "input_ids"] = _plain(endpoint, prompt)
    else:
        made = {
            "model": sampling.model,
            "max_tokens": prompt.max_tokens,
            "temperature": sampling.temperature,
            "stream": sampling.stream,
        }
        if sampling.ignore_eos:  # OpenAI itself does not know it
            made["ignore_eos"] = True
        if endpoint == "chat":
            made["messages"] = _messages(prompt)
        else:
            made["prompt"] = _plain(endpoint, prompt)
    made |= {**sampling.extra, **prompt.extra}
    if made["stream"] and endpoint != "generate":
        made.setdefault("stream_options", {"include_usage": True})
    return made


def _plain(endpoint: Endpoint, prompt: Prompt) -> str | list[int]:
    if prompt.text is None:
        raise DataError(f"--endpoint {endpoint} takes no messages; use chat")
    return prompt.text


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    if prompt.messages is not None:
        return prompt.messages
    if not isinstance(prompt.text, str):
        raise DataError("--endpoint chat takes no token ids; use completions or generate")
    return [{"role": "user", "content": prompt.text}]


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _OpenAI(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _MetaInfo(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: Any = None


class _Native(msgspec.Struct):
    text: str = ""
    meta_info: _MetaInfo | None = None
    error: Any = None


_openai = msgspec.json.Decoder(_OpenAI)
_native = msgspec.json.Decoder(_Native)


def read(endpoint: Endpoint, data: bytes) -> News:
    """What an event, or a whole answer, says.

    Raises:
        ValueError: it is not what the endpoint should answer.
    """
    if endpoint == "generate":
        return _read_native(data)
    event = _openai.decode(data)
    if event.error is not None:
        return News(error=str(event.error))
    wrote, finished = False, 0
    for choice in event.choices:
        message = choice.delta or choice.message
        if choice.text or (message and (message.content or message.reasoning_content or message.tool_calls)):
            wrote = True
        if choice.finish_reason is not None:
            finished += 1
    usage = event.usage
    if usage is None:
        return News(wrote, finished)
    details = usage.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    return News(wrote, finished, None, usage.prompt_tokens, usage.completion_tokens, cached)


def _read_native(data: bytes) -> News:
    event = _native.decode(data)
    if event.error is not None:
        return News(error=str(event.error))
    meta = event.meta_info or _MetaInfo()
    finished = int(meta.finish_reason is not None)
    tokens = meta.completion_tokens
    return News(bool(event.text), finished, None, meta.prompt_tokens, tokens, meta.cached_tokens)
