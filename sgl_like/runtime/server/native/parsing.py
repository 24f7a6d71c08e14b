"""Texts that were generated elsewhere, taken apart as chat completions are: reasoning, calls of functions, the rest."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from sgl_like.runtime.reasoning import make_splitter
from sgl_like.runtime.server.chat.forms import call_form
from sgl_like.runtime.server.chat.reading import AnswerReader, Said
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route


class CallsBody(msgspec.Struct, kw_only=True):
    """The body of ``/parse_function_call``.

    Args:
        text: what a model has written.
        tools: the functions, as in a chat completion. What names another one is text.
        tool_call_parser: SGLang's name for a form of calls; calls are looked for in the form of this model's template,
            whatever it is.
    """

    text: str
    tools: list[dict[str, Any]]
    tool_call_parser: str | None = None


class FoundCall(msgspec.Struct, kw_only=True):
    """The call of a function.

    Args:
        tool_index: which of the calls it is.
        name: of the function.
        parameters: its arguments as JSON text.
    """

    tool_index: int
    name: str
    parameters: str


class FoundCalls(msgspec.Struct, kw_only=True):
    """What is in a text: calls, and what is none."""

    normal_text: str
    calls: list[FoundCall]


class ReasoningBody(msgspec.Struct, kw_only=True):
    """The body of ``/separate_reasoning``.

    Args:
        text: what a model has written.
        reasoning_parser: the model's family; ``None``: any whose reasoning stands between tags.
    """

    text: str
    reasoning_parser: str | None = None


class Separated(msgspec.Struct, kw_only=True):
    """What the model thought, and what it answers."""

    reasoning_text: str
    text: str


async def parse_function_call(call: Call) -> web.StreamResponse:
    """Find the calls in a text."""
    body = await call.body(CallsBody)
    names = []
    for at, tool in enumerate(body.tools):
        function = tool.get("function", tool)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise bad_request(f"tools[{at}] must be a function with a name", param=f"tools[{at}]")
        names.append(name)
    reader = AnswerReader(call_form(call.server.tokenizer) if names else None, names)
    said = await asyncio.to_thread(reader.feed, body.text, True)
    count = 1 + max((each.call for each in said if each.kind == "call"), default=-1)
    calls = [
        FoundCall(
            tool_index=at, name=_joined(said, "call", at), parameters=_joined(said, "arguments", at)
        )
        for at in range(count)
    ]  # fmt: skip
    return json_response(FoundCalls(normal_text=_joined(said, "text").strip(), calls=calls))


async def separate_reasoning(call: Call) -> web.StreamResponse:
    """Tell what the model thought from what it answers."""
    body = await call.body(ReasoningBody)
    reader = AnswerReader(splitter=make_splitter(body.reasoning_parser, ""))
    said = await asyncio.to_thread(reader.feed, body.text, True)
    return json_response(Separated(reasoning_text=_joined(said, "reasoning"), text=_joined(said, "text")))


def _joined(said: list[Said], kind: str, call: int | None = None) -> str:
    return "".join(each.text for each in said if each.kind == kind and call in (None, each.call))


ROUTES = (
    Route(
        "POST", "/parse_function_call", parse_function_call, "Find the calls in a text (SGLang)",
        body=CallsBody, response=FoundCalls,
    ),
    Route(
        "POST", "/separate_reasoning", separate_reasoning, "Tell reasoning from the answer (SGLang)",
        body=ReasoningBody, response=Separated,
    ),
)  # fmt: skip
