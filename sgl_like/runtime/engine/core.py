"""The engine without its thread: requests in, one step at a time, events out.

    step: plan ──> forward ──> masks ──> sample ──> accept, jump forward ──> publish KV ──> send

A step that fails ends the requests that were in it, each with an error, and nothing else.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sgl_like.errors import ConstraintError, DeadlineExceeded, EngineError, RequestAborted, SglError
from sgl_like.runtime.engine.draws import Scoring, leave_room, row_changes, with_masks
from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.output import OutputProcessor
from sgl_like.runtime.engine.request import Request
from sgl_like.runtime.engine.runner import ModelRunner
from sgl_like.runtime.engine.scheduler import Row, Scheduler
from sgl_like.runtime.engine.speculation import Speculation, next_place
from sgl_like.runtime.engine.statistics import EngineStats
from sgl_like.runtime.protocol import FinishReason
from sgl_like.runtime.sampling.edits import apply_edits

log = logging.getLogger(__name__)


class EngineCore:
    """Everything that happens between a request and its last event, on one thread.

    Args:
        runner: model and KV tensors.
        memory: KV slots.
        scheduler: queue and plans; shares `memory`.
        output: what follows sampling.
        speculation: adds drafts to steps; None: there are none.
        clock: the time in seconds that deadlines are compared with.
    """

    def __init__(
        self,
        runner: ModelRunner,
        memory: KVMemory,
        scheduler: Scheduler,
        output: OutputProcessor,
        speculation: Speculation | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.memory = memory
        self.scheduler = scheduler
        self.stats = EngineStats()
        self._runner = runner
        self._output = output
        self._speculation = speculation
        self._requests: dict[str, Request] = {}
        self._clock = clock
        self._deadlines: list[tuple[float, str]] = []  # heap; entries of ended requests are passed over

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._requests)

    @property
    def requests(self) -> Sequence[Request]:
        """Requests in flight."""
        return list(self._requests.values())

    def add(self, request: Request) -> None:
        """Take in a request that has passed all checks."""
        self._requests[request.rid] = request
        self.stats.constrained_requests += request.matcher is not None
        if request.arrived is None:
            request.arrived = self._clock()
        for deadline in (request.deadline, request.start_deadline):
            if deadline is not None:
                self._watch_deadline(deadline, request.rid)
        try:
            if not request.source.produced:
                with request.patience:
                    self._output.start(request)
        except SglError as error:
            self._end_with(request, error)
            return
        if request.finish is not None and not request.owes_scores:
            self._end(request)
        else:
            self.scheduler.add(request)

    def abort(self, rid: str) -> None:
        """End a request early; an id that is not in flight is ignored."""
        request = self._requests.get(rid)
        if request is not None:
            self._end_with(request, RequestAborted("the request was cancelled"), "abort")

    def fail_all(self, error: SglError) -> None:
        """End every request with an error."""
        for request in self.requests:
            self._end_with(request, error)
        self.memory.settle(computed=False)

    def close(self) -> None:
        """After the last request: keep what is cached for a later process, if there is a place for it.

        Nothing works after that. Whoever still holds the core (the traceback of an error that a state keeps, say) does
        not hold its tensors: to free them on a thread that outlives Python's would abort the process.
        """
        try:
            self.memory.close()
        finally:
            vars(self).clear()

    def flush_cache(self) -> bool:
        """Forget every prefix that no running request uses; whether nothing is cached now."""
        return self.memory.flush()

    def step(self) -> None:
        """Advance the requests in flight by one forward pass."""
        self._end_overdue()
        began = self._clock()
        rows = self.scheduler.plan()
        if not rows:
            return
        for row in rows:
            if row.request.started is None:
                row.request.started = began
        self._try(rows)
        self.stats.step_seconds.add(self._clock() - began)

    def _try(self, rows: list[Row]) -> None:
        try:
            if self._speculation is not None:
                rows = self._speculation.extend(rows)
            with torch.inference_mode():
                self._run(rows)
        except Exception as error:
            log.exception("a step with %d requests failed", len(rows))
            for request in (row.request for row in rows):
                if request.rid in self._requests:
                    self._end_with(
                        request, EngineError(f"the engine failed in this step: {error}"), keep=False
                    )
            self.memory.settle(computed=False)

    def check_invariants(self) -> None:
        """Assert what must hold between steps (design: invariants)."""
        running, waiting = self.scheduler.running, self.scheduler.waiting
        self.memory.check(running)
        waiting.check()
        everyone = {id(r) for r in (*running, *waiting.requests())}
        assert len(everyone) == len(running) + len(waiting) == len(self._requests)
        page = self.memory.page_size
        for request in running:
            assert request.shared <= request.computed < len(request.tokens)
            assert request.computed <= len(request.slots) < request.computed + page
        for request in waiting.requests():
            assert request.node is None and len(request.slots) == 0
        if not self._requests:
            assert self.memory.tree.locked_count == self.memory.pinned, "locks are left over"

    def _run(self, rows: list[Row]) -> None:
        hidden = self._runner.forward(rows)
        self.memory.settle(computed=True)
        self._runner.score(hidden, rows)
        self._runner.pool(hidden, rows)
        ready = [i for i, row in enumerate(rows) if row.new_tokens == row.request.pending]
        for row in rows:
            request, count = row.request, row.new_tokens
            request.computed += count
            request.computed_tokens += row.size
            self.stats.computed_tokens += row.size
            if request.computed - count < request.prompt_length:
                self.memory.publish(request)
        self.stats.steps += 1
        self.stats.last_step_requests, self.stats.last_step_tokens = len(rows), len(hidden)
        self.stats.step_tokens.add(len(hidden))
        sampling = [i for i in ready if self._goes_on(rows[i].request)]
        if sampling:
            logits = self._runner.last_logits(hidden, rows, sampling)
            self._sample_drafts([rows[i] for i in sampling], logits)
        now = self._clock()
        for i in ready:
            request = rows[i].request
            if request.prefilled is None:
                request.prefilled = now
            if request.rid not in self._requests:
                continue
            if request.finish is None:
                self._output.send(request)
            elif not request.owes_scores:
                self._end(request)

    def _watch_deadline(self, deadline: float, rid: str) -> None:
        if len(self._deadlines) > 2 * len(self._requests) + 100:  # most of them have ended
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._requests]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, rid))

    def _end_overdue(self) -> None:
        """End requests whose deadline has passed, wherever they are."""
        while self._deadlines and self._deadlines[0][0] <= self._clock():
            deadline, rid = heapq.heappop(self._deadlines)
            request = self._requests.get(rid)
            if request is None:
                continue
            if request.deadline == deadline:
                limit = request.source.deadline
                error = DeadlineExceeded(f"the request was not done within its deadline of {limit:g} s")
                self._end_with(request, error, "abort")
            elif request.computed_tokens == 0:  # otherwise it has begun in time
                limit = request.source.start_within
                self._end_with(
                    request, DeadlineExceeded(f"the request still waited after {limit:g} s"), "abort"
                )

    def _goes_on(self, request: Request) -> bool:
        """Whether a request whose tokens are all computed samples another one."""
        if request.finish is not None:  # it only had scores to wait for
            return False
        if len(request.tokens) < request.max_tokens:
            return True
        request.finish = FinishReason("length")
        return False

    def _sample_drafts(self, rows: list[Row], logits: Tensor) -> None:
        """Sample each row's next token, and on as long as it is the one that its draft has there."""
        if not any(row.draft for row in rows):
            self._sample([row.request for row in rows], logits)
            return
        assert self._speculation is not None
        ends = np.cumsum([1 + len(row.draft) for row in rows]).tolist()
        firsts = {row.request.rid: end - 1 - len(row.draft) for row, end in zip(rows, ends, strict=True)}
        going = [(row, 0) for row in rows]
        while going:
            wanted = [firsts[row.request.rid] + place for row, place in going]
            self._sample([row.request for row, _ in going], logits[wanted])
            alive = [
                row for row, _ in going if row.request.rid in self._requests and row.request.finish is None
            ]
            going = [(row, place) for row in alive if (place := next_place(row)) is not None]
        for row in rows:
            if row.draft and row.request.rid in self._requests:
                self.stats.draft_tokens += len(row.draft)
                self.stats.accepted_tokens += self._speculation.settle(row)

    def _sample(self, requests: list[Request], logits: Tensor) -> None:
        scoring = Scoring(requests, logits)
        apply_edits(logits, row_changes(requests))
        able = [i for i, request in enumerate(requests) if self._can_go_on(request)]
        if len(able) < len(requests):
            requests, logits = [requests[i] for i in able], logits[able]
        if not requests:
            return
        masked = with_masks(requests, logits)
        taken: list[tuple[Request, int]] = []
        for i, token in enumerate(masked.sample([request.sampler for request in requests])):
            try:
                with requests[i].patience:
                    fitting = leave_room(requests[i], token, masked, i)
            except SglError as error:
                self._end_with(requests[i], error)
                continue
            if fitting is None:
                requests[i].finish = FinishReason("stop")
            else:
                taken.append((requests[i], fitting))
        scoring.add({request.rid: token for request, token in taken})
        self.stats.sampled_tokens += len(taken)
        for request, token in taken:
            try:
                with request.patience:
                    self._output.accept(request, token)
            except SglError as error:
                self._end_with(request, error)

    def _can_go_on(self, request: Request) -> bool:
        """Whether a request's constraint, if it has one, allows any token. One of which that fails ends here."""
        if request.matcher is None:
            return True
        try:
            with request.patience:
                base, more = request.matcher.mask_parts()
            if not len(more) and not base.any():
                raise ConstraintError(
                    "no token of the model's vocabulary can continue the constrained output"
                )
        except SglError as error:
            self._end_with(request, error)
            return False
        return True

    def _end(self, request: Request) -> None:
        self.stats.finished_requests += 1
        request.ended = self._clock()
        self.stats.forced_tokens += request.forced_tokens
        self.stats.cached_tokens += request.usage.cached_tokens
        self.stats.prompt_tokens += request.prompt_length
        del self._requests[request.rid]
        self.scheduler.remove(request)
        self._output.send(request)

    def _end_with(self, request: Request, error: SglError, kind: str = "error", keep: bool = True) -> None:
        if kind == "abort":
            self.stats.aborted_requests += 1
        else:
            self.stats.failed_requests += 1
        request.ended = self._clock()
        del self._requests[request.rid]
        self.scheduler.remove(request, keep)
        self._output.fail(request, error, kind)


def add_all(core: EngineCore, requests: Sequence[Request]) -> None:
    """Take in several requests."""
    for request in requests:
        core.add(request)


def abort_all(core: EngineCore, rids: Sequence[str]) -> None:
    """End several requests early."""
    for rid in rids:
        core.abort(rid)
