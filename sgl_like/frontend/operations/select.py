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
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.errors import EngineError, ProgramError, RequestError
from sgl_like.frontend.backend.base import Backend, Handle, Segment
from sgl_like.frontend.choices import TokenLogprob, token_length_normalized
from sgl_like.frontend.expr import Select as SelectNode
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.sample import raise_if_failed, sum_usages, usage_dict
from sgl_like.frontend.params import derived_seed
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.view.log import SelectRecord
from sgl_like.runtime.protocol import Output, Usage

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Select"]


class Select(Operation):
    """Has all choices scored by one request, and takes one of them."""

    is_model_call = True

    def __init__(self, node: SelectNode, variable: Variable, place: tuple[int, ...]) -> None:
        super().__init__(node.label, variable)
        self._node = node
        self._variable = variable
        self._place = place
        self._start = 0
        self._joint: list[list[int]] = []  # prompt and choice, for each choice
        self._requests: list[_Scoring] = []  # the choices after the prompt; then, if needed, without it
        self._began = 0.0

    def start(self, at: Interpreter) -> bool:
        """Submit the requests; `_on_output` ends it."""
        self._began = time.perf_counter()
        backend, trusted = at.context.backend, at.prompt.role is None
        at.emit(at.prompt.begin_content(given=True))
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
        tokens = [tuple(joint[self._start :]) for joint in self._joint]
        self._check(backend, prompt)
        self._requests = [_Scoring(prompt, tokens)]
        if self._node.method.requires_unconditional_logprobs:
            self._requests += _without_prompt(tokens)
        for request in self._requests:
            sink = partial(at.guarded, self, partial(self._on_output, request))
            request.handle = backend.score(request.prompt, request.choices, sink)
        return False

    def cancel(self, error: ProgramError) -> None:
        """Stop the requests."""
        for request in self._requests:
            if request.handle is not None:
                request.handle.cancel()

    def _on_output(self, request: _Scoring, at: Interpreter, output: Output) -> None:
        if output.finish is None:
            return
        raise_if_failed(output)
        if output.choice_logprobs is None and output.text:
            self._chosen(at, output)
            return
        request.take(output, at.context.backend.ids_are_tokens)
        if all(each.usage is not None for each in self._requests):
            self._decide(at)

    def _decide(self, at: Interpreter) -> None:
        choices, scored = self._node.choices, self._requests[0]
        tokens = _token_logprobs(scored.choices, scored.scores)
        needed: dict[str, Any] = {}
        if self._node.method.requires_unconditional_logprobs:
            needed["unconditional_token_logprobs"] = self._unconditional(scored.choices)
        decision = self._node.method(
            choices=choices,
            normalized_prompt_logprobs=[math.fsum(row) / len(row) for row in scored.scores],
            input_token_logprobs=tokens,
            output_token_logprobs=[[] for _ in choices],
            **needed,
        )
        if not hasattr(decision, "decision"):
            raise RequestError(f"a choices_method must return a ChoicesDecision, not {decision!r}")
        temperature = self._node.temperature
        probs = _softmax([math.fsum(row) / (temperature or 1.0) for row in scored.scores])
        taken = self._draw(at, probs) if temperature else decision.decision
        if taken not in choices:
            raise RequestError(f"the choice method took {taken!r}, which is not one of the choices")
        usage = sum_usages([request.usage for request in self._requests if request.usage is not None])
        by_choice = dict(zip(choices, probs, strict=True))
        scores = scored.scores[choices.index(taken)]
        self._take(at, taken, {**decision.meta_info, "choice_probs": by_choice}, scores, usage)

    def _check(self, backend: Backend, prompt: tuple[int, ...]) -> None:
        """Refuse what the backend cannot tell about choices."""
        method, name = self._node.method, type(backend).__name__
        if method.requires_unconditional_logprobs and not backend.ids_are_tokens:
            raise RequestError(f"{name} cannot score choices without the prompt; use another choices_method")
        if not backend.scores(prompt) and (self._node.temperature or method is not token_length_normalized):
            raise RequestError(
                f"{name} gives no log-probabilities of choices here: the model takes one itself, so select must"
                " have neither a temperature nor a choices_method"
            )

    def _chosen(self, at: Interpreter, output: Output) -> None:
        """The model was held to the choices, and has taken one."""
        if output.text not in self._node.choices:
            raise EngineError(f"the server was held to the choices, but answered {output.text!r}")
        self._take(at, output.text, {"chosen_by": "constraint"}, (), output.usage)

    def _take(
        self, at: Interpreter, taken: str, meta: dict[str, Any], scores: Sequence[float], usage: Usage
    ) -> None:
        joint = self._joint[self._node.choices.index(taken)]
        seconds = time.perf_counter() - self._began
        probs = meta.get("choice_probs", dict.fromkeys(self._node.choices))
        record = SelectRecord(self._variable.name, probs, scores, usage, seconds)
        meta = {**meta, **usage_dict(usage)}
        at.prompt.append_joint(taken, at.prompt.role is None, joint, record)
        at.emit(taken, self._variable)
        at.give(self._variable, taken, meta, usage)
        at.finish(self)

    def _draw(self, at: Interpreter, probs: Sequence[float]) -> str:
        seed, run_seed = self._node.seed, at.context.defaults.get("seed")
        if seed is None and run_seed is not None:
            seed = derived_seed(run_seed, self._place)
        # without a seed, the id of the answer is one: a replay of the answer draws the same
        source = random.Random(self._requests[0].rid if seed is None else seed)
        return source.choices(self._node.choices, probs)[0]

    def _unconditional(self, tokens: Sequence[Sequence[int]]) -> list[list[TokenLogprob]]:
        """What `_without_prompt` asked for, for each choice."""
        found = {
            (*request.prompt, *choice): row
            for request in self._requests[1:]
            for choice, row in zip(request.choices, request.scores, strict=True)
        }
        return [[(None, row[0], None), *_row(row[1:], found.get(tuple(row), ()))] for row in tokens]


