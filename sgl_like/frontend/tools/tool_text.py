"""``tool_instructions``: what a model is told of the functions that it may call, as text for a message."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sgl_like.frontend.backend.base import ToolForm
from sgl_like.frontend.expr import Node
from sgl_like.frontend.tools.tools import Tool, make_tools

__all__ = ["ToolInstructions", "tool_instructions"]


@dataclass(frozen=True, repr=False)
class ToolInstructions(Node):
    """Names, descriptions and schemas of tools, and how to call one."""

    tools: tuple[Tool, ...]

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"tool_instructions({', '.join(tool.name for tool in self.tools)})"

    def text(self, form: ToolForm) -> str:
        """The text, for a model that writes calls in this form."""
        lines = [
            "You can call these functions. Each has a name, a description, and a JSON Schema of its arguments:",
            *(json.dumps(tool.definition["function"], ensure_ascii=False) for tool in self.tools),
            "To call one, write:",
            f"{form.before.strip()}NAME{form.between}ARGUMENTS",
            "You will get the result, and can go on.",
        ]
        return "\n".join(lines)


def tool_instructions(tools: Sequence[Callable[..., Any]]) -> ToolInstructions:
    """Text that tells the model of `tools`, to be put into a system message before the ``gen`` that has them.

    It has their names, what their docstrings say, their arguments, and how a call is written: in the form of the
    model's chat template, or plain.

    Raises:
        SamplingParamsError: as for ``gen(tools=...)``.
    """
    return ToolInstructions(tuple(make_tools(tools)))
