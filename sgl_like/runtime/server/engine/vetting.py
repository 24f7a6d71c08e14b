"""Whether a constraint is good enough to be let into the engine: asked in a process that may be killed.

A constraint is compiled, its first mask and a shortest output are found, and some tokens of a random output are read,
with the clock running: a constraint that is quick to compile can still explode a few tokens later. Times are those of
the processor, so that a busy machine does not make a good constraint bad.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.occurrences import OccurrenceSearch, Pattern
from sgl_like.runtime.engine.constraints import matcher_of
from sgl_like.runtime.engine.ending import needs
from sgl_like.runtime.sampling_params import SamplingParams

STEP_SECONDS = 0.1
"""Of the processor, for one question to a matcher. The engine asks them between two tokens of everybody."""
TRIAL_SECONDS = 0.5
"""For all of them, and `WALK_TOKENS` tokens of an output."""
VOCABULARY = 32768
"""Up to this number of tokens. Larger vocabularies have more time."""
WALK_TOKENS = 24
FORCED_TOKENS = 2
"""Of them, those before which it is asked what is forced: with the embedded model 0.5 ms each, most of a trial."""
_TEXT = "".join(map(chr, range(32, 127))) * 2

T = TypeVar("T")


def vet(compiler: GrammarCompiler, params: SamplingParams) -> None:
    """Compile and try the constraints of some parameters.

    Raises:
        ConstraintError: one is malformed.
        ConstraintTooComplex: one takes too long.
    """
    watch = Watch(max(1.0, compiler.vocabulary.size / VOCABULARY))
    for source in params.stop_regex:
        try:
            search = OccurrenceSearch([Pattern(source)])
        except ConstraintError as error:
            raise type(error)(f"stop_regex: {error}") from None
        watch.time("stop_regex", lambda search=search: [search.push(c) for c in _TEXT])  # type: ignore[misc]
    if params.is_constrained:
        _vet_constraint(compiler, params, watch)


def _vet_constraint(compiler: GrammarCompiler, params: SamplingParams, watch: Watch) -> None:
    matcher = matcher_of(compiler, params)
    mask = np.zeros((1, compiler.vocabulary.words), dtype=np.int32)
    watch.time("the first mask", lambda: matcher.fill_mask(mask, 0))
    watch.time("a shortest output", lambda: needs(matcher, compiler.vocabulary, params))
    chance = random.Random(0)
    for at in range(WALK_TOKENS):
        forced = watch.time("the tokens that are forced", matcher.forced_tokens) if at < FORCED_TOKENS else []
        token = forced[0] if forced else _any_token(mask[0], chance)
        if token is None or token in compiler.vocabulary.eos_token_ids:
            return
        watch.time("a token", lambda token=token: matcher.accept_token(token))  # type: ignore[misc]
        watch.time("a mask", lambda: matcher.fill_mask(mask, 0))


class Watch:
    """Measures questions to a matcher.

    Args:
        factor: how much more time there is than usual.
    """

    def __init__(self, factor: float) -> None:
        self._step = STEP_SECONDS * factor
        self._left = TRIAL_SECONDS * factor

    def time(self, what: str, run: Callable[[], T]) -> T:
        """The answer to a question.

        Raises:
            ConstraintTooComplex: it, or all so far, took too long.
        """
        begun = time.thread_time()
        try:
            return run()
        finally:
            took = time.thread_time() - begun
            self._left -= took
            if took > self._step or self._left < 0:
                raise ConstraintTooComplex(f"the constraint is too complex: {what} takes too long to find")


def _any_token(mask: np.ndarray[tuple[int], np.dtype[np.int32]], chance: random.Random) -> int | None:
    allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
    return None if not len(allowed) else int(allowed[chance.randrange(len(allowed))])


def warm_up(compiler: GrammarCompiler) -> None:
    """Find what most constraints have in common, once for all processes that are forked later."""
    for params in _common():
        vet(compiler, params)


def _common() -> Iterator[SamplingParams]:
    yield SamplingParams(regex="[a-z]+[0-9]{2,4}|.*")
    yield SamplingParams(json_schema='{"type": "object"}')
    members = '"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "number"}'
    item = f'{{"type": "object", "properties": {{{members}}}}}'
    yield SamplingParams(json_schema=f'{{"type": "array", "items": {item}, "minItems": 1}}', whitespace="any")
    yield SamplingParams(json_schema=item)
    yield SamplingParams(ebnf='root ::= "a" [b-c]+')
