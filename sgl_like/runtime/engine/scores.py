"""The log-probabilities that one request reports, gathered place by place.

place     0  1  2 | 3  4  5  6        a token is scored by the model's output at the place before it: those of
tokens    a  b  c | x  f  g  y        sampled tokens when they are sampled, those of prompt and forced tokens
                    s  forced s       in the step that computes the place before

What is wanted begins at one place and has no gaps, so the next place to be scored is all there is to remember.
"""

from __future__ import annotations

from collections.abc import Callable

from sgl_like.runtime.logprobs import NO_TOKEN, LogprobParams, PlaceLogprobs, TokenLogprob
from sgl_like.runtime.sampling.scoring import Given, Wanted


class Scores:
    """Of one request.

    Args:
        params: what is wanted.
        prompt: the prompt's token ids.
        text_of: text of a token.
        no_output: nothing will be sampled; what is asked of the place after the prompt is reported all the same
            (`after_prompt` says whether anything is).
    """

    def __init__(
        self, params: LogprobParams, prompt: list[int], text_of: Callable[[int], str], no_output: bool
    ) -> None:
        self._params = params
        self._text_of = text_of
        self._prompt_length = len(prompt)
        self.prompt: list[PlaceLogprobs] = []
        self.output: list[PlaceLogprobs] = []
        self.sent_prompt = 0
        self.sent_output = 0
        self.next_place = len(prompt) + params.skip
        if params.start is not None and params.start < len(prompt):
            self.next_place = params.start + 1  # as in SGLang, the first place is listed without a value
            self.prompt.append(PlaceLogprobs((None, prompt[params.start], self._text(prompt[params.start]))))
        self._first = self.next_place
        asked = params.top or params.token_ids or len(params.each) > len(prompt) - self._first
        self.after_prompt = no_output and bool(asked)

    def wanted(self, token: int | None, ahead: int = 0) -> Wanted:
        """What is to be known of the model's output for `add`: where a token (None: none) stands at `next_place`, or so
        many places after it.
        """
        params = self._params
        at = self.next_place + ahead - self._first
        each = params.each[at] if at < len(params.each) else ()
        return Wanted([*(() if token is None else (token,)), *params.token_ids, *each], params.top)

    def add(self, token: int | None, given: Given) -> None:
        """Score the token at `next_place`, or if there is none only others, by what was `wanted`."""
        asked = self._entries(given.logprobs, self.wanted(token).ids)
        own = NO_TOKEN
        if token is not None:
            own, *asked = asked
        top = self._entries(given.top_logprobs, given.top_ids)
        into = self.prompt if self.next_place < self._prompt_length else self.output
        into.append(PlaceLogprobs(own, tuple(top), tuple(asked)))
        self.next_place += 1

    def new(self) -> tuple[tuple[PlaceLogprobs, ...], tuple[PlaceLogprobs, ...]]:
        """What has come since the last call: of the prompt, and of the output."""
        prompt, output = self.prompt[self.sent_prompt :], self.output[self.sent_output :]
        self.sent_prompt, self.sent_output = len(self.prompt), len(self.output)
        return tuple(prompt), tuple(output)

    def _entries(self, logprobs: list[float], tokens: list[int]) -> list[TokenLogprob]:
        return [(x, token, self._text(token)) for x, token in zip(logprobs, tokens, strict=True)]

    def _text(self, token: int) -> str | None:
        return self._text_of(token) if self._params.text else None
