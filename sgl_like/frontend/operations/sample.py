"""One output of the model as it arrives, and what remains of it: its text, its tokens, its meta information.

An output arrives in events, of which each adds to its text. Where reasoning is separated, a splitter tells the parts of
each event; what was reasoning stays out of text and prompt, and a prompt that has opened it gets an end of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import EngineError, RequestAborted, RequestError
from sgl_like.frontend.backend.base import Handle, Segment
from sgl_like.frontend.prompt import Prompt
from sgl_like.frontend.view.log import GenRecord
from sgl_like.frontend.view.log import Sample as SampleRecord
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS, LogprobParams, PlaceLogprobs, logprob_meta
from sgl_like.runtime.protocol import FinishReason, Output, Usage
from sgl_like.runtime.reasoning import Part, Splitter

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter
    from sgl_like.frontend.operations.base import Operation

__all__ = ["Sample", "raise_if_failed", "sum_usages", "usage_dict"]

_NOTHING_USED = Usage()
_NOT_ENDED = FinishReason("abort")


class Sample:
    """One request for a continuation of a prompt, and what has come of it.

    Args:
        params: of the request, without ``n``.
        on_parts: called with what each event adds, and, where text is wanted as it arrives, the event's meta data.
        on_end: called when it has ended well; what ends badly raises.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        on_parts: Callable[[Interpreter, Sequence[Part], Mapping[str, Any]], None],
        on_end: Callable[[Interpreter, Sample], None],
    ) -> None:
        self.text = ""
        self.reasoning = ""
        self.ids: list[int] = []
        self.usage = _NOTHING_USED
        self.finish = _NOT_ENDED
        self._params = params
        self._on_parts = on_parts
        self._on_end = on_end
        logprobs = {name: params[name] for name in params.keys() & LOGPROB_OPTIONS}
        self._logprobs = LogprobParams.from_options(**logprobs) if logprobs else None
        self._splitter: Splitter | None = None
        self._whole = ""  # the text with its reasoning
        self._forced: list[int] = []
        self._prompt_logprobs: list[PlaceLogprobs] = []
        self._output_logprobs: list[PlaceLogprobs] = []
        self._rid = ""
        self._kept: tuple[int, ...] | None = None
        self._handle: Handle | None = None

    def submit(
        self,
        at: Interpreter,
        operation: Operation,
        prompt: Prompt,
        make_splitter: Callable[[str], Splitter] | None = None,
    ) -> None:
        """Start it after `prompt`, for an operation that is running; `make_splitter` is as in `Gen`.

        Raises:
            RequestError: it cannot be run.
        """
        backend = at.context.backend
        begun = prompt.begin_content(given=False)
        if prompt is at.prompt:
            at.emit(begun)
        ids = prompt.encode(backend)
        if not ids:
            raise RequestError("the prompt is empty; add some text or a message before it")
        params = self._params
        if make_splitter is not None:
            self._splitter = make_splitter(prompt.tail(64))
            if self._splitter.needs_special_tokens and "skip_special_tokens" in backend.supported_params:
                params = {**params, "skip_special_tokens": False}
        sink = partial(at.guarded, operation, self._take)
        self._handle = backend.submit(tuple(ids), params, sink, at.context.stream)

    def cancel(self) -> None:
        """Stop it, from any thread."""
        if self._handle is not None:
            self._handle.cancel()

    @property
    def closing(self) -> str:
        """Markup that ends reasoning which the prompt has opened, and which is left out."""
        opened = None if self._splitter is None else self._splitter.opened
        return "" if opened is None else opened.end + "\n\n"

    @property
    def parts(self) -> list[Part]:
        """All there is, as one event would have brought it."""
        return [Part(self.reasoning, is_reasoning=True), Part(self.text, is_reasoning=False)]

    def meta(self) -> dict[str, Any]:
        """``meta_info`` of one that has ended."""
        meta = {"id": self._rid, "finish_reason": self.finish.as_dict(), **usage_dict(self.usage)}
        if self._logprobs is not None:
            meta |= logprob_meta(self._logprobs, self._prompt_logprobs, self._output_logprobs)
        return {**meta, "output_ids": list(self.ids)}

    def record(self) -> SampleRecord:
        """What the log keeps of one that has ended."""
        return SampleRecord(
            self._whole,
            tuple(self.ids),
            tuple(self._forced),
            tuple(self._output_logprobs),
            tuple(self._prompt_logprobs),
            self.finish.as_dict(),
            self.usage,
        )

    def kept_ids(self, at: Interpreter) -> tuple[int, ...]:
        """The sampled ids that stand for the text.

        A token that ended the output is not part of it. What a stop string or regex matched, or what was reasoning, was
        cut off the text, possibly in the middle of a token: then, and only then, the text is tokenised again.
        """
        if self._kept is None:
            self._kept = self._ids_of_text(at)
        return self._kept

    def _ids_of_text(self, at: Interpreter) -> tuple[int, ...]:
        matched = self.finish.matched
        if isinstance(matched, str) or self.text != self._whole:
            return tuple(at.context.backend.encode([Segment(self.text, trusted=False)])) if self.text else ()
        if isinstance(matched, int) and self.ids and self.ids[-1] == matched:
            return tuple(self.ids[:-1])
        return tuple(self.ids)

    def append_to(self, prompt: Prompt, at: Interpreter, record: GenRecord | None = None) -> None:
        """Put what was sampled after `prompt`, which it was sampled for; `record` is for the log."""
        if self.closing:
            prompt.append_markup(self.closing)
            prompt.encode(at.context.backend)
        prompt.append_sampled(self.text, self.kept_ids(at), record)

    def _take(self, at: Interpreter, output: Output) -> None:
        final = output.finish is not None
        parts = [Part(output.text, is_reasoning=False)]
        if self._splitter is not None:
            parts = [Part(output.reasoning, is_reasoning=True)] if output.reasoning else []
            parts += self._splitter.feed(output.text, final=final)
        self._whole += output.text
        self.text += "".join(part.text for part in parts if not part.is_reasoning)
        self.reasoning += "".join(part.text for part in parts if part.is_reasoning)
        self._forced.extend(len(self.ids) + place for place in output.forced)
        self.ids.extend(output.token_ids)
        self._prompt_logprobs.extend(output.prompt_logprobs)
        self._output_logprobs.extend(output.output_logprobs)
        if output.finish is not None:
            raise_if_failed(output)
            self._rid, self.usage, self.finish = output.rid, output.usage, output.finish
        self._on_parts(at, parts, self._event_meta(output) if at.context.stream else {})
        if final:
            self._on_end(at, self)

    def _event_meta(self, output: Output) -> dict[str, Any]:
        """What an event says: counts so far, and the log-probabilities that are new."""
        finish = None if output.finish is None else output.finish.as_dict()
        meta = {"id": output.rid, "finish_reason": finish, **usage_dict(output.usage)}
        if self._logprobs is not None:
            meta |= logprob_meta(self._logprobs, output.prompt_logprobs, output.output_logprobs)
            meta["output_token_logprobs_length"] = len(self._output_logprobs)
        return meta


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
        "computed_tokens": usage.computed_tokens,
        "draft_tokens": usage.draft_tokens,
        "accepted_tokens": usage.accepted_tokens,
    }


def sum_usages(usages: Sequence[Usage]) -> Usage:
    """Token counts of several requests together."""
    if len(usages) == 1:
        return usages[0]
    return Usage(**{each.name: sum(getattr(one, each.name) for one in usages) for each in fields(Usage)})
