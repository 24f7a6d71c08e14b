"""From the logs of a run to its trace.

Text that was given once may have been sent by several requests (the forks of a state all send what is before them). It
is shown with the tokens of the first, and as cached only where every request that brought it anew found it in the
cache; otherwise one of them had it computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.operations.sample import usage_dict
from sgl_like.frontend.view.format import (
    Alternative,
    Branch,
    Choice,
    Failure,
    Fork,
    Kind,
    Part,
    Refused,
    Token,
    Trace,
    plain,
)
from sgl_like.frontend.view.log import (
    Ended,
    Forked,
    GenRecord,
    Given,
    Joined,
    Log,
    Requested,
    Sample,
    SelectRecord,
)
from sgl_like.frontend.view.tokens import Slice, spread_given, spread_output
from sgl_like.runtime.logprobs import PlaceLogprobs

if TYPE_CHECKING:
    from sgl_like.frontend.backend.base import Backend
    from sgl_like.frontend.interpreter import Interpreter
    from sgl_like.frontend.prompt import Prompt

__all__ = ["trace_of"]


def trace_of(interpreter: Interpreter) -> Trace:
    """What the state and its forks have done so far; does not wait."""
    context = interpreter.context
    builder = _Builder(context.backend)
    builder.cover(interpreter)
    return Trace(context.program, context.backend.model_name, builder.branch(interpreter))


class _Builder:
    """Makes one trace: first the tokens of given texts from all requests, then the parts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._tokens: dict[Given, list[Token]] = {}
        self._cached: dict[
            Given, int
        ] = {}  # how many of the tokens each request found in the cache, at least

    def cover(self, of: Interpreter | Ended) -> None:
        """Take in the tokens that the requests of a state and its forks made of given texts."""
        for step in list(_log(of).steps):
            if isinstance(step, Requested):
                self._cover_request(step)
            elif isinstance(step, Forked):
                for child in step.children:
                    self.cover(child)

    def branch(self, of: Interpreter | Ended) -> Branch:
        """The parts of a state, and how it stands."""
        if isinstance(of, Ended):
            return Branch(self._parts(of.log), usage_dict(of.usage))
        with of.watch.holding():
            shown, error = "".join(of.chunks), of.error
            running = error is None and not of.idle
        parts = self._parts(of.prompt.log)
        partial = shown[sum(len(piece.text) for piece in list(of.prompt.pieces)) :]
        if partial:
            parts.append(_partial(partial, of.prompt, error, running))
        return Branch(parts, usage_dict(of.usage), _failure(error), running)

    def _parts(self, log: Log) -> list[Part | Fork]:
        parts: list[Part | Fork] = []
        for step in list(log.steps):
            match step:
                case Given():
                    if step.text:
                        tokens = self._given_tokens(step)
                        parts.append(Part("text", step.text, tokens, step.role, step.message, step.markup))
                case Requested():
                    parts.append(self._request_part(step))
                case Forked():
                    parts.append(Fork([self.branch(child) for child in step.children]))
                case Joined():
                    at = max(
                        i for i, part in enumerate(parts) if isinstance(part, Fork) and part.join is None
                    )
                    fork = parts[at]
                    assert isinstance(fork, Fork), "only forks are joined"
                    parts[at] = Fork(fork.branches, step.mode)
        return parts

    # -- given texts --------------------------------------------------------------------------------------------

    def _cover_request(self, step: Requested) -> None:
        spread = self._spread(step)
        if spread is None:
            return
        cached = _usage(step.record).get("cached_tokens", 0) - step.start
        scores = _prompt_scores(step)
        healed = {each.token for each in spread[-1] if each.joined} if _is_select(step) else set()
        for given, slices in zip(step.covered, spread, strict=False):
            if given not in self._tokens:
                self._tokens[given] = [
                    self._given_token(step, each, scores, "healed" if each.token in healed else "prompt")
                    for each in slices
                ]
            found = sum(each.token < cached for each in slices)
            self._cached[given] = min(found, self._cached.get(given, found))

    def _spread(self, step: Requested) -> list[list[Slice]] | None:
        """The tokens of the texts that a request covered; of a select, those of its choice come last."""
        texts = [given.text for given in step.covered]
        if _is_select(step):
            texts.append(step.text)
        pieces = self._backend.token_pieces(step.given_ids)
        return None if pieces is None or not texts else spread_given(pieces, texts)

    def _given_token(
        self, step: Requested, each: Slice, scores: Mapping[int, PlaceLogprobs], kind: Kind = "prompt"
    ) -> Token:
        place = scores.get(each.token, PlaceLogprobs((None, -1, None)))
        token, top = step.given_ids[each.token], self._alternatives(place)
        return Token(each.text, kind, token, place.token[0], top, each.cut, each.joined)

    def _given_tokens(self, given: Given) -> list[Token] | None:
        tokens = self._tokens.get(given)
        if tokens is None:
            return None
        cached = self._cached[given]
        return [replace(token, kind="cached") if i < cached else token for i, token in enumerate(tokens)]

    # -- requests -----------------------------------------------------------------------------------------------

    def _request_part(self, step: Requested) -> Part:
        record = step.record
        if isinstance(record, SelectRecord):
            choices = [Choice(text, probability) for text, probability in record.choices.items()]
            return Part(
                "select", step.text, self._selected(step), step.role, step.message, name=record.name,
                usage=usage_dict(record.usage), seconds=record.seconds, choices=choices,
            )  # fmt: skip
        if record is None:
            return Part("gen", step.text, None, step.role, step.message)
        first, *others = [self._output(step, record, sample) for sample in record.samples]
        refused = [Refused(text, reason) for text, reason in record.refused]
        params, seconds = plain(record.params), record.seconds
        return replace(first, params=params, seconds=seconds, others=others, refused=refused)

    def _output(self, step: Requested, record: GenRecord, sample: Sample) -> Part:
        return Part(
            "gen", sample.text, self._sampled(sample), step.role, step.message, name=record.name,
            finish=dict(sample.finish), usage=usage_dict(sample.usage),
        )  # fmt: skip

    def _sampled(self, sample: Sample) -> list[Token] | None:
        scores = dict(enumerate(sample.logprobs))
        ids: Sequence[int] = sample.ids
        pieces = self._backend.token_pieces(ids)
        if pieces is None:  # log-probabilities may bring the texts
            texts = [place.token[2] for place in sample.logprobs]
            if not texts or None in texts:
                return None
            ids = [place.token[1] for place in sample.logprobs]
            pieces = [text.encode("utf-8", "replace") for text in texts if text is not None]
        slices, forced = spread_output(pieces, sample.text), set(sample.forced)
        if slices is None:
            return None
        tokens = []
        for each in slices:
            place = scores.get(each.token, PlaceLogprobs((None, -1, None)))
            kind: Kind = "forced" if each.token in forced else "sampled"
            tokens.append(
                Token(each.text, kind, ids[each.token], place.token[0], self._alternatives(place), each.cut)
            )
        return tokens

    def _selected(self, step: Requested) -> list[Token] | None:
        spread = self._spread(step)
        if spread is None:
            return None
        scores = _prompt_scores(step)
        return [
            self._given_token(step, each, scores, "healed" if each.joined else "selected")
            for each in spread[-1]
        ]

    def _alternatives(self, place: PlaceLogprobs) -> list[Alternative]:
        return [Alternative(self._text(token, text), logprob, token) for logprob, token, text in place.top]

    def _text(self, token: int, text: str | None) -> str:
        if text is None:
            pieces = self._backend.token_pieces([token])
            if pieces is None:
                return f"#{token}"
            return pieces[0] if isinstance(pieces[0], str) else pieces[0].decode("utf-8", "replace")
        return text


