"""``/tokenize`` and ``/detokenize`` in vLLM's forms, and under ``/v1`` in SGLang's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from sgl_like.runtime.server.chat.plan import plan_chat
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.openai.messages import Message, Tool, template_messages, tool_use
from sgl_like.runtime.server.openai.models import check_model
from sgl_like.runtime.server.prompts import encode_texts
from sgl_like.runtime.server.sampling import check_count, check_ids

MAX_TOKENS = 1 << 20
"""That are turned into text in one call."""


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /tokenize``: a text, several (SGLang's form), or a conversation."""

    model: str | None = None
    prompt: str | list[str] | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = None


class TokenizeResponse(msgspec.Struct, kw_only=True):
    """Token ids, a list of them for each of several texts."""

    tokens: list[int | list[int]]
    count: int | list[int]
    max_model_len: int
    token_strs: list[str] | UnsetType | None = UNSET


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /detokenize``: token ids, or several lists of them."""

    tokens: list[int | list[int]]
    model: str | None = None
    skip_special_tokens: bool = True


class DetokenizeResponse(msgspec.Struct, kw_only=True):
    """The text, under vLLM's name and SGLang's."""

    prompt: str | list[str]
    text: str | list[str]


async def tokenize(call: Call) -> web.StreamResponse:
    """Text or a conversation to token ids."""
    body = await call.body(TokenizeRequest)
    check_model(call, body.model)
    many = isinstance(body.prompt, list)
    lists = await _tokens(call, body)
    tokens: Any = lists if many else lists[0]
    response = TokenizeResponse(
        tokens=tokens,
        count=[len(ids) for ids in lists] if many else len(lists[0]),
        max_model_len=call.server.info.context_length,
    )
    if body.return_token_strs:
        texts = call.server.token_texts
        response.token_strs = [texts.of(token)[0] for ids in lists for token in ids]
    return json_response(response)


async def _tokens(call: Call, body: TokenizeRequest) -> Sequence[Sequence[int]]:
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("give either prompt or messages", param="prompt")
    if body.messages is not None:
        if not body.messages:
            raise bad_request("messages must not be empty", param="messages")
        plan = await plan_chat(
            call,
            template_messages(body.messages),
            use=tool_use(body.tools, "none", parallel=True),
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
        )
        return [plan.ids]
    texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt or []
    check_count("prompt", len(texts), 1, call.server.config.limits)
    if not body.add_special_tokens:
        encode = call.server.tokenizer.encode_segments
        return await asyncio.to_thread(lambda: [encode([(text, True)]) for text in texts])
    return await encode_texts(call, texts)


async def detokenize(call: Call) -> web.StreamResponse:
    """Token ids to text."""
    body = await call.body(DetokenizeRequest)
    check_model(call, body.model)
    given: Any = body.tokens
    many = bool(given) and all(isinstance(each, list) for each in given)
    lists = given if many else [given]
    if not many and not all(isinstance(each, int) for each in given):
        raise bad_request("tokens must be token ids, or lists of them", param="tokens")
    if sum(map(len, lists)) > MAX_TOKENS:
        raise bad_request(f"tokens: at most {MAX_TOKENS}", param="tokens")
    for at, ids in enumerate(lists):
        if ids:
            check_ids(f"tokens[{at}]" if many else "tokens", ids, call.server.info.vocab_size)
    decode = call.server.tokenizer.decode
    texts = await asyncio.to_thread(lambda: [decode(ids, body.skip_special_tokens) for ids in lists])
    text = texts if many else texts[0]
    return json_response(DetokenizeResponse(prompt=text, text=text))


ROUTES = tuple(
    route
    for prefix in ("", "/v1")
    for route in (
        Route(
            "POST",
            f"{prefix}/tokenize",
            tokenize,
            "Text to token ids",
            body=TokenizeRequest,
            response=TokenizeResponse,
        ),
        Route(
            "POST",
            f"{prefix}/detokenize",
            detokenize,
            "Token ids to text",
            body=DetokenizeRequest,
            response=DetokenizeResponse,
        ),
    )
)
