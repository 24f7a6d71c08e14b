"""A gen with tools: the model writes text, or calls a function, sees its result, and goes on.

    text ... <tool_call>    up to a trigger, which is a stop string          a request with the gen's parameters
    {"name": "               given
    weather                  one of the names, by a regex                    a request, if there are several
    ", "arguments": {...}    by the JSON Schema of the function's parameters a request
    }</tool_call>...         given, with the result                          the function, on a thread of its own
    text ...                 the next round

A forced call begins behind the trigger. Nothing of a call can be invalid, and every backend that has regexes, schemas
and stop strings can do it; the prompt of each request is in its cache since the one before.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError, SamplingParamsError
from sgl_like.frontend.backend.base import PLAIN_TOOL_FORM, Segment, ToolForm, call_message, result_message
from sgl_like.frontend.expr import Gen
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.sample import Sample, sum_usages, usage_dict
from sgl_like.frontend.outputs.values import GenText
from sgl_like.frontend.params import call_params, copies, derived_seed, request_params
from sgl_like.frontend.prompt import Piece
from sgl_like.frontend.tools.tools import Tool, ToolCall, ToolUse
from sgl_like.frontend.tools.user_code import post
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.view.log import GenRecord
from sgl_like.runtime.reasoning import Part

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["GenerateWithTools"]


class GenerateWithTools(Operation):
    """Rounds of text and calls; the text of the last one is the value.

    Args:
        node: what is wanted.
        use: its tools.
        variable: for the answer.
        place: of the gen in the program, for seeds.
    """

    is_model_call = True

    def __init__(self, node: Gen, use: ToolUse, variable: Variable, place: tuple[int, ...]) -> None:
        super().__init__(node.label, variable)
        self._node = node
        self._use = use
        self._variable = variable
        self._place = place
        self._params: dict[str, Any] = {}
        self._form: ToolForm = PLAIN_TOOL_FORM
        self._in_messages = False  # calls and results are messages of their own
        self._samples: list[Sample] = []
        self._calls: list[ToolCall] = []
        self._said = ""  # in the open message, before the call
        self._began = 0.0

    def start(self, at: Interpreter) -> bool:
        """Begin with a call, if there has to be one, or with text."""
        self._params = request_params(at.context.defaults, self._node.params, at.context.backend)
        if "seed" not in self._node.params and self._params.get("seed") is not None:
            self._params["seed"] = derived_seed(self._params["seed"], self._place)
        if copies(self._params) > 1:
            raise SamplingParamsError("n must be 1 with tools")
        if at.prompt.role is not None and at.prompt.role.role == "assistant":
            form = at.context.backend.tool_form
            self._form, self._in_messages = form or PLAIN_TOOL_FORM, form is not None
        self._began = time.perf_counter()
        if self._use.forced:
            self._begin_call(at, self._form.before)
        else:
            self._ask_text(at)
        return False

    def cancel(self, error: ProgramError) -> None:
        """Stop the request in flight."""
        for sample in self._samples[-1:]:
            sample.cancel()

    # -- text ---------------------------------------------------------------------------------------------------

    def _ask_text(self, at: Interpreter) -> None:
        if len(self._calls) == self._use.max_rounds:  # this is the answer, whatever comes
            self._ask(at, self._params, partial(_show, self._variable), self._answer)
            return
        stop, ids = self._params.get("stop") or (), self._params.get("stop_token_ids") or ()
        params = {
            **self._params,
            "stop": (*((stop,) if isinstance(stop, str) else stop), self._form.trigger),
            "stop_token_ids": (*((ids,) if isinstance(ids, int) else ids), *self._trigger_ids(at)),
        }
        self._ask(at, params, partial(_show, None), self._on_text)

    def _trigger_ids(self, at: Interpreter) -> list[int]:
        """The trigger's token, where it is a special one: such a token is not seen in text."""
        backend = at.context.backend
        ids = backend.encode([Segment(self._form.trigger, trusted=True)])
        pieces = backend.token_pieces(ids) or [b""]
        return ids if len(ids) == 1 and isinstance(pieces[0], str) else []

    def _on_text(self, at: Interpreter, sample: Sample) -> None:
        if sample.finish.matched in (self._form.trigger, *self._trigger_ids(at)):
            self._keep(at, sample)
            self._begin_call(at, self._form.before[self._form.before.index(self._form.trigger) :])
        else:
            event = (sample.text, sample.meta()) if at.context.stream else None
            at.note(self._variable, sample.text, event)
            self._answer(at, sample)

    def _answer(self, at: Interpreter, sample: Sample) -> None:
        ids = sample.kept_ids(at)
        self._keep(at, sample)
        usage = sum_usages([each.usage for each in self._samples])
        calls = [call.as_dict() for call in self._calls]
        meta = {**sample.meta(), **usage_dict(usage), "tool_calls": calls}
        value = GenText(sample.text, ids, meta, tool_calls=self._calls)
        at.give(self._variable, value, dict(meta), usage)
        at.finish(self)

    # -- a call -------------------------------------------------------------------------------------------------

    def _begin_call(self, at: Interpreter, opening: str) -> None:
        self._said = at.prompt.said.rstrip()
        self._give(at, Piece(opening, trusted=True))
        if len(self._use.tools) == 1:
            (tool,) = self._use.tools.values()
            self._give(at, Piece(tool.name, trusted=False))
            self._ask_arguments(at, tool)
            return
        names = "|".join(map(re.escape, self._use.tools))
        longest = max(map(len, self._use.tools))
        params = call_params(self._params, at.context.backend, regex=names, max_new_tokens=longest)
        self._ask(at, params, partial(_show, None), self._on_name)

    def _on_name(self, at: Interpreter, sample: Sample) -> None:
        self._keep(at, sample)
        self._ask_arguments(at, self._use.tools[sample.text])

    def _ask_arguments(self, at: Interpreter, tool: Tool) -> None:
        self._give(at, Piece(self._form.between, trusted=True))
        held: dict[str, Any] = {"json_schema": dict(tool.parameters)}
        if self._in_messages and "whitespace" in at.context.backend.supported_params:
            held["whitespace"] = "any"  # as the model has learnt to write it
        params = call_params(self._params, at.context.backend, **held)
        self._ask(at, params, partial(_show, None), partial(self._on_arguments, tool))

    def _on_arguments(self, tool: Tool, at: Interpreter, sample: Sample) -> None:
        self._keep(at, sample)
        text, call_id = sample.text, f"call{len(self._calls):05}"
        post(lambda: at.guarded(self, self._on_result, tool.call(text, call_id)))

    def _on_result(self, at: Interpreter, call: ToolCall) -> None:
        if call.error is not None and self._use.on_error == "raise":
            at.count(sum_usages([each.usage for each in self._samples]))
            raise call.error
        self._calls.append(call)
        self._give(at, Piece(self._form.after_call, trusted=True))
        self._give(at, Piece(self._form.result(call.shown), trusted=False))
        self._give(at, Piece(self._form.after_result, trusted=True))
        if self._in_messages:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            called = call_message(self._said, call.name, arguments, call.id)
            at.prompt.begin_again([called, result_message(call.shown, call.name, call.id)])
        self._ask_text(at)

    # -- requests and text --------------------------------------------------------------------------------------

    def _ask(
        self,
        at: Interpreter,
        params: Mapping[str, Any],
        on_parts: Callable[[Interpreter, Sequence[Part], Mapping[str, Any]], None],
        on_end: Callable[[Interpreter, Sample], None],
    ) -> None:
        own = dict(params)
        if own.get("seed") is not None and self._samples:
            own["seed"] = derived_seed(own["seed"], (len(self._samples),))
        sample = Sample(own, on_parts, on_end)
        self._samples.append(sample)
        sample.submit(at, self, at.prompt)

    def _keep(self, at: Interpreter, sample: Sample) -> None:
        now = time.perf_counter()
        record = GenRecord(self._variable.name, self._params, [sample.record()], now - self._began)
        sample.append_to(at.prompt, at, record)
        self._began = now

    def _give(self, at: Interpreter, piece: Piece) -> None:
        at.prompt.append_pieces([piece])
        at.emit(piece.text)


def _show(variable: Variable | None, at: Interpreter, parts: Sequence[Part], meta: Mapping[str, Any]) -> None:
    """Text that everybody sees; that of the variable, if it is certainly the answer."""
    for part in parts:
        at.emit(part.text, variable)
    if variable is not None and at.context.stream:
        at.note(variable, "", ("".join(part.text for part in parts), dict(meta)))
