"""``gen``: the model continues the prompt.

An output arrives in events, of which each adds to the text that readers see. Where reasoning is separated, a splitter
tells the parts of each event; what was reasoning is left out of prompt and text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sgl_like.errors import EngineError, ProgramError, RequestAborted, RequestError
from sgl_like.frontend.backend.base import Handle, Segment
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.params import copies, derived_seed, request_params
from sgl_like.frontend.reasoning import Part, Splitter
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.view.log import GenRecord, Sample
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS, LogprobParams, PlaceLogprobs, logprob_meta
from sgl_like.runtime.protocol import FinishReason, Output, Usage

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Generate", "Separation", "raise_if_failed", "sum_usages", "usage_dict"]


class Separation(NamedTuple):
    """That a gen's reasoning goes to a variable of its own."""

    make_splitter: Callable[[str], Splitter]  # from the end of the prompt
    variable: Variable


class _Sample:
    """One of the outputs of a gen as it arrives."""

    def __init__(self, splitter: Splitter | None) -> None:
        self.splitter = splitter
        self.handle: Handle | None = None
        self.whole = ""  # the text with its reasoning
        self.text = ""
        self.reasoning = ""
        self.ids: list[int] = []
        self.forced: list[int] = []
        self.prompt_logprobs: list[PlaceLogprobs] = []
        self.output_logprobs: list[PlaceLogprobs] = []
        self.last: Output | None = None  # the terminal event

    def add(self, output: Output) -> list[Part]:
        """Take in an event; returns the text that it adds."""
        parts = [Part(output.text, is_reasoning=False)]
        if self.splitter is not None:
            parts = self.splitter.feed(output.text, final=output.finish is not None)
        self.whole += output.text
        self.text += "".join(part.text for part in parts if not part.is_reasoning)
        self.reasoning += "".join(part.text for part in parts if part.is_reasoning)
        self.forced.extend(len(self.ids) + place for place in output.forced)
        self.ids.extend(output.token_ids)
        self.prompt_logprobs.extend(output.prompt_logprobs)
        self.output_logprobs.extend(output.output_logprobs)
        if output.finish is not None:
            raise_if_failed(output)
            self.last = output
        return parts

    def event_meta(self, wanted: LogprobParams | None, output: Output) -> dict[str, Any]:
        """What an event says: counts so far, and the log-probabilities that are new."""
        finish = output.finish.as_dict() if output.finish is not None else None
        meta = {"id": output.rid, "finish_reason": finish, **usage_dict(output.usage)}
        if wanted is not None:
            meta |= logprob_meta(wanted, output.prompt_logprobs, output.output_logprobs)
            meta["output_token_logprobs_length"] = len(self.output_logprobs)
        return meta

    def record(self) -> Sample:
        """For the log."""
        assert self.last is not None and self.last.finish is not None, "only finished samples are asked"
        return Sample(
            self.whole,
            tuple(self.ids),
            tuple(self.forced),
            tuple(self.output_logprobs),
            tuple(self.prompt_logprobs),
            self.last.finish.as_dict(),
            self.last.usage,
        )

    def meta(self, wanted: LogprobParams | None) -> dict[str, Any]:
        assert self.last is not None and self.last.finish is not None, "only finished samples are asked"
        meta = {"id": self.last.rid, "finish_reason": self.last.finish.as_dict()}
        meta |= usage_dict(self.last.usage)
        if wanted is not None:
            meta |= logprob_meta(wanted, self.prompt_logprobs, self.output_logprobs)
        return {**meta, "output_ids": list(self.ids)}


