"""The one place where the front process takes note of what happens: counts, log lines, spans, what is in flight."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from time import perf_counter

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.server.observe.logs import log_call
from sgl_like.runtime.server.observe.records import CallRecord, RequestRecord
from sgl_like.runtime.server.observe.totals import Totals
from sgl_like.runtime.server.observe.tracing import Tracing


class Observer:
    """Takes note of calls, on the event loop.

    Args:
        tracing: makes spans of them.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self.totals = Totals()
        self.calls: dict[int, CallRecord] = {}
        """Those whose handlers run, by their `id()`."""
        self.open: dict[int, RequestRecord] = {}
        """Requests whose terminal output has not come, by their `id()`."""

    def begin(
        self, call_id: str, method: str, route: str, received: float, headers: Mapping[str, str]
    ) -> CallRecord:
        """A call has come; to be used as a context manager around its handler."""
        record = CallRecord(self, call_id, method, route, received, time.time())
        self.calls[id(record)] = record
        self.totals.http_requests[route, method] += 1
        self.totals.http_active[route, method] += 1
        if self._tracing is not None and method == "POST":
            record.span = self._tracing.begin(record, headers)
        return record

    def submitted(self, call: CallRecord, requests: Sequence[GenerateRequest]) -> list[RequestRecord]:
        """A call's requests are about to run; their records, in order."""
        totals = self.totals
        records = [RequestRecord(call, request, totals) for request in requests]
        call.requests += records
        self.open.update((id(record), record) for record in records)
        totals.tenant_requests[call.tenant] += len(records)
        for request in requests:
            totals.requests[request.stream] += 1
            totals.max_tokens.add(request.params.max_new_tokens)
            totals.constrained += request.params.is_constrained
        for _, copies in groupby(requests, key=lambda request: id(request.input_ids)):
            totals.outputs_asked.add(sum(1 for _ in copies))
        return records

    def cut(self, cause: str) -> None:
        """All that runs is about to be cut short."""
        for call in self.calls.values():
            call.cause = call.cause or cause

    def first_token(self, call: CallRecord) -> None:
        """A call has its first token."""
        if self._tracing is not None and call.span is not None:
            self._tracing.first_token(call, call.span)

    def ended(self, call: CallRecord) -> None:
        """A call's handler has returned or failed."""
        totals, key = self.totals, (call.route, call.method)
        self.calls.pop(id(call), None)
        totals.http_active[key] -= 1
        totals.http_responses[*key, call.status] += 1
        if self._tracing is not None and call.span is not None:
            self._tracing.end(call, call.span)
        log_call(call, perf_counter())
