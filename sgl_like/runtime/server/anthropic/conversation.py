"""Anthropic's conversations as OpenAI's, which is what chat templates are written for.

user      text, tool_result, ...   ──>  tool messages with the results, then a user message with the texts
assistant text, tool_use, ...      ──>  one assistant message with text and tool_calls
system                             ──>  a system message in front
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgl_like.runtime.server.anthropic.bodies import (
    Block,
    Conversation,
    DocumentBlock,
    ImageBlock,
    InputMessage,
    RedactedThinkingBlock,
    ResultPart,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolChoiceAny,
    ToolChoiceAuto,
    ToolChoiceNone,
    ToolChoiceTool,
    ToolResultBlock,
    ToolUseBlock,
)
from sgl_like.runtime.server.chat.plan import ToolUse
from sgl_like.runtime.server.chat.tool_use import Choice, make_tool_use
from sgl_like.runtime.server.http.errors import bad_request

_CUSTOM = (None, "custom")


def messages_of(body: Conversation) -> list[dict[str, Any]]:
    """The conversation in OpenAI's format; turns of the same role one after another are one.

    Raises:
        ApiError: 400: something in it is not text, or a result has no call before it.
    """
    found: list[dict[str, Any]] = []
    if body.system is not None:
        text = body.system if isinstance(body.system, str) else "\n".join(part.text for part in body.system)
        found.append({"role": "system", "content": text})
    called: dict[str, str] = {}
    for at, message in enumerate(body.messages):
        for one in _turns(message, f"messages[{at}].content", called):
            last = found[-1] if found else None
            if last is not None and last["role"] == one["role"] in ("user", "assistant"):
                _join(last, one)
            else:
                found.append(one)
    return found


def is_prefilled(body: Conversation) -> bool:
    """Whether the answer goes on from what the last message, one of the assistant, says."""
    last = body.messages[-1]
    if last.role != "assistant":
        return False
    return isinstance(last.content, str) or not any(isinstance(part, ToolUseBlock) for part in last.content)


def tools_of(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """The functions in OpenAI's format.

    Raises:
        ApiError: 400: a tool of Anthropic's own, which nobody here can run.
    """
    found = []
    for at, tool in enumerate(tools or ()):
        where = f"tools[{at}]"
        if tool.type not in _CUSTOM:
            raise bad_request(
                f"{where}.type: only custom tools exist here, not {tool.type!r}", f"{where}.type"
            )
        if tool.input_schema is None:
            raise bad_request(f"{where}.input_schema is missing", f"{where}.input_schema")
        function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
        found.append({"type": "function", "function": function})
    return found


def tool_use_of(body: Conversation) -> ToolUse | None:
    """What a body says of tools; ``None`` if it has none.

    Raises:
        ApiError: 400: see `tools_of`; or the choice is of a tool that is not there.
    """
    tools, choice = tools_of(body.tools), body.tool_choice
    match choice:
        case ToolChoiceNone():
            wanted = Choice("none")
        case ToolChoiceTool(name=name):
            wanted = Choice("required", [name], parallel=False)
        case ToolChoiceAny():
            wanted = Choice("required", None, not choice.disable_parallel_tool_use)
        case ToolChoiceAuto():
            wanted = Choice("auto", None, not choice.disable_parallel_tool_use)
        case None:
            wanted = Choice()
    return make_tool_use(tools, wanted)


def _turns(message: InputMessage, where: str, called: dict[str, str]) -> list[dict[str, Any]]:
    """The messages that one turn is; `called` are the names of the functions called so far, by the call's id."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    results: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    texts: list[str] = []
    for at, part in enumerate(message.content):
        match part:
            case TextBlock():
                texts.append(part.text)
            case ToolUseBlock() if message.role == "assistant":
                called[part.id] = part.name
                calls.append(_call(part))
            case ToolResultBlock() if message.role == "user":
                results.append(_result(part, f"{where}[{at}]", called))
            case ThinkingBlock() | RedactedThinkingBlock():
                pass
            case _:
                raise _refusal(part, f"{where}[{at}]", message.role)
    if not texts and not calls:
        return results or [{"role": message.role, "content": ""}]
    own: dict[str, Any] = {"role": message.role, "content": "\n".join(texts)}
    if calls:
        own["tool_calls"] = calls
    return [*results, own]


def _call(part: ToolUseBlock) -> dict[str, Any]:
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.input}}


def _result(part: ToolResultBlock, where: str, called: dict[str, str]) -> dict[str, Any]:
    if part.tool_use_id not in called:
        raise bad_request(
            f"{where}.tool_use_id: no tool_use block before it has the id {part.tool_use_id!r}",
            f"{where}.tool_use_id",
        )
    texts = [part.content] if isinstance(part.content, str) else _texts(part.content, f"{where}.content")
    content = "\n".join(texts)
    return {
        "role": "tool",
        "tool_call_id": part.tool_use_id,
        "name": called[part.tool_use_id],
        "content": f"Error: {content}" if part.is_error else content,
    }


def _texts(parts: Sequence[ResultPart], where: str) -> list[str]:
    texts = []
    for at, part in enumerate(parts):
        if not isinstance(part, TextBlock):
            raise _refusal(part, f"{where}[{at}]", "tool_result")
        texts.append(part.text)
    return texts


def _refusal(part: Block, where: str, place: str) -> Exception:
    kind = part.__struct_config__.tag
    if isinstance(part, ImageBlock | DocumentBlock):
        return bad_request(f"{where}: the model reads text only, no {kind}", where)
    return bad_request(f"{where}: no {kind} block is allowed in a {place} message", where)


def _join(last: dict[str, Any], one: dict[str, Any]) -> None:
    last["content"] = "\n".join(text for text in (last["content"], one["content"]) if text)
    if "tool_calls" in one:
        last["tool_calls"] = [*last.get("tool_calls", ()), *one["tool_calls"]]