def _partial(text: str, prompt: Prompt, error: ProgramError | None, running: bool) -> Part:
    """Text that is shown but not in the prompt: of a gen that goes on or broke off, or all of a state that was restored
    from a checkpoint.
    """
    role = None if prompt.role is None else prompt.role.role
    message = None if role is None else len(prompt.messages)
    if not running and error is None:
        return Part("text", text, None, role, message)
    name = None if error is None else error.variable
    return Part("gen", text, None, role, message, name=name, broken=error is not None)


def _log(of: Interpreter | Ended) -> Log:
    return of.log if isinstance(of, Ended) else of.prompt.log


def _is_select(step: Requested) -> bool:
    return isinstance(step.record, SelectRecord)


def _usage(record: GenRecord | SelectRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    return usage_dict(record.usage if isinstance(record, SelectRecord) else record.samples[0].usage)


def _prompt_scores(step: Requested) -> dict[int, PlaceLogprobs]:
    """Scores of the last given tokens of a request, by their place in `given_ids`."""
    record = step.record
    places: Sequence[PlaceLogprobs] = ()
    if isinstance(record, SelectRecord):
        places = [PlaceLogprobs((logprob, -1, None)) for logprob in record.logprobs]
    elif record is not None:
        places = record.samples[0].prompt_logprobs
    return dict(enumerate(places, len(step.given_ids) - len(places)))


def _failure(error: ProgramError | None) -> Failure | None:
    if error is None:
        return None
    cause = error.__cause__
    return Failure(str(error), error.node, None if cause is None else f"{type(cause).__name__}: {cause}")
