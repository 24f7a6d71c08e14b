"""A request inside the engine: its sequence, where that sequence's KV is, and how it goes on.

tokens    [ prompt ................ | output ...... ]
slots     [ tree's ........ | own ....... ]           one per token whose KV is (being) computed, then spare ones
                  shared ──┘             └── len(slots)
computed tokens are those whose KV is done; the rest of `tokens` is what the next steps extend by. Slots come in whole
pages, so the last of them may be still unused; what is shared is whole pages.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.cache.radix_cache import Node
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.engine.drafts import DraftLength
from sgl_like.runtime.engine.ending import Ending
from sgl_like.runtime.engine.patience import UNBOUNDED, Patience
from sgl_like.runtime.engine.pooling import Pooling
from sgl_like.runtime.engine.scores import Scores
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, OutputSink, Timing, Usage
from sgl_like.runtime.sampling.edits import RowEdits
from sgl_like.runtime.sampling.sampler import RowSampler
from sgl_like.runtime.tokenizer.detokenizer import Detokenizer


class IntBuffer:
    """A growing int32 array."""

    __slots__ = ("_data", "_size")

    def __init__(self, values: Any = ()) -> None:
        self._data = np.array(values, dtype=np.int32)
        self._size = len(self._data)

    def __len__(self) -> int:
        return self._size

    def view(self, start: int = 0, end: int | None = None) -> NDArray[np.int32]:
        """Entries ``start .. end`` without copying; valid until the buffer changes."""
        return self._data[start : self._size if end is None else end]

    def extend(self, values: Any) -> None:
        """Append some values."""
        size = self._size + len(values)
        if size > len(self._data):
            self._data = np.concatenate((self._data[: self._size], np.empty(size + 32, dtype=np.int32)))
        self._data[self._size : size] = values
        self._size = size

    def cut(self, size: int) -> None:
        """Keep only the first `size` entries."""
        self._size = min(self._size, size)


@dataclass(slots=True, eq=False)
class Request:
    """One sequence being worked on. Built by `intake`, changed only on the engine's thread."""

    source: GenerateRequest
    sink: OutputSink
    max_tokens: int  # longest the sequence may become
    sampler: RowSampler
    detokenizer: Detokenizer
    matcher: Matcher | None
    tokens: IntBuffer
    edits: RowEdits | None = None
    ending: Ending | None = None  # if it has a matcher
    patience: Patience = UNBOUNDED  # with its matcher
    ranked: int | None = None  # leading tokens that decide on its rank, if not all
    order: int = 0  # arrival, given by the scheduler
    deadline: float | None = None  # time.monotonic() at which it has to have ended
    start_deadline: float | None = None  # the same for its first step
    slots: IntBuffer = field(default_factory=IntBuffer)
    computed: int = 0
    shared: int = 0
    node: Node | None = None  # locked path in the tree, ends the shared part
    cached_tokens: int | None = None  # of the prompt, found at the first admission
    computed_tokens: int = 0  # all that went through the model, again after a retraction
    forced: list[int] = field(
        default_factory=list
    )  # places in the output of tokens that the constraint forced
    drafting: DraftLength | None = None
    draft_tokens: int = 0  # computed in the hope that they come next
    accepted_tokens: int = 0  # of them, those that did
    sent_tokens: int = 0
    scores: Scores | None = None
    pooling: Pooling | None = None  # if an embedding is wanted
    finish: FinishReason | None = None
    arrived: float | None = None  # this and the next three: time.monotonic()
    started: float | None = None  # first step
    prefilled: float | None = None  # end of the step that computed all that was known first
    ended: float | None = None

    @property
    def rid(self) -> str:
        """The id that the client knows."""
        return self.source.rid

    @property
    def namespace(self) -> str:
        """Which cached prefixes it may use."""
        return self.source.namespace

    @property
    def priority(self) -> int:
        """Larger goes first."""
        return self.source.priority

    @property
    def prompt_length(self) -> int:
        """Tokens that the client gave as the prompt."""
        return self.source.prompt_length

    @property
    def pending(self) -> int:
        """Tokens that wait to be computed."""
        return len(self.tokens) - self.computed

    @property
    def tokens_left(self) -> int:
        """How many may still come."""
        return self.max_tokens - len(self.tokens)

    @property
    def match_limit(self) -> int:
        """How many leading tokens may come from the cache: what the model must look at is computed again."""
        if self.scores is not None:
            return min(len(self.tokens), self.scores.next_place) - 1
        if self.pooling is not None:
            return min(len(self.tokens) - 1, self.pooling.next_place)
        return len(self.tokens) - 1

    @property
    def rank_limit(self) -> int:
        """How many leading tokens count for its place in the queue. Those that score choices of one prompt have one
        rank and so keep their order, which is that in which each uses what those before it compute.
        """
        return self.match_limit if self.ranked is None else min(self.ranked, self.match_limit)

    @property
    def owes_scores(self) -> bool:
        """Whether a step is needed for the log-probabilities of tokens that the request has already."""
        return self.scores is not None and self.scores.next_place < len(self.tokens)

    def take_new_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The output's tokens that no event has had yet, and the places among them of forced ones."""
        output, sent = self.tokens.view(self.prompt_length), self.sent_tokens
        self.sent_tokens = len(output)
        forced = self.forced[bisect_left(self.forced, sent) :]
        return tuple(output[sent:].tolist()), tuple(place - sent for place in forced)

    @property
    def forced_tokens(self) -> int:
        """How many tokens of the output the constraint forced."""
        return len(self.forced)

    @property
    def timing(self) -> Timing | None:
        """Once it has ended: where its time went."""
        if self.arrived is None or self.ended is None:
            return None
        if self.started is None:
            return Timing(self.ended - self.arrived)
        if self.prefilled is None:
            return Timing(self.started - self.arrived, self.ended - self.started)
        return Timing(self.started - self.arrived, self.prefilled - self.started, self.ended - self.prefilled)

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(
            prompt_tokens=self.prompt_length,
            completion_tokens=len(self.tokens) - self.prompt_length,
            cached_tokens=min(self.cached_tokens or 0, self.prompt_length),
            forced_tokens=self.forced_tokens,
            computed_tokens=self.computed_tokens,
            draft_tokens=self.draft_tokens,
            accepted_tokens=self.accepted_tokens,
        )
