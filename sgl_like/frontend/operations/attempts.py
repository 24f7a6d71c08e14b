"""The attempts at one output of a gen: without ``validate`` there is one, with it they go on until one is accepted.

    prompt ── attempt 1 ── judged: refused
       `──────────────────── attempt 2 ── judged: accepted ── text, variable, prompt of what comes next

Every attempt is a request of its own for the same prompt, whose keys and values are in the backend's cache since the
first. What was refused is never put into the state's prompt or text. With feedback, an attempt is made after a copy of
the prompt that goes on with what was refused and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ValidationError
from sgl_like.frontend.expr import Gen
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.sample import Sample, sum_usages
from sgl_like.frontend.outputs.feedback import append_feedback
from sgl_like.frontend.outputs.validation import Refusal, Verdict
from sgl_like.frontend.outputs.values import GenText
from sgl_like.frontend.params import retry_params
from sgl_like.frontend.prompt import Prompt
from sgl_like.frontend.tools.user_code import post
from sgl_like.runtime.protocol import Usage
from sgl_like.runtime.reasoning import Part

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Attempts"]


class Attempts:
    """One output of a gen.

    Args:
        operation: that wants it.
        node: what is wanted.
        params: of the first attempt.
        place: of the gen and the output in the program, for seeds.
        on_parts: called with every piece of text and its meta data, as soon as it is certain to stay.
        on_end: called when there is a value.
    """

    def __init__(
        self,
        operation: Operation,
        node: Gen,
        params: dict[str, Any],
        place: tuple[int, ...],
        on_parts: Callable[[Interpreter, Sequence[Part], Mapping[str, Any]], None],
        on_end: Callable[[Interpreter], None],
    ) -> None:
        self.value: GenText | None = None
        self._operation = operation
        self._node = node
        self._params = params
        self._place = place
        self._on_parts = on_parts
        self._on_end = on_end
        self._prompt: Prompt | None = None  # of the last attempt
        self._samples: list[Sample] = []
        self._refused: list[Refusal] = []

    def start(self, at: Interpreter) -> None:
        """Submit the first attempt.

        Raises:
            RequestError: it cannot be run.
        """
        self._submit(at, self._params)

    def cancel(self) -> None:
        """Stop the attempt in flight, from any thread."""
        for sample in self._samples[-1:]:
            sample.cancel()

    def release(self) -> None:
        """Let go of the attempts, which know this object: else only the garbage collector would free both."""
        self._samples = []

    @property
    def last(self) -> Sample:
        """The last attempt."""
        return self._samples[-1]

    @property
    def refused(self) -> Sequence[Refusal]:
        """What was not accepted, and why."""
        return self._refused

    @property
    def usage(self) -> Usage:
        """Tokens of all attempts."""
        return sum_usages([sample.usage for sample in self._samples])

    def _submit(self, at: Interpreter, params: dict[str, Any]) -> None:
        check = self._node.check
        if self._prompt is None:
            self._prompt = at.prompt
        elif check is not None and check.feedback:
            self._prompt = append_feedback(self._prompt, self._samples[-1], self._refused[-1], at)
        sample = Sample(params, self._on_parts if check is None else _unseen, self._ended)
        self._samples.append(sample)
        sample.submit(at, self._operation, self._prompt, self._node.make_splitter)

    def _ended(self, at: Interpreter, sample: Sample) -> None:
        check, ids, meta = self._node.check, sample.kept_ids(at), sample.meta()
        if check is None:
            self._accept(at, GenText(sample.text, ids, meta, self._node.output_type))
            return
        meta["refused"] = [{"text": str(each.text), "reason": each.reason} for each in self._refused]
        text = GenText(sample.text, ids, meta, check.output_type)
        post(lambda: at.guarded(self._operation, self._on_verdict, check.verdict(text)))

    def _on_verdict(self, at: Interpreter, verdict: Verdict) -> None:
        check = self._node.check
        assert check is not None, "there is no verdict without a check"
        if verdict.failure is not None:
            raise verdict.failure
        if verdict.refusal is None:
            self._on_parts(at, self.last.parts, verdict.text.meta)
            self._accept(at, verdict.text)
            return
        self._refused.append(verdict.refusal)
        if len(self._refused) > check.max_retries:
            at.count(self.usage)
            raise ValidationError([(refusal.text, refusal.reason) for refusal in self._refused])
        known = at.context.backend.supported_params
        self._submit(
            at, retry_params(self._params, self._place, len(self._refused), bool(check.feedback), known)
        )

    def _accept(self, at: Interpreter, value: GenText) -> None:
        self.value = value
        self._on_end(at)


def _unseen(at: Interpreter, parts: Sequence[Part], meta: Mapping[str, Any]) -> None:
    """What may still be refused is not shown."""
