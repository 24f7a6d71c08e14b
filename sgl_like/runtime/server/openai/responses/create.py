"""``POST /v1/responses``."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from sgl_like.errors import SglError
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import FinishReason, Usage
from sgl_like.runtime.server.chat.logprobs import token_logprobs
from sgl_like.runtime.server.chat.plan import plan_chat
from sgl_like.runtime.server.chat.reading import Said
from sgl_like.runtime.server.chat.single import Ask, Turn, prepare, prepare_cut, steps
from sgl_like.runtime.server.constraints import ANY_OBJECT, Constraint
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError, api_error, bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.streaming import send_stream, typed_event
from sgl_like.runtime.server.openai.logprobs import TokenTexts
from sgl_like.runtime.server.openai.models import check_model
from sgl_like.runtime.server.openai.responses.bodies import (
    InputTokensAnswer,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseAnswer,
    ResponsesRequest,
    TextFormat,
)
from sgl_like.runtime.server.openai.responses.events import Event, ResponseBuilder
from sgl_like.runtime.server.openai.responses.items import input_items, messages_of, new_id
from sgl_like.runtime.server.openai.responses.kept import ROUTES as KEPT
from sgl_like.runtime.server.openai.responses.store import Running
from sgl_like.runtime.server.openai.responses.tools import tool_use_of
from sgl_like.runtime.server.sampling import check_top_logprobs

_NAMES = {"max_new_tokens": "max_output_tokens"}
_LOGPROBS = "message.output_text.logprobs"
_ABSENT = {
    "background": "responses are made while the client waits",
    "conversation": "there are no conversations; use previous_response_id",
    "prompt": "there are no stored prompts; send the text",
}

Items = tuple[dict[str, Any], ...]


async def create_response(call: Call) -> web.StreamResponse:
    """Make a response."""
    body = await call.body(ResponsesRequest)
    check_model(call, body.model)
    for name, why in _ABSENT.items():
        if getattr(body, name):
            raise bad_request(f"{name}: {why}", param=name)
    before, items = _before(call, body), tuple(input_items(body))
    if not items and not before:
        raise bad_request("input must not be empty", param="input")
    turn = await _prepare(call, body, [*before, *items])
    builder = ResponseBuilder(_object(call, body))
    making = _make(call, turn, builder, items, before)
    if body.stream:
        return await send_stream(call, _sent(making, builder), _failure)
    async with aclosing(making):
        async for _ in making:
            pass
    return json_response(builder.response)


async def count_input(call: Call) -> web.StreamResponse:
    """How many tokens the input of a response would have."""
    body = await call.body(ResponsesRequest)
    check_model(call, body.model)
    items = [*_before(call, body), *input_items(body)]
    plan = await plan_chat(call, messages_of(items, body.instructions), use=tool_use_of(body), param="input")
    return json_response({"object": "response.input_tokens", "input_tokens": len(plan.ids)})


def _before(call: Call, body: ResponsesRequest) -> Items:
    """The conversation that is gone on from.

    Raises:
        ApiError: 400: it is not there (any more).
    """
    id = body.previous_response_id
    if id is None:
        return ()
    stored = call.server.responses.get(call.tenant.name, id)
    if stored is None:
        raise bad_request(
            f"Previous response with id {id!r} not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return stored.conversation


async def _prepare(call: Call, body: ResponsesRequest, items: Sequence[dict[str, Any]]) -> Turn:
    limits = call.server.config.limits
    top = check_top_logprobs("top_logprobs", body.top_logprobs, limits)
    wanted = top > 0 or _LOGPROBS in (body.include or ())
    ask = Ask(
        messages=messages_of(items, body.instructions),
        values={
            "max_new_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": None if body.top_p is None else max(body.top_p, 1e-6),  # 0: the likeliest token alone
        },
        names=_NAMES,
        use=tool_use_of(body),
        constraints=_format(body),
        room="fill" if body.max_output_tokens is None else "cut",
        logprobs=LogprobParams(top=top) if wanted else None,
        param="input",
    )
    if body.truncation == "auto":
        return await prepare_cut(call, ask)
    return await prepare(call, ask)


def _format(body: ResponsesRequest) -> list[Constraint]:
    match body.text.format if body.text is not None else None:
        case JsonObjectFormat():
            return [Constraint("text.format", "json_schema", ANY_OBJECT)]
        case JsonSchemaFormat(schema=schema):
            return [Constraint("text.format.schema", "json_schema", schema)]
    return []


async def _make(
    call: Call, turn: Turn, builder: ResponseBuilder, items: Items, before: Items
) -> AsyncGenerator[list[Event], None]:
    """The events of a response, those of an output together. What is stored is so at the end."""
    server, response = call.server, builder.response
    key = (call.tenant.name, response["id"])
    reader, texts = turn.plan.reader(), TokenTexts(server.tokenizer)
    async with call.generate([turn.request]) as generation:
        rid = generation.requests[0].rid
        await generation.first()
        server.responses.running[key] = Running(response, lambda: server.engine.abort(rid))
        try:
            yield builder.begin()
            async for said, output in steps(generation, reader):
                events = list(_said(builder, said, token_logprobs(texts, output)))
                if output.finish is not None:
                    events += _end(builder, output.finish, output.usage)
                if events:
                    yield events
        finally:
            del server.responses.running[key]
    if response["store"]:
        server.responses.put(call.tenant.name, response, items, before)


async def _sent(
    making: AsyncGenerator[list[Event], None], builder: ResponseBuilder
) -> AsyncGenerator[bytes, None]:
    """The same as bytes; what fails after its beginning is told as a response that has failed."""
    begun = False
    async with aclosing(making):
        try:
            async for events in making:
                begun = True
                yield b"".join(map(typed_event, events))
        except SglError as error:
            if not begun:
                raise
            told = {"code": "server_error", "message": api_error(error).message}
            yield b"".join(map(typed_event, builder.end("failed", error=told)))


def _failure(error: ApiError) -> bytes:
    return typed_event({"type": "error", "code": error.code, "message": error.message, "param": error.param})


def _said(builder: ResponseBuilder, said: Sequence[Said], logprobs: list[dict[str, Any]]) -> Iterator[Event]:
    for each in said:
        match each.kind:
            case "call":
                yield from builder.call(each.text)
            case "arguments":
                yield from builder.arguments(each.text)
            case _:
                yield from builder.text(each.text, logprobs)
                logprobs = []
    if logprobs and builder.in_text:
        yield from builder.text("", logprobs)


def _end(builder: ResponseBuilder, finish: FinishReason, usage: Usage) -> list[Event]:
    match finish.type:
        case "length":
            return builder.end("incomplete", usage, reason="max_output_tokens")
        case "abort":
            return builder.end("cancelled", usage)
    return builder.end("completed", usage)


def _object(call: Call, body: ResponsesRequest) -> dict[str, Any]:
    """Everything that a body says about its response, and what is not known yet."""
    form = body.text.format if body.text is not None else None
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "model": call.server.config.model_name,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": msgspec.to_builtins(form or TextFormat()), "verbosity": "medium"},
        "tool_choice": msgspec.to_builtins(body.tool_choice) or "auto",
        "tools": msgspec.to_builtins(body.tools or []),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }


ROUTES = (
    Route(
        "POST",
        "/v1/responses",
        create_response,
        "Make a response",
        body=ResponsesRequest,
        response=ResponseAnswer,
        streams=True,
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        count_input,
        "Count the tokens of a response's input",
        body=ResponsesRequest,
        response=InputTokensAnswer,
    ),
    *KEPT,
)
