"""What stands for a gen or select in a trace: an operation that answers itself, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sgl_like.errors import TraceError
from sgl_like.frontend.backend.base import Segment
from sgl_like.frontend.expr import Gen, Select
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.outputs.separation import reasoning_name
from sgl_like.frontend.outputs.values import GenText
from sgl_like.frontend.variables import Variable

if TYPE_CHECKING:
    from sgl_like.frontend.inspect.trace import TraceNode
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Answer"]

_META = {"finish_reason": {"type": "stop"}}


class Answer(Operation):
    """Gives a gen or select a value, and puts it into the prompt as a run would.

    Args:
        node: the gen or select.
        step: notes the prompt that a run would send.
        value: text, an unknown value, or for a gen with ``n`` a list of them. Text with ``token_ids`` is taken for
            these tokens; other text is tokenised by itself, as the model most likely would have written it.
        thoughts: for a gen whose reasoning is separated, that.

    Raises:
        TraceError: it can have no such value.
    """

    def __init__(self, node: Gen | Select, step: TraceNode, value: Any, thoughts: Any = None) -> None:
        separated = isinstance(node, Gen) and node.make_splitter is not None
        apart = [Variable(reasoning_name(node.name))] if separated else []
        super().__init__(node.label, Variable(node.name), *apart)
        self._node = node
        self._step = step
        self._values = (value, thoughts)
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        self._text = str(first)
        self._ids = getattr(value, "token_ids", None) if isinstance(first, str) else None
        if isinstance(first, (bytes, bool, int, float, dict, list, tuple, type(None))):
            raise TraceError(
                f"values[{node.name!r}] must be text, as the model would write it, not {value!r}"
            )
        if isinstance(node, Select) and isinstance(first, str) and first not in node.choices:
            raise TraceError(f"values[{node.name!r}] is {first!r}, which is none of its choices")

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        prompt, backend = at.prompt, at.context.backend
        at.emit(prompt.begin_content(given=isinstance(self._node, Select)))
        self._step.prompt = "".join(piece.text for piece in prompt.pieces)
        if isinstance(self._node, Select):
            trusted, tail = prompt.role is None, prompt.settle(backend)
            self._step.prompt_ids = tuple(prompt.continued(backend, tail))
            prompt.append_joint(
                self._text, trusted, prompt.continued(backend, [*tail, Segment(self._text, trusted)])
            )
        else:
            self._step.prompt_ids = tuple(prompt.encode(backend))
            self._close_reasoning(at)
            prompt.encode(backend)
            ids = backend.encode([Segment(self._text, False)]) if self._ids is None else self._ids
            prompt.append_sampled(self._text, tuple(ids))
        at.emit(self._text, self.variables[0])
        for variable, value in zip(self.variables, self._values, strict=False):
            at.give(variable, self._typed(at, value), _META)
        return True

    def _typed(self, at: Interpreter, value: Any) -> Any:
        """A given text as what a run would give: it can be parsed."""
        if isinstance(value, (list, tuple)):
            return [self._typed(at, each) for each in value]
        if not isinstance(self._node, Gen) or not isinstance(value, str) or isinstance(value, GenText):
            return value
        ids = at.context.backend.encode([Segment(value, trusted=False)]) if value else []
        return GenText(value, ids, _META, self._node.output_type)

    def _close_reasoning(self, at: Interpreter) -> None:
        """End reasoning that the prompt has opened, as `Generate` does when it leaves it out."""
        make = self._node.make_splitter if isinstance(self._node, Gen) else None
        splitter = make and make(at.prompt.tail(64))
        if splitter is not None and splitter.opened is not None:
            markup = splitter.opened.end + "\n\n"
            at.prompt.append_markup(markup)
            at.emit(markup)
