"""Going on with an output that broke off elsewhere: the tokens known of it are taken in as if they came here.

    known     a  b  {  "  n  a  m  e  "           of a request that died with its engine or its connection
    replay    s  s  s  f  f  f  f  f  f           sampled ones take their random number, forced ones none

Everything that depends on the output so far, the matcher, the plan for its end, penalties, stops, text and random
numbers, is then where it was, so greedy and seeded outputs go on as they would have. No model is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgl_like.errors import RequestError
from sgl_like.runtime.engine.output import OutputProcessor
from sgl_like.runtime.engine.request import Request


def resume(request: Request, known: Sequence[int], output: OutputProcessor) -> None:
    """Take `request`, of which nothing but the prompt is there, to where its output has the tokens `known`.

    Raises:
        RequestError: no output of its parameters begins like that.
    """
    first = request.prompt_length
    request.sent_tokens = len(known)
    if request.max_tokens - first < len(known):
        raise RequestError(
            f"the output is known to have {len(known)} tokens, but at most {request.max_tokens - first} are allowed"
        )
    output.start(request, known)
    while (place := len(request.tokens) - first) < len(known):
        token = known[place]
        if request.finish is not None:
            raise RequestError(f"the known output goes on after it has ended, with token {token} at {place}")
        _check(request, token, place)
        if not request.sampler.params.is_greedy:
            request.sampler.draw()
        output.accept(request, token, known[place + 1 :])


def _check(request: Request, token: int, place: int) -> None:
    """Whether the token could have been taken."""
    matcher = request.matcher
    if matcher is None:
        return
    fits = request.ending is None or request.ending.fits(matcher, token, request.tokens_left)
    if not (fits and matcher.accept_token(token)):
        raise RequestError(
            f"the known output has token {token} at {place}, which its constraint does not allow"
        )
    matcher.rollback(1)
