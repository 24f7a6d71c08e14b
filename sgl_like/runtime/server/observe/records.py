"""What is known about calls and their requests while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from sgl_like.errors import ConstraintError, DeadlineExceeded, EngineError, RequestAborted, RequestError
from sgl_like.runtime.protocol import GenerateRequest, Output, Timing, Usage
from sgl_like.runtime.server.observe.totals import Totals

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from sgl_like.runtime.server.observe.observer import Observer

CLIENT_GONE = 499
"""The status that is logged and counted when there was nobody left to send one to (nginx's number)."""


class RequestRecord:
    """One sequence: when its tokens came, and how it ended. `add` is called for every output and costs 0.33 µs
    (``python examples/bench/observe_cost.py``, 2 cores).

    Args:
        call: whose it is.
        request: what is asked.
        totals: where its numbers go.
    """

    __slots__ = (
        "call",
        "finish",
        "first",
        "last",
        "request",
        "submitted",
        "timing",
        "tokens",
        "totals",
        "usage",
    )

    def __init__(self, call: CallRecord, request: GenerateRequest, totals: Totals) -> None:
        self.call = call
        self.request = request
        self.totals = totals
        self.submitted = perf_counter()
        self.first: float | None = None
        self.last = 0.0
        self.tokens = 0
        self.finish: str | None = None
        self.usage = Usage()
        self.timing: Timing | None = None

    def add(self, output: Output) -> None:
        """Take note of an output."""
        now = perf_counter()
        tokens = len(output.token_ids)
        if tokens:
            totals = self.totals
            if self.first is None:
                self.first = now
                self.call.first_token(now)
            else:
                totals.inter_token.add((now - self.last) / tokens, tokens)
            self.last = now
            self.tokens += tokens
            totals.generation_tokens[self.request.stream] += tokens
        if output.finish is not None:
            usage = output.usage
            if not usage.prompt_tokens and self.tokens:  # an engine that died says nothing about it
                usage = Usage(len(self.request.input_ids), self.tokens)
            self.end(self._reason(output), usage, output.timing)

    def _reason(self, output: Output) -> str:
        assert output.finish is not None
        error = output.error
        if isinstance(error, RequestError | ConstraintError) and not self.tokens:
            return "rejected"
        if isinstance(error, DeadlineExceeded):
            self.call.cause = self.call.cause or "deadline"
        elif isinstance(error, EngineError) and not isinstance(error, RequestAborted):
            self.call.cause = self.call.cause or "engine"
        return output.finish.type

    def end(self, reason: str, usage: Usage, timing: Timing | None = None) -> None:
        """It has ended: ``"stop"``, ``"length"``, ``"abort"``, ``"error"``, or ``"rejected"`` if it never began."""
        if self.finish is not None:
            return
        now = perf_counter()
        self.finish = reason
        self.usage = usage
        self.timing = timing
        self.call.observer.open.pop(id(self), None)
        totals, request, tenant = self.totals, self.request, self.call.tenant
        totals.ended[reason] += 1
        if reason == "rejected":
            return
        if reason == "abort":
            totals.aborted[self.call.cause or "other"] += 1
        totals.prompt_tokens[request.stream] += usage.prompt_tokens
        totals.cached_tokens += usage.cached_tokens
        totals.forced_tokens += usage.forced_tokens
        totals.tenant_tokens[tenant, "prompt"] += usage.prompt_tokens
        totals.tenant_tokens[tenant, "generation"] += self.tokens
        if reason in ("stop", "length"):
            self._observe(now)

    def _observe(self, now: float) -> None:
        totals, stream = self.totals, self.request.stream
        totals.e2e[stream].add(now - self.submitted)
        totals.prompt_lengths.add(self.usage.prompt_tokens)
        totals.generation_lengths.add(self.tokens)
        if self.first is not None and stream:
            totals.first_token[stream].add(self.first - self.submitted)
            if self.tokens > 1:
                totals.per_output_token.add((self.last - self.first) / (self.tokens - 1))
        timing = self.timing
        if timing is None:
            return
        totals.queue.add(timing.queued_s)
        if timing.prefill_s is None:
            return
        decode = timing.decode_s or 0.0
        totals.prefill.add(timing.prefill_s)
        totals.decode.add(decode)
        totals.inference.add(timing.prefill_s + decode)
        if not stream and self.tokens:  # only the engine knows
            totals.first_token[stream].add(timing.queued_s + timing.prefill_s)
            if self.tokens > 1:
                totals.per_output_token.add(decode / (self.tokens - 1))


class CallRecord:
    """One HTTP request: ``with observer.begin(...) as record`` around its handler.

    Its requests may outlive it: the engine's last word about one comes after the client has gone.

    `status` is to be set before the end. `cause` says why its requests were cut short, if they were; whoever does that
    sets it before: ``"disconnected"``, ``"slow_reader"``, ``"deadline"``, ``"drain"``, ...

    Args:
        observer: who keeps it.
        id: of the call.
        method: of HTTP.
        route: the route's template, never the path that was sent.
        received: when it came, as of `perf_counter`.
    """

    __slots__ = (
        "cause", "error_code", "first", "id", "method", "observer", "received", "requests", "route", "span", "status",
        "tenant", "wall",
    )  # fmt: skip

    def __init__(
        self, observer: Observer, id: str, method: str, route: str, received: float, wall: float
    ) -> None:
        self.observer = observer
        self.id = id
        self.method = method
        self.route = route
        self.received = received
        self.wall = wall
        self.tenant = "default"
        self.status = 500
        self.cause: str | None = None
        self.error_code: str | None = None
        self.first: float | None = None
        self.requests: list[RequestRecord] = []
        self.span: Span | None = None

    def submit(self, requests: Sequence[GenerateRequest]) -> list[RequestRecord]:
        """The call's requests are about to be given to the engine."""
        return self.observer.submitted(self, requests)

    def first_token(self, now: float) -> None:
        """A request of it has its first token."""
        if self.first is None:
            self.first = now
            self.observer.first_token(self)

    def __enter__(self) -> CallRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | ConnectionError):
            self.status = CLIENT_GONE
            self.cause = self.cause or "disconnected"
        self.observer.ended(self)
