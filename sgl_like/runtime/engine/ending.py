"""Constrained outputs end within their budget: near its end, no token is taken after which too few are left.

The engine holds a plan, tokens that complete the output and are at most as many as are left. A token may be taken if
the plan begins with it, or if a completion of what it makes of the output fits into what is left then: that is the new
plan. Else it is banned and the next one is drawn; after some tries the plan's own token is taken.

    left    7   6   5   4   3   2   1   0
    plan    "} "}  "} "}  "}  "}   "}             the model wants to write on: from 2 on the plan ends the string

Completions are looked for in bytes and spelled in as few tokens as possible. A longer text of fewer tokens is not
looked for, so the plan is an upper bound: it is always enough, and for most vocabularies and constraints the least.

Farther from the end than `Needs.watch`, which is several times what can become missing by one token (see
`constrain/openings.py`), nothing is computed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sgl_like.errors import ConstraintError, ConstraintTooComplex, PromptTooLongError
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.openings import largest_opening, longest_unrolled
from sgl_like.runtime.constrain.spelling import fewest_tokens
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from sgl_like.runtime.sampling_params import SamplingParams

TRIES = 32
"""Tokens that are drawn before the plan's is taken."""
NEAR = 64
"""Tokens before the end of the budget from which on completions are looked for, at least."""

Plan = list[int]


class Needs(NamedTuple):
    """What outputs of a constraint need: tokens of a shortest one (None: unknown), and how many tokens before the end
    of the budget completions begin to be looked for.
    """

    tokens: int | None
    watch: int


def needs(matcher: Matcher, vocabulary: Vocabulary, params: SamplingParams) -> Needs:
    """The needs of the constraint of some parameters; `matcher` is fresh. Of those with equal constraints, alike."""
    try:
        text = matcher.shortest_completion()
    except ConstraintTooComplex:
        return Needs(None, 0)
    plan = fewest_tokens(vocabulary.trie, text)
    if plan is None:  # the vocabulary may spell other outputs
        return Needs(None, 0)
    schema, source = params.json_schema or params.structural_tag, params.regex or params.ebnf or ""
    opening = longest_unrolled(source) if schema is None else largest_opening(json.loads(schema))
    return Needs(len(plan), NEAR + 2 * (len(text) + opening))


def check_budget(need: Needs, max_new_tokens: int, room: int) -> None:
    """Whether a shortest output fits.

    Raises:
        ConstraintError: `max_new_tokens` are too few for any output.
        PromptTooLongError: the `room` that the prompt leaves is too small.
    """
    least = need.tokens or 0
    if least > max_new_tokens:
        raise ConstraintError(
            f"max_new_tokens={max_new_tokens} is too small: the shortest output that the constraint allows takes "
            f"{least} tokens"
        )
    if least > room:
        raise PromptTooLongError(
            f"the shortest output that the constraint allows takes {least} tokens; the prompt leaves room for {room}"
        )


@dataclass(slots=True)
class Ending:
    """Of one request.

    Args:
        vocabulary: its constraint's.
        watch: tokens left from which on completions are looked for.
    """

    vocabulary: Vocabulary
    watch: int
    _plan: Plan | None = None
    _next: tuple[int, Plan] | None = (
        None  # the token that fitted last, and what completes the output after it
    )
    _too_complex: bool = False  # a search has failed: it would again, and take long

    def choose(
        self, matcher: Matcher, token: int, left: int, redraw: Callable[[int], int | None]
    ) -> int | None:
        """The token to take: `token` if it leaves room for a completion, else another one; None: end here.

        Args:
            matcher: before the token.
            token: what was sampled.
            left: tokens that may still come, this one included.
            redraw: bans a token and samples again; None if no other is left.
        """
        if left > self.watch or not self._planned(matcher):
            return token
        other: int | None = token
        for _ in range(TRIES):
            if other is None:
                break
            if self.fits(matcher, other, left):
                return other
            other = redraw(other)
        return self._plan[0] if self._plan else None

    def fits(self, matcher: Matcher, token: int, left: int) -> bool:
        """Whether the output can be completed after a token that the matcher allows, when `left` may still come, the
        token included.
        """
        if left > self.watch or token in self.vocabulary.eos_token_ids or not self._planned(matcher):
            return True
        if self._plan and self._plan[0] == token and len(self._plan) <= left:
            return True
        if self._too_complex or not matcher.accept_token(token):
            return False
        after = self._find(matcher)
        matcher.rollback(1)
        if after is None or len(after) >= left:
            return False
        self._next = token, after
        return True

    def took(self, token: int) -> None:
        """The output has got this token."""
        if self._next is not None and self._next[0] == token:
            self._plan = self._next[1]
        elif self._plan is not None:
            self._plan = self._plan[1:] if self._plan and self._plan[0] == token else None
        self._next = None

    def _planned(self, matcher: Matcher) -> bool:
        if self._plan is None and not self._too_complex:
            self._plan = self._find(matcher)
        return self._plan is not None

    def _find(self, matcher: Matcher) -> Plan | None:
        try:
            return fewest_tokens(self.vocabulary.trie, matcher.shortest_completion())
        except ConstraintTooComplex:
            self._too_complex = True
            return None
