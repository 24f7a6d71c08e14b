"""``select``: score every choice as a continuation of the prompt, and take the best.

The last tokens of a prompt depend on what comes after it (``"is "`` + ``"yes"`` is ``"is"``, ``" yes"``), so prompt
and choice are tokenised together and every choice is scored from the same position: the first at which any of
them leaves the tokens of the prompt.

    prompt          The | answer | is | _          all scored from here on
    + "yes"         The | answer | is | _yes                     <-'
    + "4"           The | answer | is | _ | 4
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import EngineError, ProgramError, RequestError
from sgl_like.frontend.backend.base import Handle, Segment
from sgl_like.frontend.choices import TokenLogprob
from sgl_like.frontend.expr import Select as SelectNode
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.generate import raise_if_failed, usage_dict
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.view.log import SelectRecord
from sgl_like.runtime.protocol import Output, Usage

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Select"]


class Select(Operation):
    """Has all choices scored by one request, and takes one of them."""

    def __init__(self, node: SelectNode, variable: Variable) -> None:
        super().__init__(node.label, variable)
        self._node = node
        self._variable = variable
        self._start = 0
        self._joint: list[list[int]] = []  # prompt and choice, for each choice
        self._handle: Handle | None = None
        self._began = 0.0

    def start(self, at: Interpreter) -> bool:
        """Submit the request; `_on_scores` ends it."""
        self._began = time.perf_counter()
        backend, trusted = at.context.backend, at.prompt.role is None
        tail = at.prompt.settle(backend)
        plain = at.prompt.continued(backend, tail)
        if not plain:
            raise RequestError("the prompt is empty; add some text or a message before it")
        choices = [Segment(choice, trusted) for choice in self._node.choices]
        self._joint = [at.prompt.continued(backend, [*tail, choice]) for choice in choices]
        self._start = min(_common_prefix(plain, joint) for joint in self._joint)
        if (
            self._start == 0
        ):  # nothing would be left to score after: put the choices behind the prompt's own tokens
            self._joint = [[*plain, *backend.encode([choice])] for choice in choices]
            self._start = len(plain)
        for choice, joint in zip(self._node.choices, self._joint, strict=True):
            if len(joint) <= self._start:
                raise RequestError(f"choice {choice!r} adds no token to the prompt, so it has no probability")
        prompt = tuple(self._joint[0][: self._start])
        sink = partial(at.guarded, self, self._on_scores)
        self._handle = backend.score(prompt, [tuple(joint[self._start :]) for joint in self._joint], sink)
        return False

    def cancel(self, error: ProgramError) -> None:
        """Stop the request."""
        if self._handle is not None:
            self._handle.cancel()

    def _on_scores(self, at: Interpreter, output: Output) -> None:
        if output.finish is None:
            return
        raise_if_failed(output)
        scores, expected = output.choice_logprobs, [len(joint) - self._start for joint in self._joint]
        if scores is None or [len(row) for row in scores] != expected:
            raise EngineError(f"the backend did not return {expected} log-probabilities for the choices")
        self._decide(at, scores, output.usage)

    def _decide(self, at: Interpreter, scores: Sequence[Sequence[float]], usage: Usage) -> None:
        choices = self._node.choices
        tokens: list[list[TokenLogprob]] = [
            [(logprob, token, None) for logprob, token in zip(row, joint[self._start :], strict=True)]
            for row, joint in zip(scores, self._joint, strict=True)
        ]
        decision = self._node.method(
            choices=choices,
            normalized_prompt_logprobs=[math.fsum(row) / len(row) for row in scores],
            input_token_logprobs=tokens,
            output_token_logprobs=[[] for _ in choices],
        )
        if decision.decision not in choices:
            raise RequestError(
                f"the choice method took {decision.decision!r}, which is not one of the choices"
            )
        meta: dict[str, Any] = {**decision.meta_info, **usage_dict(usage)}
        meta["choice_probs"] = dict(zip(choices, _softmax([math.fsum(row) for row in scores]), strict=True))
        taken = choices.index(decision.decision)
        seconds = time.perf_counter() - self._began
        record = SelectRecord(self._variable.name, meta["choice_probs"], scores[taken], usage, seconds)
        at.prompt.append_joint(decision.decision, at.prompt.role is None, self._joint[taken], record)
        at.emit(decision.decision, self._variable)
        at.give(self._variable, decision.decision, meta, usage)
        at.finish(self)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _softmax(logs: Sequence[float]) -> list[float]:
    """Probabilities of the choices, given that it is one of them."""
    top = max(logs)
    if math.isinf(top):
        return [1.0 / len(logs)] * len(logs)
    weights = [math.exp(value - top) for value in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
