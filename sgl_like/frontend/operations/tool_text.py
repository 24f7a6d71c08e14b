"""Telling the model of its tools, in the form of the backend's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgl_like.frontend.backend.base import PLAIN_TOOL_FORM
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.tools.tool_text import ToolInstructions

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["AppendToolInstructions"]


class AppendToolInstructions(Operation):
    """Add the text."""

    def __init__(self, node: ToolInstructions) -> None:
        super().__init__(node.label)
        self._node = node

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        form = None if at.prompt.role is None else at.context.backend.tool_form
        text = self._node.text(form or PLAIN_TOOL_FORM)
        at.prompt.append_given(text)
        at.emit(text)
        return True