class _Scoring:
    """One request for scores, and what came of it."""

    def __init__(self, prompt: tuple[int, ...], choices: Sequence[tuple[int, ...]]) -> None:
        self.prompt = prompt
        self.choices = choices
        self.handle: Handle | None = None
        self.scores: Sequence[Sequence[float]] = ()
        self.usage: Usage | None = None
        self.rid = ""

    def take(self, output: Output, exact: bool) -> None:
        """The terminal event; its rows are of the tokens asked about if `exact`, else of tokens of the model."""
        scores = output.choice_logprobs
        if scores is not None and not exact and all(scores):
            self.choices = [(-1,) * len(row) for row in scores]
        expected = [len(choice) for choice in self.choices]
        if scores is None or [len(row) for row in scores] != expected:
            raise EngineError(f"the backend did not return {expected} log-probabilities for the choices")
        self.scores, self.usage, self.rid = scores, output.usage, output.rid


def _without_prompt(choices: Sequence[tuple[int, ...]]) -> list[_Scoring]:
    """Requests that score all but the first token of each choice after that token alone."""
    rests: dict[int, list[tuple[int, ...]]] = {}
    for choice in dict.fromkeys(choices):
        if len(choice) > 1:
            rests.setdefault(choice[0], []).append(choice[1:])
    return [_Scoring((first,), rest) for first, rest in rests.items()]


def _token_logprobs(
    choices: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]
) -> list[list[TokenLogprob]]:
    return [_row(choice, row) for choice, row in zip(choices, scores, strict=True)]


def _row(tokens: Sequence[int], logprobs: Sequence[float]) -> list[TokenLogprob]:
    return [(logprob, token, None) for logprob, token in zip(logprobs, tokens, strict=True)]


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
