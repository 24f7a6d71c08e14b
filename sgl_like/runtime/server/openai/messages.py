"""Messages and tools of chats, and what chat templates get of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import orjson

from sgl_like.runtime.server.chat.plan import ToolUse
from sgl_like.runtime.server.chat.tool_use import Choice, make_tool_use
from sgl_like.runtime.server.http.errors import bad_request

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]
_TEXTS = ("text", "input_text", "output_text", "refusal")


class ContentPart(msgspec.Struct, kw_only=True):
    """A part of a message's content. Only texts can be read here."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(msgspec.Struct, kw_only=True):
    """Which function was called, and with what: a JSON object as text."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct, kw_only=True):
    """A call that an earlier answer had in it."""

    function: FunctionCall
    id: str | None = None
    type: Literal["function"] = "function"


class Message(msgspec.Struct, kw_only=True):
    """A message. ``developer`` is read as ``system``, and ``function`` as ``tool``."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Function(msgspec.Struct, kw_only=True):
    """A function that the model may call. Its arguments are held to `parameters`, strict or not."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A tool; there are only functions."""

    function: Function
    type: Literal["function"] = "function"


class Named(msgspec.Struct, kw_only=True):
    """A function's name."""

    name: str


class AllowedTool(msgspec.Struct, kw_only=True):
    """One of the tools that may be called."""

    function: Named
    type: Literal["function"] = "function"


class AllowedTools(msgspec.Struct, kw_only=True):
    """Some of the tools."""

    tools: Annotated[list[AllowedTool], msgspec.Meta(min_length=1)]
    mode: Literal["auto", "required"] = "auto"


class ToolChoice(msgspec.Struct, kw_only=True):
    """One function, which has to be called, or some of them."""

    type: Literal["function", "allowed_tools"] = "function"
    function: Named | None = None
    allowed_tools: AllowedTools | None = None


ToolChoices = Literal["none", "auto", "required"] | ToolChoice | None


def template_messages(messages: Sequence[Message], param: str = "messages") -> list[dict[str, Any]]:
    """Messages as chat templates expect them: contents are texts, arguments of calls are objects.

    Raises:
        ApiError: 400: a content is no text, or arguments are no JSON object.
    """
    return [_message(message, f"{param}[{at}]") for at, message in enumerate(messages)]


def _message(message: Message, where: str) -> dict[str, Any]:
    role: str = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    if message.content is None and role not in ("assistant", "tool"):
        raise bad_request(f"{where}.content is missing", param=f"{where}.content")
    found: dict[str, Any] = {"role": role, "content": _text(message, f"{where}.content")}
    if message.name is not None:
        found["name"] = message.name
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    reasoning = message.reasoning_content or message.reasoning
    if reasoning is not None:
        found["reasoning_content"] = reasoning
    calls = list(message.tool_calls or ())
    if message.function_call is not None:
        calls.append(ToolCall(function=message.function_call))
    if calls:
        found["tool_calls"] = [_call(each, f"{where}.tool_calls[{at}]") for at, each in enumerate(calls)]
    return found


def _text(message: Message, where: str) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or message.refusal or ""
    texts = []
    for at, part in enumerate(content):
        text = part.text if part.text is not None else part.refusal
        if part.type not in _TEXTS or text is None:
            raise bad_request(
                f"{where}[{at}]: a part of type {part.type[:64]!r} cannot be read; the model here reads text only",
                param=f"{where}[{at}]",
            )
        texts.append(text)
    return "\n".join(texts)


def _call(call: ToolCall, where: str) -> dict[str, Any]:
    arguments = call.function.arguments
    if not isinstance(arguments, dict):
        try:
            arguments = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            arguments = None
        if not isinstance(arguments, dict):
            param = f"{where}.function.arguments"
            raise bad_request(f"{param} must be a JSON object as text", param=param)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or "call_0", "type": "function", "function": function}


def tool_use(tools: Sequence[Tool] | None, choice: ToolChoices, parallel: bool) -> ToolUse | None:
    """Which functions there are and which may be called.

    Raises:
        ApiError: 400.
    """
    given = [{"type": "function", "function": _function(tool.function)} for tool in tools or ()]
    return make_tool_use(given, _choice(choice, parallel), tool="tools[{}].function.name")


def _function(function: Function) -> dict[str, Any]:
    found: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        found["description"] = function.description
    if function.parameters is not None:
        found["parameters"] = function.parameters
    return found


def _choice(choice: ToolChoices, parallel: bool) -> Choice:
    if choice is None or isinstance(choice, str):
        return Choice(choice or "auto", None, parallel)
    if choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise bad_request("tool_choice.allowed_tools is missing", param="tool_choice.allowed_tools")
        names = [each.function.name for each in choice.allowed_tools.tools]
        return Choice(choice.allowed_tools.mode, names, parallel)
    if choice.function is None:
        raise bad_request("tool_choice.function is missing", param="tool_choice.function")
    return Choice("required", [choice.function.name], parallel=False)
