"""Functions of a response: which there are, and which of them may be called."""

from __future__ import annotations

from typing import Any

from sgl_like.runtime.server.chat.plan import ToolUse
from sgl_like.runtime.server.chat.tool_use import Choice, make_tool_use
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.openai.responses.bodies import ResponsesRequest, Tool, ToolChoice


def tool_use_of(body: ResponsesRequest) -> ToolUse | None:
    """What a body says of functions; ``None`` if it has none.

    Raises:
        ApiError: 400: a tool is one of OpenAI's own, or the choice is among others than there are.
    """
    tools = [_function(tool, f"tools[{at}]") for at, tool in enumerate(body.tools or ())]
    return make_tool_use(tools, _choice(body))


def _function(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type != "function":
        raise bad_request(
            f"{where}.type: only functions exist here, not {tool.type!r}", param=f"{where}.type"
        )
    if tool.name is None:
        raise bad_request(f"{where}.name is missing", param=f"{where}.name")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def _choice(body: ResponsesRequest) -> Choice:
    parallel = body.parallel_tool_calls is not False
    match body.tool_choice:
        case None | "auto":
            return Choice("auto", None, parallel)
        case "none":
            return Choice("none", None, parallel)
        case "required":
            return Choice("required", None, parallel)
        case ToolChoice(type="function", name=str(name)):
            return Choice("required", [name], False)
        case ToolChoice(type="allowed_tools", mode=mode, tools=list(tools)):
            names = [tool.get("name") for tool in tools if tool.get("type") == "function"]
            return Choice(mode or "auto", [name for name in names if isinstance(name, str)], parallel)
    raise bad_request(
        "tool_choice must be 'none', 'auto', 'required', a function or allowed_tools", param="tool_choice"
    )
