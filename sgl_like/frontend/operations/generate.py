"""``gen``: the model continues the prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.expr import Gen
from sgl_like.frontend.operations.attempts import Attempts
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.sample import sum_usages, usage_dict
from sgl_like.frontend.outputs.values import GenText
from sgl_like.frontend.params import copies, derived_seed, request_params
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.view.log import GenRecord
from sgl_like.runtime.protocol import Usage
from sgl_like.runtime.reasoning import Part

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Generate"]


class Generate(Operation):
    """Submits a request, or with ``n`` so many, and takes the output into the prompt, the text and the variable.

    With ``n`` greater than 1 the value is the list of all outputs, and the program goes on with the first.

    Args:
        node: what is wanted.
        variable: for the outputs.
        place: of the gen in the program, for seeds.
        thoughts: variable for their reasoning, where it is separated.
    """

    is_model_call = True

    def __init__(
        self, node: Gen, variable: Variable, place: tuple[int, ...], thoughts: Variable | None = None
    ) -> None:
        super().__init__(node.label, variable, *(() if thoughts is None else (thoughts,)))
        self._node = node
        self._variable = variable
        self._place = place
        self._thoughts = thoughts
        self._closed = False  # reasoning that the prompt has opened
        self._outputs: list[Attempts] = []
        self._asked: Mapping[str, Any] = {}
        self._began = 0.0

    def start(self, at: Interpreter) -> bool:
        """Submit; the last output to end ends it."""
        params = request_params(at.context.defaults, self._node.params, at.context.backend)
        if "seed" not in self._node.params and params.get("seed") is not None:
            params["seed"] = derived_seed(params["seed"], self._place)
        self._asked, self._began = dict(params), time.perf_counter()
        count = copies(params)
        if count > 1:
            with at.watch.changing():
                for variable in self.variables:
                    variable.streams = [[] for _ in range(count)]
        for index in range(count):
            own = dict(params)
            if index > 0 and own.get("seed") is not None:
                own["seed"] = derived_seed(own["seed"], (index,))
            on_parts, place = partial(self._on_parts, index), (*self._place, index)
            self._outputs.append(Attempts(self, self._node, own, place, on_parts, self._on_end))
        for output in self._outputs:
            output.start(at)
        return False

    def cancel(self, error: ProgramError) -> None:
        """Stop the requests."""
        for output in self._outputs:
            output.cancel()

    def _on_parts(self, index: int, at: Interpreter, parts: Sequence[Part], meta: Mapping[str, Any]) -> None:
        """Give text to those who read it as it arrives."""
        for part in parts:
            variable = self._thoughts if part.is_reasoning else self._variable
            if index == 0 and variable is self._variable:
                if part.text:
                    self._close_reasoning(at)
                at.emit(part.text, variable)
            elif variable is not None and part.text:
                with at.watch.changing():
                    variable.streams[index].append(part.text)
        if index == 0 and at.context.stream:
            text = "".join(part.text for part in parts if not part.is_reasoning)
            at.note(self._variable, "", (text, dict(meta)))

    def _close_reasoning(self, at: Interpreter) -> None:
        """Show, once, the end of reasoning that the prompt has opened."""
        if not self._closed:
            self._closed = True
            at.emit(self._outputs[0].last.closing)

    def _on_end(self, at: Interpreter) -> None:
        values = [output.value for output in self._outputs if output.value is not None]
        if len(values) < len(self._outputs):
            return
        self._close_reasoning(at)
        samples = [output.last for output in self._outputs]
        seconds = time.perf_counter() - self._began
        refused = tuple((str(each.text), each.reason) for output in self._outputs for each in output.refused)
        records = [each.record() for each in samples]
        record = GenRecord(self._variable.name, self._asked, records, seconds, refused)
        samples[0].append_to(at.prompt, at, record)
        usage = sum_usages([output.usage for output in self._outputs])
        at.give(self._variable, _one_or_all(values), _meta(values, usage), usage)
        if self._thoughts is not None:
            at.give(self._thoughts, _one_or_all([each.reasoning for each in samples]))
        at.finish(self)
        for output in self._outputs:
            output.release()
        self._outputs = []  # which know this operation


def _one_or_all(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _meta(values: Sequence[GenText], usage: Usage) -> Mapping[str, Any]:
    metas = [value.meta for value in values]
    return metas[0] if len(metas) == 1 else {**usage_dict(usage), "samples": [dict(meta) for meta in metas]}
