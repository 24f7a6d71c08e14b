"""Given text and the borders of messages: operations that are done at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgl_like.frontend.operations.base import Operation

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["AppendText", "CloseRole", "OpenRole"]


class AppendText(Operation):
    """Add given text."""

    def __init__(self, label: str, text: str) -> None:
        super().__init__(label)
        self._text = text

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        at.emit(at.prompt.append_given(self._text))
        return True


class OpenRole(Operation):
    """Begin a message."""

    def __init__(self, label: str, role: str) -> None:
        super().__init__(label)
        self._role = role

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        prefix, suffix = at.context.backend.role_affixes(at.prompt.messages, self._role)
        at.emit(at.prompt.open_role(self._role, prefix, suffix))
        return True


class CloseRole(Operation):
    """End the open message."""

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        at.emit(at.prompt.close_role())
        return True
