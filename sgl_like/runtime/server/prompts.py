"""Texts and conversations to token ids, off the event loop where that takes time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sgl_like.errors import ChatTemplateError
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call

T = TypeVar("T")

QUICK = 8 * 1024
"""Characters that are tokenised and rendered at once; more of them on a thread. About a millisecond."""


async def encode_texts(call: Call, texts: Sequence[str], param: str = "prompt") -> list[list[int]]:
    """Token ids of raw prompts, in which special tokens count as such.

    Raises:
        ApiError: 400: a text is longer than any that could fit the context.
    """
    server = call.server
    most = server.info.context_length * server.tokenizer.longest_token
    for at, text in enumerate(texts):
        if len(text) > most:
            name = param if len(texts) == 1 else f"{param}[{at}]"
            raise bad_request(
                f"{name} has {len(text)} characters; the maximum context length is {server.info.context_length}"
                " tokens",
                param=name,
                code="context_length_exceeded",
            )
    encode = server.tokenizer.encode
    return await _run(lambda: [encode(text) for text in texts], sum(map(len, texts)))


async def encode_chat(
    call: Call,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    variables: Mapping[str, Any] | None = None,
    param: str = "messages",
) -> list[int]:
    """Token ids of a conversation; see `ConversationEncoder.encode`.

    Raises:
        ApiError: 400: the chat template does not take the conversation.
    """
    encode = partial(
        call.server.conversations.encode,
        messages,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        variables=variables,
    )
    size = sum(_size(message) for message in messages) + sum(_size(tool) for tool in tools or ())
    try:
        return await _run(encode, size + (QUICK if variables else 0))
    except ChatTemplateError as error:
        raise bad_request(str(error), param=param) from None


def _size(value: Any) -> int:
    """Characters of all texts, roughly."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values())) + 16
    if isinstance(value, list | tuple):
        return sum(map(_size, value)) + 16
    return 8


async def _run(work: Callable[[], T], size: int) -> T:
    return work() if size < QUICK else await asyncio.to_thread(work)
