"""``/api/chat``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from sgl_like.runtime.server.chat.single import Ask, prepare
from sgl_like.runtime.server.chat.tool_use import Choice, make_tool_use
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.ollama.answers import Shape, answer, loaded
from sgl_like.runtime.server.ollama.bodies import ChatAnswer, ChatRequest, Message, Options, Tool
from sgl_like.runtime.server.ollama.errors import ollama_body
from sgl_like.runtime.server.ollama.lines import MEDIA
from sgl_like.runtime.server.ollama.options import (
    NAMES,
    check_model,
    check_thinking,
    format_of,
    logprobs_of,
    room_of,
    values_of,
)


async def chat(call: Call) -> web.StreamResponse:
    """Answer a conversation."""
    body = await call.body(ChatRequest)
    check_model(call, body.model)
    shape = Shape(body.model, chat=True)
    if not body.messages:
        return loaded(body, shape)
    check_thinking(call, body)
    options = body.options or Options()
    last = body.messages[-1]
    turn = await prepare(
        call,
        Ask(
            messages=messages_of(body.messages),
            values=values_of(options),
            names=NAMES,
            use=make_tool_use(
                [_tool(tool) for tool in body.tools or ()], Choice(), tool="tools[{}].function.name"
            ),
            constraints=format_of(body),
            room=room_of(options),
            logprobs=logprobs_of(call, body),
            resume=last.role == "assistant" and not last.tool_calls,
        ),
    )
    return await answer(call, body, turn.request, turn.plan.reader(), shape)


def messages_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation in OpenAI's format. Calls have no ids here: a result is of the last call of its function.

    Raises:
        ApiError: 400: there are pictures.
    """
    found: list[dict[str, Any]] = []
    ids: dict[str, str] = {}
    for at, message in enumerate(messages):
        if message.images:
            raise bad_request(
                f"messages[{at}].images: the model reads text only", param=f"messages[{at}].images"
            )
        one: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "tool":
            name = message.tool_name or next(reversed(ids), "")
            one |= {"name": name, "tool_call_id": message.tool_call_id or ids.get(name, "")}
        elif message.role == "assistant" and message.tool_calls:
            one["tool_calls"] = []
            for number, each in enumerate(message.tool_calls):
                name, arguments = each.function.name, each.function.arguments
                id = ids[name] = each.id or f"call_{at}_{number}"
                function = {"name": name, "arguments": arguments}
                one["tool_calls"].append({"id": id, "type": "function", "function": function})
        found.append(one)
    return found


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.function.name, "description": tool.function.description}
    if tool.function.parameters is not None:
        function["parameters"] = tool.function.parameters
    return {"type": "function", "function": function}


ROUTES = (
    Route(
        "POST",
        "/api/chat",
        chat,
        "Answer a conversation (Ollama)",
        body=ChatRequest,
        response=ChatAnswer,
        error_body=ollama_body,
        streams=True,
        media=MEDIA,
    ),
)
