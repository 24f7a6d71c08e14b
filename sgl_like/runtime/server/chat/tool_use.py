"""Which functions there are and which may be called, checked, from what the APIs call tools and tool choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sgl_like.runtime.server.chat.plan import MAX_TOOLS, NAME, ToolUse
from sgl_like.runtime.server.http.errors import bad_request


class Choice(NamedTuple):
    """What the client wants of its functions.

    Args:
        mode: whether one is called at all.
        only: names of those that may be called; ``None``: all.
        parallel: whether several may be.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    only: Sequence[str] | None = None
    parallel: bool = True


def make_tool_use(
    tools: Sequence[Mapping[str, Any]],
    choice: Choice,
    *,
    tool: str = "tools[{}].name",
    param: str = "tool_choice",
) -> ToolUse | None:
    """The use of functions; ``None`` if there are none.

    Args:
        tools: in OpenAI's format.
        choice: among them.
        tool: what the client calls the name of a tool, with a place for its number.
        param: what the client calls the choice.

    Raises:
        ApiError: 400.
    """
    names = [each["function"]["name"] for each in tools]
    if len(names) > MAX_TOOLS:
        raise bad_request(f"tools: at most {MAX_TOOLS}, not {len(names)}", param="tools")
    for at, name in enumerate(names):
        where = tool.format(at)
        if NAME.fullmatch(name) is None:
            raise bad_request(
                f"{where} must be at most 64 letters, digits, '_', '-' and '.', not {name!r}", param=where
            )
        if name in names[:at]:
            raise bad_request(f"{where}: {name!r} is there twice", param=where)
    only = names if choice.only is None else list(dict.fromkeys(choice.only))
    for name in only:
        if name not in names:
            raise bad_request(f"{param}: there is no tool {name!r}", param=param)
    if choice.mode == "required" and not only:
        raise bad_request(f"{param} demands a call, but there are no tools", param=param)
    if not names:
        return None
    callable_ = [] if choice.mode == "none" else only
    return ToolUse(tools, callable_, choice.mode == "required", choice.parallel)