class Generate(Operation):
    """Submits a request, or with ``n`` so many, and takes the output into the prompt, the text and the variable.

    With ``n`` greater than 1 the value is the list of all outputs, and the program goes on with the first.
    """

    def __init__(
        self,
        label: str,
        variable: Variable,
        params: Mapping[str, Any],
        place: tuple[int, ...],
        separation: Separation | None = None,
    ) -> None:
        super().__init__(label, variable, *(() if separation is None else (separation.variable,)))
        self._variable = variable
        self._params = params
        self._place = place
        self._separation = separation
        self._closed = False  # reasoning that the prompt has opened
        self._samples: list[_Sample] = []
        self._logprobs: LogprobParams | None = None
        self._asked: Mapping[str, Any] = {}
        self._began = 0.0

    def start(self, at: Interpreter) -> bool:
        """Submit; `_on_output` ends it."""
        context = at.context
        params = request_params(context.defaults, self._params, context.backend)
        if "seed" not in self._params and params.get("seed") is not None:
            params["seed"] = derived_seed(params["seed"], self._place)
        self._asked, self._began = dict(params), time.perf_counter()
        count = copies(params)
        self._logprobs = LogprobParams.from_options(
            **{name: params[name] for name in params.keys() & LOGPROB_OPTIONS}
        )
        ids = at.prompt.encode(context.backend)
        if not ids:
            raise RequestError("the prompt is empty; add some text or a message before it")
        make, end = self._separation and self._separation.make_splitter, at.prompt.tail(64)
        self._samples = [_Sample(make(end) if make is not None else None) for _ in range(count)]
        splitter = self._samples[0].splitter
        if (
            splitter is not None
            and splitter.needs_special_tokens
            and "skip_special_tokens" in context.backend.supported_params
        ):
            params["skip_special_tokens"] = False
        for index, sample in enumerate(self._samples):
            own = dict(params)
            if index > 0 and own.get("seed") is not None:
                own["seed"] = derived_seed(own["seed"], (index,))
            sink = partial(at.guarded, self, partial(self._on_output, sample))
            sample.handle = context.backend.submit(tuple(ids), own, sink, context.stream)
        return False

    def cancel(self, error: ProgramError) -> None:
        """Stop the requests."""
        for sample in self._samples:
            if sample.handle is not None:
                sample.handle.cancel()

    def _on_output(self, sample: _Sample, at: Interpreter, output: Output) -> None:
        parts = sample.add(output)
        first = self._samples[0]
        if sample is first:
            self._show(at, parts, output)
        if any(each.last is None for each in self._samples):
            return
        assert first.last is not None and first.last.finish is not None
        seconds = time.perf_counter() - self._began
        samples = [each.record() for each in self._samples]
        record = GenRecord(self._variable.name, self._asked, samples, seconds)
        self._close_reasoning(at)
        at.prompt.encode(at.context.backend)
        at.prompt.append_sampled(first.text, _kept_ids(at, first, first.last.finish), record)
        usage = sum_usages([each.last.usage for each in self._samples if each.last is not None])
        if len(self._samples) == 1:
            at.give(self._variable, first.text, first.meta(self._logprobs), usage)
        else:
            meta = {**usage_dict(usage), "samples": [each.meta(self._logprobs) for each in self._samples]}
            at.give(self._variable, [each.text for each in self._samples], meta, usage)
        if self._separation is not None:
            thoughts = [each.reasoning for each in self._samples]
            at.give(self._separation.variable, thoughts[0] if len(thoughts) == 1 else thoughts)
        at.finish(self)

    def _show(self, at: Interpreter, parts: Sequence[Part], output: Output) -> None:
        """Give an event's text to those who read it as it arrives."""
        for part in parts:
            if part.is_reasoning:
                assert self._separation is not None
                at.note(self._separation.variable, part.text)
            elif part.text:
                self._close_reasoning(at)
                at.emit(part.text, self._variable)
        if at.context.stream:
            text = "".join(part.text for part in parts if not part.is_reasoning)
            at.note(self._variable, "", (text, self._samples[0].event_meta(self._logprobs, output)))

    def _close_reasoning(self, at: Interpreter) -> None:
        """End, once, reasoning that the prompt has opened and that is left out."""
        splitter = self._samples[0].splitter
        if splitter is not None and splitter.opened is not None and not self._closed:
            self._closed = True
            markup = splitter.opened.end + "\n\n"
            at.prompt.append_markup(markup)
            at.emit(markup)


def _kept_ids(at: Interpreter, sample: _Sample, finish: FinishReason) -> tuple[int, ...]:
    """The sampled ids that stand for the text.

    A token that ended the output is not part of it. What a stop string or regex matched, or what was reasoning, was cut
    off the text, possibly in the middle of a token: then, and only then, the text of this gen is tokenised again.
    """
    if isinstance(finish.matched, str) or sample.text != sample.whole:
        text = sample.text
        return tuple(at.context.backend.encode([Segment(text, trusted=False)])) if text else ()
    if isinstance(finish.matched, int) and sample.ids and sample.ids[-1] == finish.matched:
        return tuple(sample.ids[:-1])
    return tuple(sample.ids)


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
    return Usage(**{each.name: sum(getattr(one, each.name) for one in usages) for each in fields(Usage)})
