"""``fork`` and ``join``: states that go on side by side from one point, and come together again.

Both are operations in the parent's queue, so neither blocks the program: a fork starts its children when the
parent gets there, a join waits (without a thread) until they have nothing left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.variables import Variable

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Fork", "Join"]


class Fork(Operation):
    """Start the children from the parent's prompt."""

    def __init__(self, children: Sequence[Interpreter]) -> None:
        super().__init__(f"fork({len(children)})")
        self._children = children

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        at.prompt.log.forked(self._children)
        for child in self._children:
            child.adopt(at.prompt.copy(), "".join(at.chunks))
        return True

    def drop(self, error: ProgramError) -> None:
        """The children fail with the parent."""
        for child in self._children:
            child.fail(error)


Gathered = tuple[Variable, Sequence[Variable | None]]
"""A parent's variable, and those of the children (``None`` where a child has no such variable)."""


class Join(Operation):
    """Wait for the children; then gather their variables, append their texts, or do both for one of them.

    Args:
        children: the forks, in order.
        gathered: variables whose values become lists.
        append: children whose texts are put after the parent's, in order.
        copied: variables that become as they are in one child.
        required: children whose failure is the parent's; another that has failed has no text to append.
    """

    def __init__(
        self,
        children: Sequence[Interpreter],
        *,
        gathered: Sequence[Gathered] = (),
        append: Sequence[Interpreter] = (),
        copied: Sequence[tuple[Variable, Variable]] = (),
        required: Sequence[Interpreter],
    ) -> None:
        super().__init__("join()", *(variable for variable, _ in (*gathered, *copied)))
        self.children = children
        self._gathered = gathered
        self._append = append
        self._copied = copied
        self._required = required
        self._next = 0  # children before this one have nothing left to do

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        while self._next < len(self.children):
            child = self.children[self._next]
            if not child.call_when_idle(partial(at.guarded, self, self._on_idle, None)):
                return False
            self._next += 1
        for number, child in enumerate(self.children):
            if child.error is not None and child in self._required:
                raise ProgramError(
                    f"fork {number} of {len(self.children)} failed: {child.error}"
                ) from child.error
        at.prompt.log.joined(self.children, "concate_and_append" if self._append else "gather_variable")
        self._append_texts(at, [child for child in self._append if child.error is None])
        for variable, sources in self._gathered:
            values: list[Any] = [None if source is None else source.value for source in sources]
            at.give(variable, values)
        for variable, source in self._copied:
            variable.chunks.extend(source.chunks)
            at.give(variable, source.value, source.meta)
        for child in self.children:
            at.children.remove(child)
        return True

    def cancel(self, error: ProgramError) -> None:
        """The children stop with the parent."""
        for child in self.children:
            child.fail(error)

    def _on_idle(self, at: Interpreter, _: None) -> None:
        if self.start(at):
            at.finish(self)

    def _append_texts(self, at: Interpreter, children: Sequence[Interpreter]) -> None:
        for child in children:
            if not child.prompt.is_extension_of(at.prompt):
                raise ProgramError(
                    f"fork {self.children.index(child)} and its parent must be in the message they parted in for"
                    " the fork's text to be put after the parent's, but a message was ended or begun since"
                )
        for child in children:
            pieces, messages = child.prompt.grown()
            at.prompt.append_pieces(pieces)
            at.prompt.messages.extend(messages)
            at.emit("".join(piece.text for piece in pieces))
