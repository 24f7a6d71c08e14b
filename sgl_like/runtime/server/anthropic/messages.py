"""``/v1/messages`` and ``/v1/messages/count_tokens``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from aiohttp import web

from sgl_like.runtime.protocol import FinishReason, Usage
from sgl_like.runtime.server.anthropic.answer import Event, MessageBuilder, stop_reason
from sgl_like.runtime.server.anthropic.bodies import (
    CountTokensRequest,
    MessageAnswer,
    MessagesRequest,
    TokensAnswer,
)
from sgl_like.runtime.server.anthropic.conversation import (
    is_prefilled,
    messages_of,
    tool_use_of,
)
from sgl_like.runtime.server.anthropic.errors import anthropic_body
from sgl_like.runtime.server.chat.plan import plan_chat
from sgl_like.runtime.server.chat.single import Ask, Turn, prepare, steps
from sgl_like.runtime.server.constraints import Constraint
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError, bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.streaming import send_stream, typed_event
from sgl_like.runtime.server.openai.models import check_model

_PING = typed_event({"type": "ping"})
_NAMES = {"max_new_tokens": "max_tokens", "stop": "stop_sequences"}


async def messages(call: Call) -> web.StreamResponse:
    """Answer a conversation."""
    body = await call.body(MessagesRequest)
    check_model(call, body.model)
    turn = await prepare(call, _ask(body))
    builder = MessageBuilder(call.id, body.model)
    if body.stream:
        return await send_stream(call, _sent(call, turn, builder), _failure, ping=_PING)
    async with aclosing(_events(call, turn, builder)) as events:
        async for _ in events:
            pass
    return json_response(builder.message)


async def count_tokens(call: Call) -> web.StreamResponse:
    """How many tokens a conversation has."""
    body = await call.body(CountTokensRequest)
    check_model(call, body.model)
    plan = await plan_chat(
        call, messages_of(body), use=tool_use_of(body), continue_final_message=is_prefilled(body)
    )
    return json_response({"input_tokens": len(plan.ids)})


def _ask(body: MessagesRequest) -> Ask:
    if body.thinking is not None and body.thinking.type == "enabled":
        raise bad_request("thinking: the model does not think on request; leave it out", param="thinking")
    form = body.output_config.format if body.output_config is not None else None
    return Ask(
        messages=messages_of(body),
        values={
            "max_new_tokens": body.max_tokens,
            "stop": body.stop_sequences or None,
            "temperature": body.temperature,
            "top_k": body.top_k or None,
            "top_p": None if body.top_p is None else max(body.top_p, 1e-6),  # 0: the likeliest token alone
        },
        names=_NAMES,
        use=tool_use_of(body),
        constraints=()
        if form is None
        else [Constraint("output_config.format.schema", "json_schema", form.schema)],
        resume=is_prefilled(body),
    )


def _failure(error: ApiError) -> bytes:
    return typed_event(anthropic_body(error))


async def _sent(call: Call, turn: Turn, builder: MessageBuilder) -> AsyncGenerator[bytes, None]:
    async with aclosing(_events(call, turn, builder)) as batches:
        async for events in batches:
            yield b"".join(map(typed_event, events))


async def _events(call: Call, turn: Turn, builder: MessageBuilder) -> AsyncGenerator[list[Event], None]:
    """The events of an answer, those of an output together."""
    reader, begun = turn.plan.reader(), False
    async with call.generate([turn.request]) as generation:
        if (
            not await generation.first()
        ):  # it waits: the client gets headers, and the cached part is not known
            yield list(builder.begin(Usage(prompt_tokens=len(turn.plan.ids))))
            begun = True
        async for said, output in steps(generation, reader):
            events: list[Event] = []
            if not begun:
                events += builder.begin(output.usage)
                begun = True
            for each in said:
                events += _said(builder, each.kind, each.text)
            if output.finish is not None:
                events += _end(call, builder, output.finish, output.usage)
            if events:
                yield events


def _said(builder: MessageBuilder, kind: str, text: str) -> Iterator[Event]:
    match kind:
        case "call":
            return builder.call(text)
        case "arguments":
            return builder.arguments(text)
    return builder.text(text)


def _end(call: Call, builder: MessageBuilder, finish: FinishReason, usage: Usage) -> Iterator[Event]:
    info = call.server.info
    full = usage.prompt_tokens + usage.completion_tokens >= min(info.context_length, info.kv_slots)
    reason, matched = stop_reason(finish, builder.has_calls, full)
    return builder.end(reason, matched, usage)


ROUTES = (
    Route(
        "POST",
        "/v1/messages",
        messages,
        "Answer a conversation (Anthropic)",
        body=MessagesRequest,
        response=MessageAnswer,
        error_body=anthropic_body,
        streams=True,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        count_tokens,
        "Count a conversation's tokens (Anthropic)",
        body=CountTokensRequest,
        response=TokensAnswer,
        error_body=anthropic_body,
    ),
)
