"""What crosses the border between the engine and whoever uses it: requests in, output events out.

A request gets any number of events with ``finish is None`` and then exactly one terminal event, which has
either a `FinishReason` or, if it failed, a finish reason of type ``"error"`` or ``"abort"`` and the error.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sgl_like.errors import RequestError, SglError
from sgl_like.runtime.logprobs import LogprobParams, PlaceLogprobs
from sgl_like.runtime.sampling_params import SamplingParams

FinishType = Literal["stop", "length", "abort", "error"]


def new_request_id() -> str:
    """A fresh request id, unique for all practical purposes."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to extend (and sample from), or to score.

    Args:
        input_ids: prompt token ids, at least one.
        params: how to sample; ``max_new_tokens`` may be 0 where only log-probabilities are wanted.
        logprobs: which log-probabilities to report, if any.
        choices: token sequences, any of which could follow `input_ids`. Nothing is sampled then; the terminal event
            has the log-probabilities of their tokens. What they share is computed once.
        embed: compute `input_ids` only; the terminal event has their embedding. ``max_new_tokens`` has to be 0.
        stream: whether events are wanted before the terminal one.
        rid: request id; must be unique among requests in flight.
        priority: requests with a larger one are admitted first; among equals the scheduler's own order holds.
        deadline: seconds from submission after which the request ends with `DeadlineExceeded`, wherever it is.
        namespace: requests share cached prefixes only with others of the same one (a tenant's salt).
        produced: so many tokens at the end of `input_ids` are output already: of an earlier request with the same
            parameters that broke off. It goes on as that would have: constraint, stops, penalties, random numbers and
            limits count them as output. Events have only what is new; in `Usage` they are output.
        start_within: seconds after which the request ends with `DeadlineExceeded` if it still waits for its first step.

    Raises:
        RequestError: a field other than `params` and `logprobs` is of the wrong type or out of range.
    """

    input_ids: Sequence[int]
    params: SamplingParams
    logprobs: LogprobParams | None = None
    choices: Sequence[Sequence[int]] = ()
    stream: bool = False
    rid: str = field(default_factory=new_request_id)
    priority: int = 0
    deadline: float | None = None
    namespace: str = ""
    embed: bool = False
    produced: int = 0
    start_within: float | None = None

    @property
    def prompt_length(self) -> int:
        """How many of `input_ids` are the prompt."""
        return len(self.input_ids) - self.produced

    def __post_init__(self) -> None:
        if not isinstance(self.embed, bool):
            raise RequestError(f"embed must be True or False, not {self.embed!r}")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise RequestError(f"priority must be an integer, not {self.priority!r}")
        if not isinstance(self.namespace, str):
            raise RequestError(f"namespace must be a string, not {self.namespace!r}")
        known = self.produced
        if isinstance(known, bool) or not isinstance(known, int) or known < 0:
            raise RequestError(f"produced must be an integer of at least 0, not {known!r}")
        _check_seconds("deadline", self.deadline)
        _check_seconds("start_within", self.start_within)


def _check_seconds(name: str, after: float | None) -> None:
    if after is not None and (
        isinstance(after, bool)
        or not isinstance(after, int | float)
        or not (math.isfinite(after) and after > 0)
    ):
        raise RequestError(f"{name} must be a finite number of seconds above 0, not {after!r}")


@dataclass(frozen=True, slots=True)
class FinishReason:
    """Why a request ended.

    ``stop``: `matched` is the end-of-sequence or stop token id, or the stop string; or ``None`` when a
    constraint had nothing left to add. ``length``: ``max_new_tokens`` or the context window was used up.
    """

    type: FinishType
    matched: int | str | None = None
    message: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As in SGLang's ``meta_info["finish_reason"]``: absent fields are left out."""
        out: dict[str, Any] = {"type": self.type}
        if self.matched is not None:
            out["matched"] = self.matched
        if self.message is not None:
            out["message"] = self.message
        return out


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    ``completion_tokens = sampled + forced``. `computed_tokens` is what went through the model for this request, those
    tokens that were computed again after it had to give up its KV counted again, and those of drafts. Of `draft_tokens`
    (see `runtime/engine/speculation.py`) `accepted_tokens` became part of the output.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    forced_tokens: int = 0
    computed_tokens: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went in the engine, in seconds. ``None``: it ended before that part began.

    Args:
        queued_s: from submission until the first step that it was part of, or until its end.
        prefill_s: from then until all that was known was computed, which gives the first sampled token.
        decode_s: from then until its end.
    """

    queued_s: float
    prefill_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """An event of one request. `text` and `token_ids` are what is new since the event before.

    On the terminal event `choice_logprobs` has the natural logarithms of the probabilities of the tokens of each of
    `GenerateRequest.choices`, each given everything before it. `prompt_logprobs` and `output_logprobs` are what
    `GenerateRequest.logprobs` asked for, as far as it is new; those of forced tokens may come later than the tokens.
    `forced` holds the places in `token_ids` of tokens that the constraint forced, so that they were not sampled.
    `embedding`, on the terminal event of `GenerateRequest.embed`, is the mean of all the prompt's hidden states, after
    the last norm.
    `timing` is on the terminal event of everything but choices, if the engine measured it.
    `reasoning` is what the model thought, from servers that tell it from the text themselves; it is no part of `text`.
    """

    rid: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish: FinishReason | None = None
    error: SglError | None = None
    usage: Usage = field(default_factory=Usage)
    choice_logprobs: tuple[tuple[float, ...], ...] | None = None
    prompt_logprobs: tuple[PlaceLogprobs, ...] = ()
    output_logprobs: tuple[PlaceLogprobs, ...] = ()
    forced: tuple[int, ...] = ()
    reasoning: str = ""
    embedding: tuple[float, ...] | None = None
    timing: Timing | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether this is the request's last event."""
        return self.finish is not None


OutputSink = Callable[[Output], None]
"""Called on the engine's thread for every event; must be quick and must not raise."""
