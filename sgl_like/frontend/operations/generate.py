"""``gen``: the model continues the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import EngineError, ProgramError, RequestAborted, RequestError
from sgl_like.frontend.backend.base import Handle, Segment
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.params import derived_seed, request_params
from sgl_like.frontend.variables import Variable
from sgl_like.runtime.protocol import FinishReason, Output, Usage

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Generate", "raise_if_failed", "usage_dict"]


class Generate(Operation):
    """Submits one request and takes its output into the prompt, the text and the variable."""

    def __init__(
        self, label: str, variable: Variable, params: Mapping[str, Any], place: tuple[int, ...]
    ) -> None:
        super().__init__(label, variable)
        self._variable = variable
        self._params = params
        self._place = place
        self._handle: Handle | None = None
        self._ids: list[int] = []

    def start(self, at: Interpreter) -> bool:
        """Submit; `_on_output` ends it."""
        context = at.context
        params = request_params(context.defaults, self._params, context.backend)
        if "seed" not in self._params and params.get("seed") is not None:
            params["seed"] = derived_seed(params["seed"], self._place)
        ids = at.prompt.encode(context.backend)
        if not ids:
            raise RequestError("the prompt is empty; add some text or a message before it")
        sink = partial(at.guarded, self, self._on_output)
        self._handle = context.backend.submit(tuple(ids), params, sink, context.stream)
        return False

    def cancel(self, error: ProgramError) -> None:
        """Stop the request."""
        if self._handle is not None:
            self._handle.cancel()

    def _on_output(self, at: Interpreter, output: Output) -> None:
        self._ids.extend(output.token_ids)
        if output.text:
            at.emit(output.text, self._variable)
        if output.finish is None:
            return
        raise_if_failed(output)
        text = "".join(self._variable.chunks)
        at.prompt.append_sampled(text, self._kept_ids(at, text, output.finish))
        meta = {"id": output.rid, "finish_reason": output.finish.as_dict(), **usage_dict(output.usage)}
        meta["output_ids"] = list(self._ids)
        at.give(self._variable, text, meta, output.usage)
        at.finish(self)

    def _kept_ids(self, at: Interpreter, text: str, finish: FinishReason) -> tuple[int, ...]:
        """The sampled ids that stand for `text`.

        A token that ended the output is not part of it. A stop string was cut off the text, possibly in the middle
        of a token: then, and only then, the text of this gen is tokenised again.
        """
        if isinstance(finish.matched, str):
            return tuple(at.context.backend.encode([Segment(text, trusted=False)])) if text else ()
        if isinstance(finish.matched, int) and self._ids and self._ids[-1] == finish.matched:
            return tuple(self._ids[:-1])
        return tuple(self._ids)


def raise_if_failed(output: Output) -> None:
    """Raise what a terminal event reports, if it reports a failure."""
    assert output.finish is not None, "only terminal events are asked"
    if output.finish.type == "abort":
        raise output.error or RequestAborted(output.finish.message or "the request was aborted")
    if output.finish.type == "error" or output.error is not None:
        raise output.error or EngineError(output.finish.message or "the request failed")


def usage_dict(usage: Usage) -> dict[str, Any]:
    """Token counts as they stand in ``meta_info``."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "forced_tokens": usage.forced_tokens,
    }
