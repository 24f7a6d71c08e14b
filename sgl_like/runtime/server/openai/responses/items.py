"""Items of a conversation: read from bodies, named, and as the messages that chat templates are written for."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from sgl_like.runtime.server.http.bodies import convert
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.openai.responses.bodies import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    MessageItem,
    Part,
    ReasoningItem,
    ResponsesRequest,
)

_TYPES: dict[str, type[Item]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "reasoning": ReasoningItem,
}
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_TEXTS = ("input_text", "output_text", "text", "refusal")


def new_id(kind: str) -> str:
    """A fresh id, whose beginning says what it is of."""
    return f"{kind}_{uuid.uuid4().hex}"


def input_items(body: ResponsesRequest) -> list[dict[str, Any]]:
    """The items that a request adds to its conversation, each with an id.

    Raises:
        ApiError: 400: an item is malformed, or of a type that does not exist here.
    """
    given = body.input
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": given}] if given else []
    found = []
    for at, item in enumerate(given):
        where = f"input[{at}]"
        kind = item.get("type", "message")
        if not isinstance(kind, str) or kind not in _TYPES:
            allowed = ", ".join(map(repr, _TYPES))
            raise bad_request(f"{where}.type must be one of {allowed}, not {kind!r}", f"{where}.type")
        read = convert(item, _TYPES[kind], where)
        found.append(_shown(read, where))
    return found


def messages_of(items: Sequence[dict[str, Any]], instructions: str | None) -> list[dict[str, Any]]:
    """Items as OpenAI's chat messages. Calls one after another, and the text before them, are one message.

    Raises:
        ApiError: 400: a result has no call before it.
    """
    found: list[dict[str, Any]] = []
    if instructions is not None:
        found.append({"role": "system", "content": instructions})
    called: dict[str, str] = {}
    for item in items:
        match item["type"]:
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]
                content = "".join(_text(part) for part in item["content"])
                if found and role == "system" == found[-1]["role"]:  # many templates show one only
                    found[-1]["content"] += f"\n\n{content}"
                else:
                    found.append({"role": role, "content": content})
            case "function_call":
                called[item["call_id"]] = item["name"]
                if not found or found[-1]["role"] != "assistant":
                    found.append({"role": "assistant", "content": ""})
                function = {"name": item["name"], "arguments": _arguments(item["arguments"])}
                call = {"id": item["call_id"], "type": "function", "function": function}
                found[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                found.append(_result(item, called))
    return found


def _arguments(text: str) -> Any:
    """An object; what is none, as of a call that was cut off, stays text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, dict) else text


def _result(item: dict[str, Any], called: dict[str, str]) -> dict[str, Any]:
    call_id, output = item["call_id"], item["output"]
    if call_id not in called:
        raise bad_request(f"input: no function_call before its output has the call_id {call_id!r}", "input")
    content = output if isinstance(output, str) else "".join(_text(part) for part in output)
    return {"role": "tool", "tool_call_id": call_id, "name": called[call_id], "content": content}


def _shown(item: Item, where: str) -> dict[str, Any]:
    """An item as it is kept and shown: with an id, and text as parts."""
    id_ = item.id or new_id(_PREFIXES[item.type])
    match item:
        case MessageItem():
            kind = "output_text" if item.role == "assistant" else "input_text"
            parts = [Part(type=kind, text=item.content)] if isinstance(item.content, str) else item.content
            content = [_part(part, kind, f"{where}.content[{at}]") for at, part in enumerate(parts)]
            return {
                "type": item.type,
                "id": id_,
                "status": "completed",
                "role": item.role,
                "content": content,
            }
        case FunctionCallItem():
            return {
                "type": item.type,
                "id": id_,
                "status": "completed",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutputItem():
            output: Any = item.output
            if not isinstance(output, str):
                output = [
                    _part(part, "input_text", f"{where}.output[{at}]") for at, part in enumerate(output)
                ]
            return {
                "type": item.type,
                "id": id_,
                "status": "completed",
                "call_id": item.call_id,
                "output": output,
            }
        case ReasoningItem():
            return {"type": item.type, "id": id_, "summary": []}


def _part(part: Part, kind: str, where: str) -> dict[str, Any]:
    if part.type not in _TEXTS:
        raise bad_request(f"{where}: the model reads text only, no {part.type!r}", f"{where}.type")
    name = "refusal" if part.type == "refusal" else "text"
    text = getattr(part, name)
    if text is None:
        raise bad_request(f"{where}.{name} is missing", f"{where}.{name}")
    if name == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": kind, "text": text} | ({"annotations": []} if kind == "output_text" else {})


def _text(part: dict[str, Any]) -> str:
    text: str = part.get("text") or part.get("refusal") or ""
    return text
