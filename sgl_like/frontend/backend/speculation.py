r"""``num_api_spec_tokens``: one request for several gens, where every request costs a round trip and the prompt again.

A gen is asked for without its stop strings and for more tokens than it wants. What the model has written beyond it is
kept, and serves the gens after it as long as the program's own text between them is what the model wrote:

    program    "Name:" gen(stop="\n") "\nBorn:" gen(stop="\n")
    answer      Name: Ada             \nBorn: 1815           \nDied: ...
                      `-- first gen --'      `- second, without a request

Limits are counted in tokens, those of the answer's log-probabilities, where a limit could cut it at all (b#26). An API
that cannot continue a message that is begun (`Backend.opening`) is asked for the whole message, up to `TRIES` times,
until its texts are where the program has them; there, a gen without stop strings ends where the next text begins.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from sgl_like.errors import EngineError, RequestError, SamplingParamsError
from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink
from sgl_like.frontend.backend.remote.codec import decode
from sgl_like.frontend.backend.wrapped import Wrapped
from sgl_like.frontend.params import derived_seed
from sgl_like.runtime.protocol import FinishReason, Output, Usage, new_request_id
from sgl_like.runtime.sampling_params import CONSTRAINTS

__all__ = ["Follow", "Speculation", "checked_spec_tokens", "speculating"]

TRIES = 3
_APART = frozenset({"max_new_tokens", "stop", "seed"})  # what may differ between gens of one answer
_UNSUITED = frozenset(
    {*CONSTRAINTS, "return_logprob", "stop_regex", "stop_token_ids", "ignore_eos", "min_new_tokens", "no_stop_trim",
     "bad_words"}
)  # fmt: skip


class Follow(NamedTuple):
    """What a program has after a gen, in the same message: given text, or another gen (`text` is ``None``)."""

    text: str | None
    stop: tuple[str, ...] = ()
    limit: int = 0


@dataclass
class _Answer:
    """What the model wrote after some ids."""

    prompt: tuple[int, ...]
    sampler: Mapping[str, Any]
    text: str = ""
    ends: list[int] = field(default_factory=list)  # where each token ends in `text`, if that is known
    total: int = 0  # tokens
    ended: bool = False  # by the model itself
    taken: int = 0  # characters that gens were served with


class _Cut(NamedTuple):
    """The output of one gen, cut out of an answer."""

    text: str
    finish: FinishReason


def checked_spec_tokens(tokens: int | None) -> int | None:
    """`tokens` itself.

    Raises:
        ValueError: it is not at least 1.
    """
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise ValueError(f"num_api_spec_tokens must be an integer of at least 1, not {tokens!r}")
    return tokens


def speculating(backend: Backend, tokens: int | None) -> Backend:
    """`backend`, with `tokens` asked for at a time; as it is where that is of no use: where ids are tokens, a request
    costs no more than what is new in it.
    """
    return backend if tokens is None or backend.ids_are_tokens else Speculation(backend, tokens)


class Speculation(Wrapped):
    """A backend for one run, in front of another."""

    def __init__(self, backend: Backend, tokens: int) -> None:
        super().__init__(backend)
        self.executor = backend.executor  # runs are many, and share it
        self._tokens = tokens
        self._lock = threading.Lock()
        self._answers: list[_Answer] = []  # the newest last
        self._follows: dict[tuple[int, ...], list[Follow]] = {}

    def expect(self, prompt_ids: Sequence[int], follows: list[Follow]) -> None:
        """Say what the program has after the gen that will be asked for next, after `prompt_ids`."""
        with self._lock:
            self._follows[tuple(prompt_ids)] = follows

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """Serve a gen from what was written already, or ask for it and more; see `Backend.submit`."""
        ids = tuple(prompt_ids)
        with self._lock:
            follows = self._follows.pop(ids, [])
        if any(params.get(name) not in (None, False, 0, "", (), []) for name in _UNSUITED):
            return self.inner.submit(ids, params, sink, stream)
        return _Gen(self, ids, params, sink, stream, follows).start()


class _Gen:
    """One gen: the answer it is cut out of, and the requests that it takes to get one."""

    def __init__(
        self,
        owner: Speculation,
        ids: tuple[int, ...],
        params: Mapping[str, Any],
        sink: Sink,
        stream: bool,
        follows: list[Follow],
    ) -> None:
        opening = owner.inner.opening(ids)
        stop = params.get("stop") or ()
        self._owner = owner
        self._ids = ids
        self._params = params
        self._sink = sink
        self._stream = stream
        self._follows = follows
        self._whole = opening is not None  # the whole message has to be asked for
        self._start = len(ids) if opening is None else opening
        self._limit = int(params.get("max_new_tokens", 128))
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        self._sampler = {name: value for name, value in params.items() if name not in _APART}
        self._tries = 0
        self._spent = Usage()
        self._cancelled = False
        self._handle: Handle | None = None

    def start(self) -> Handle:
        """Serve it from an answer that is there, or ask."""
        with self._owner._lock:
            cuts = (self._take_from(answer) for answer in reversed(self._owner._answers))
            cut = next((cut for cut in cuts if cut is not None), None)
        if cut is None:
            self._ask()
        else:
            self._serve(cut, Usage())
        return self

    def cancel(self) -> None:
        """See `Handle.cancel`."""
        self._cancelled = True
        if self._handle is not None:
            self._handle.cancel()

    def _serve(self, cut: _Cut, usage: Usage) -> None:
        ids = self._owner.inner.encode([Segment(cut.text, trusted=False)]) if cut.text else []
        self._sink(Output(new_request_id(), cut.text, tuple(ids), cut.finish, usage=usage))

    def _ask(self) -> None:
        self._tries += 1
        tokens, backend = self._owner._tokens, self._owner.inner
        asked = {**self._sampler, "max_new_tokens": tokens}
        seed = self._params.get("seed")
        if seed is not None:  # another try is another draw
            asked["seed"] = seed if self._tries == 1 else derived_seed(seed, (self._tries,))
        answer = _Answer(self._ids[: self._start], self._sampler)
        sink = partial(self._on_output, answer)
        limits = [self._limit, *(follow.limit for follow in self._follows if follow.text is None)]
        if min(limits) < tokens:  # it may have to be cut at a token
            try:
                logged = {**asked, "return_logprob": True, "return_text_in_logprobs": True}
                self._handle = backend.submit(answer.prompt, logged, sink, False)
                return
            except SamplingParamsError:  # the engine has none; an answer that ends in time needs none
                pass
        self._handle = backend.submit(answer.prompt, asked, sink, False)

    def _on_output(self, answer: _Answer, output: Output) -> None:
        """The answer, on the backend's thread."""
        self._spent = _sum(self._spent, output.usage)
        if output.finish is None or output.finish.type in ("error", "abort"):
            self._sink(output)
            return
        answer.text, answer.ends = output.text, _token_ends(output)
        answer.total = output.usage.completion_tokens or self._owner._tokens
        answer.ended = output.finish.type == "stop"
        cut = self._cut_from(answer)
        if cut is not None and (not self._whole or self._fits(answer, cut)):
            with self._owner._lock:
                self._take_from(answer)
                self._owner._answers.append(answer)
            self._serve(cut, self._spent)
            return
        try:
            self._go_on(answer, cut)
        except (RequestError, EngineError) as error:
            finish = FinishReason("error", message=str(error))
            self._sink(Output(output.rid, finish=finish, error=error, usage=self._spent))

    def _go_on(self, answer: _Answer, cut: _Cut | None) -> None:
        """The answer is of no use."""
        if not self._whole or (self._start == len(self._ids) and not self._follows):
            # it wants more than is asked for at a time, and nothing else is in the way: ask for it alone
            self._handle = self._owner.inner.submit(self._ids, self._params, self._alone, self._stream)
        elif self._tries < TRIES:
            self._ask()
        else:
            raise RequestError(
                f"the whole message was asked for {TRIES} times, but {self._why(answer, cut)}; the last was"
                f" {answer.text[:200]!r}"
            )
        if self._cancelled and self._handle is not None:
            self._handle.cancel()

    def _alone(self, output: Output) -> None:
        """An event of a request for this gen alone; the answers that were of no use are paid for as well."""
        self._sink(replace(output, usage=_sum(self._spent, output.usage)))

    def _why(self, answer: _Answer, cut: _Cut | None) -> str:
        given, tokens = self._given(), self._owner._tokens
        if not answer.text.startswith(given):
            return f"it does not begin with {given[-60:]!r}"
        if cut is not None:
            texts = [follow.text for follow in self._follows if follow.text]
            return f"its texts {texts!r} are not where the program has them, or beyond {tokens} tokens"
        return (
            f"the gen does not end within num_api_spec_tokens={tokens}, or its max_tokens cannot be counted"
        )

    def _given(self) -> str:
        """What stands in the message before this gen."""
        return _text(self._ids[self._start :])

    def _take_from(self, answer: _Answer) -> _Cut | None:
        """The part of this gen, once: forks and samples that each want their own draw do not get the same one."""
        cut = self._cut_from(answer)
        if cut is None:
            return None
        begin = len(_text(self._ids[len(answer.prompt) :]))
        if begin < answer.taken and self._params.get("temperature", 1.0) > 0:
            return None
        answer.taken = begin + len(cut.text)
        return cut

    def _cut_from(self, answer: _Answer) -> _Cut | None:
        """The part of this gen in `answer`; ``None`` if it has none, or not all of it."""
        done = len(answer.prompt)
        if self._ids[:done] != answer.prompt or answer.sampler != self._sampler:
            return None
        given = _text(self._ids[done:])
        if not answer.text.startswith(given):
            return None
        begin = len(given)
        found = _first_of(answer.text, self._stop, begin)
        if found is None and self._whole and not self._stop and self._follows and self._follows[0].text:
            at = answer.text.find(self._follows[0].text, begin)
            found = None if at < 0 else (at, None)
        end = len(answer.text) if found is None else found[0]
        limit = self._limit_of(answer, begin)
        if limit is None:
            return None
        if limit < end:
            return _Cut(answer.text[begin:limit], FinishReason("length"))
        if found is None and not answer.ended and limit > end:
            return None
        if found is None and not answer.ended:
            return _Cut(answer.text[begin:end], FinishReason("length"))
        return _Cut(answer.text[begin:end], FinishReason("stop", found[1] if found else None))

    def _limit_of(self, answer: _Answer, begin: int) -> int | None:
        """Where in the answer's text `max_new_tokens` are used up: beyond it if they are not; ``None``: not known."""
        if answer.total < self._limit or (answer.total == self._limit and not begin):
            return len(answer.text) + (answer.total < self._limit)
        if not answer.ends:
            return None
        after = [end for end in answer.ends if end > begin]
        return after[self._limit - 1] if len(after) >= self._limit else len(answer.text) + 1

    def _fits(self, answer: _Answer, cut: _Cut) -> bool:
        """Whether the texts after this gen are where the program has them."""
        at = len(self._given()) + len(cut.text)
        for number, follow in enumerate(self._follows):
            if follow.text is not None:
                if not answer.text.startswith(follow.text, at):
                    return False
                at += len(follow.text)
                continue
            after = self._follows[number + 1] if number + 1 < len(self._follows) else None
            stops = follow.stop or ((after.text,) if after is not None and after.text else ())
            found = _first_of(answer.text, stops, at)
            if found is None:
                return after is None and answer.ended
            at = found[0]
        return True


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        a.prompt_tokens + b.prompt_tokens,
        a.completion_tokens + b.completion_tokens,
        a.cached_tokens + b.cached_tokens,
    )


def _text(ids: Sequence[int]) -> str:
    return "".join(segment.text for segment in decode(ids))


def _first_of(text: str, stops: Sequence[str], begin: int) -> tuple[int, str | None] | None:
    """Where the first of `stops` is, and which; of those at one place the longest."""
    found = [(text.find(stop, begin), -len(stop), stop) for stop in stops if stop in text[begin:]]
    return (min(found)[0], min(found)[2]) if found else None


def _token_ends(output: Output) -> list[int]:
    """Where each token ends in the text, if log-probabilities say so."""
    ends: list[int] = []
    at = 0
    for place in output.output_logprobs:
        at += len(place.token[2] or "")
        ends.append(at)
    return ends if at >= len(output.text) else []
