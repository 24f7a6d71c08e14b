"""Scoring many continuations of one prompt in one pass over the trie of their tokens.

    prompt                request 0 computes the prompt, and reports what is asked of the place after it: a, x
    prompt + [a b d e]    a ── b ── d ── e    request 1 computes a b d e, and reports b; c, d; e
    prompt + [a b c f]         └── c ── f     request 2 computes c f, and reports f
    prompt + [x]          x                   nothing is left to do for this one

The requests lie in the queue at the same time, in this order, so one step takes them all; the scheduler has each start
from what those before it compute in the same forward pass. A token is thus computed once for all choices that have it
at the same place, and not at all if nothing comes after it that others have not begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from sgl_like.errors import RequestError
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest, Output, OutputSink, Usage
from sgl_like.runtime.sampling_params import SamplingParams

Tokens = tuple[int, ...]


def split_choices(request: GenerateRequest, sink: OutputSink) -> list[tuple[GenerateRequest, OutputSink]]:
    """The requests that together score ``request.choices``, and where their events go; `sink` gets one event.

    A request without choices is its own.

    Raises:
        RequestError: a choice is empty, or `request` asks for more than scores.
    """
    if not request.choices:
        return [(request, sink)]
    given = request.logprobs is not None or request.params.max_new_tokens or request.embed or request.produced
    if given:
        raise RequestError(
            "a request with choices is only scored: max_new_tokens=0, no logprobs, no embed and no output yet"
        )
    group = _Group(request, sink)
    return [(one, partial(group.receive, one)) for one in group.parts]


class _Group:
    """Collects the scores of one request's choices."""

    def __init__(self, request: GenerateRequest, sink: OutputSink) -> None:
        prompt = tuple(request.input_ids)
        choices = [tuple(choice) for choice in request.choices]
        if not all(choices):
            raise RequestError("a choice is empty: it has no probability")
        self._request = request
        self._sink = sink
        self._choices = choices
        self._prompt_length = len(prompt)
        self._children = _children(choices)
        self._logprobs: dict[Tokens, dict[int, float]] = {}  # prefix of choices: what may follow
        self._usages: dict[str, Usage] = {}
        self._failed = False
        self.parts: list[GenerateRequest] = []
        self._add_part((), 0)
        # A choice comes after those that begin with it, so the first with a prefix always goes on after it.
        for before, choice in pairwise([(), *sorted(set(choices), reverse=True)]):
            own = _common(before, choice) + 1  # first place that nobody has scored
            if own < len(choice):
                self._add_part(choice, own)

    def _add_part(self, choice: Tokens, own: int) -> None:
        """A request that computes a choice, and reports its places from `own` on, or the one after the prompt."""
        request = self._request
        prompt = tuple(request.input_ids)
        asked = tuple(self._children[choice[:i]] for i in range(own, max(len(choice), 1)))
        part = replace(
            request,
            input_ids=(*prompt, *choice),
            params=SamplingParams(max_new_tokens=0, temperature=0.0),
            logprobs=LogprobParams(start=len(prompt) + own - 1 if choice else len(prompt), each=asked),
            choices=(),
            stream=False,
            rid=f"{request.rid}/{len(self.parts)}",
        )
        self.parts.append(part)

    def receive(self, part: GenerateRequest, output: Output) -> None:
        """The event of one of `parts`; the last of them, or the first failure, is passed on."""
        if self._failed:
            return
        assert output.finish is not None, "requests that only score have one event"
        if output.error is not None or output.finish.type not in ("stop", "length"):
            self._failed = True
            self._sink(replace(output, rid=self._request.rid, prompt_logprobs=()))
            return
        choice = tuple(part.input_ids[self._prompt_length :])
        # Of a prompt, the first place only says where those with values begin.
        scored = output.prompt_logprobs[1:] if choice else output.output_logprobs
        for i, place in enumerate(scored, max(len(choice), 1) - len(scored)):
            self._logprobs[choice[:i]] = {token: x for x, token, _ in place.asked if x is not None}
        self._usages[part.rid] = output.usage
        if len(self._usages) == len(self.parts):
            logprobs = tuple(
                tuple(self._logprobs[choice[:i]][token] for i, token in enumerate(choice))
                for choice in self._choices
            )
            self._sink(
                Output(self._request.rid, finish=output.finish, usage=self._usage(), choice_logprobs=logprobs)
            )

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_length + sum(map(len, self._children.values())),
            cached_tokens=min(self._usages[self.parts[0].rid].cached_tokens, self._prompt_length),
            computed_tokens=sum(usage.computed_tokens for usage in self._usages.values()),
        )


def _children(choices: Sequence[Tokens]) -> dict[Tokens, Tokens]:
    """The trie: the tokens that follow each prefix in some choice."""
    found: dict[Tokens, dict[int, None]] = {}
    for choice in choices:
        for i, token in enumerate(choice):
            found.setdefault(choice[:i], {})[token] = None
    return {prefix: tuple(tokens) for prefix, tokens in found.items()}


def _common(a: Tokens, b: Tokens) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
