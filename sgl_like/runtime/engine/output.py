"""What happens after sampling: matcher, forced tokens, text, stops, and events to the client."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from sgl_like.errors import ConstraintError, SglError
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.engine.request import Request
from sgl_like.runtime.protocol import FinishReason, Output

log = logging.getLogger(__name__)


class OutputProcessor:
    """Adds tokens to requests and finds out when they end.

    Args:
        eos_token_ids: the model's end-of-sequence tokens.
    """

    def __init__(self, eos_token_ids: Iterable[int]) -> None:
        self._eos = frozenset(eos_token_ids)

    def start(self, request: Request, known: Sequence[int] = ()) -> None:
        """Before a request's first step: text that its constraint forces from the outset.

        Args:
            request: has no output yet.
            known: the beginning of what the output is known to become; it is forced only as far as it agrees.
        """
        if request.matcher is not None and request.max_tokens > request.prompt_length:
            self._jump_forward(request, request.matcher, known)
            self._end_if_done(request)

    def accept(self, request: Request, token: int, known: Sequence[int] = ()) -> None:
        """Add a sampled token and whatever it forces; sets `request.finish` when that ends the request. `known` is
        what is known to come after the token; see `start`.
        """
        matcher = request.matcher
        if matcher is not None:
            accepted = matcher.accept_token(token)
            assert accepted, f"token {token} was sampled against its mask"
        self._append(request, token)
        if request.finish is None and matcher is not None:
            self._jump_forward(request, matcher, known)
        self._end_if_done(request)

    def send(self, request: Request) -> None:
        """Give the client what is new, if it streams or this is the end."""
        if request.finish is None and not request.source.stream:
            return
        if request.finish is not None:
            request.detokenizer.finish()
        text = request.detokenizer.release(final=request.finish is not None)
        new, forced = request.take_new_tokens()
        if request.finish is None and not text and not new:
            return
        scores = request.scores
        prompt, scored = scores.new() if scores is not None else ((), ())
        pooling = request.pooling if request.finish is not None else None
        self._emit(
            request,
            Output(
                request.rid,
                text,
                new,
                request.finish,
                usage=request.usage,
                prompt_logprobs=prompt,
                output_logprobs=scored,
                forced=forced,
                embedding=None if pooling is None else pooling.mean(),
                timing=request.timing,
            ),
        )

    def fail(self, request: Request, error: SglError, kind: str = "error") -> None:
        """End a request with an error; what it has produced so far is sent along."""
        request.finish = FinishReason("abort" if kind == "abort" else "error", message=str(error))
        request.detokenizer.finish()
        text = request.detokenizer.release(final=True)
        new, forced = request.take_new_tokens()
        self._emit(
            request,
            Output(
                request.rid,
                text,
                new,
                request.finish,
                error,
                request.usage,
                forced=forced,
                timing=request.timing,
            ),
        )

    def _end_if_done(self, request: Request) -> None:
        """End an output to which its constraint has nothing to add, or that has used up its tokens."""
        if request.finish is not None:
            return
        matcher, used_up = request.matcher, request.tokens_left <= 0
        complete = matcher is not None and matcher.is_complete
        if matcher is not None and complete and _nothing_left(matcher, self._eos):
            request.finish = FinishReason("stop")
        elif used_up:  # a structural tag is complete wherever its text is free
            free = request.source.params.structural_tag is not None
            request.finish = FinishReason("stop" if complete and not free else "length")

    def _append(self, request: Request, token: int) -> None:
        request.tokens.extend((token,))
        if request.ending is not None:
            request.ending.took(token)
        if request.edits is not None:
            request.edits.observe(token)
        params = request.source.params
        ends = token in self._eos and (request.matcher is not None or not params.ignore_eos)
        if ends or token in params.stop_token_ids:
            request.finish = FinishReason("stop", token)
        elif request.detokenizer.push(token):
            request.finish = FinishReason("stop", request.detokenizer.matched)
        if len(request.tokens) == len(request.source.input_ids):  # the client has had the text so far
            request.detokenizer.release(final=request.finish is not None)

    def _jump_forward(self, request: Request, matcher: Matcher, known: Sequence[int]) -> None:
        """Append tokens that the constraint forces; the next step extends by them instead of sampling."""
        if not request.source.params.jump_forward:
            return
        for place, token in enumerate(matcher.forced_tokens()):
            left = request.tokens_left
            if request.finish is not None or left <= 0:
                return
            if place < len(known) and token != known[place]:
                return
            if request.ending is not None and not request.ending.fits(matcher, token, left):
                return  # in fewer tokens it may
            if not matcher.accept_token(token):
                return
            request.forced.append(len(request.tokens) - request.prompt_length)
            self._append(request, token)

    def _emit(self, request: Request, output: Output) -> None:
        try:
            request.sink(output)
        except Exception:  # a client's mistake must not stop the engine
            log.exception("the receiver of request %s failed", request.rid)


def _nothing_left(matcher: Matcher, eos: frozenset[int]) -> bool:
    """Whether a complete output can only be followed by end-of-sequence tokens, or by no token at all."""
    mask = np.zeros((1, (matcher.vocab_size + 31) // 32), dtype=np.int32)
    try:
        matcher.fill_mask(mask, 0)
    except ConstraintError:  # the vocabulary has nothing for it, not even an end-of-sequence token
        return True
    for token in eos:
        mask[0, token // 32] &= ~np.int32(np.uint32(1 << (token % 32)).view(np.int32))
    return not mask.any()
