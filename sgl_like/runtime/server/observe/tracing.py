"""Spans of OpenTelemetry: one for each call, a child of the client's if it sent a ``traceparent``.

    span chat tiny                          the call: model, parameters, tokens, finish reasons, status
    └── event first_token                   when the first token of any of its requests came

Attributes are those of OpenTelemetry's conventions for HTTP servers and for generative AI; of prompts and outputs there
are none. There are spans if the package ``opentelemetry-api`` is there (the extra ``otel``) and somebody has set up
where they go: ``opentelemetry-instrument sgl-like serve`` does both, with the settings of its environment variables.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

    from sgl_like.runtime.server.observe.records import CallRecord

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
"""What the conventions call what a route does; other routes have spans without ``gen_ai`` attributes."""


def find_tracing(model: str, provider: TracerProvider | None = None) -> Tracing | None:
    """What makes spans, if anybody wants them.

    Args:
        model: what clients call it.
        provider: where spans go; by default OpenTelemetry's global one, if it has been set.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    if provider is None:
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # it stands for none
            return None
    return Tracing(model, provider)


class Tracing:
    """Makes spans of calls.

    Args:
        model: what clients call it.
        provider: where they go.
    """

    def __init__(self, model: str, provider: TracerProvider) -> None:
        self._model = model
        self._tracer = provider.get_tracer("sgl_like")

    def begin(self, call: CallRecord, headers: Mapping[str, str]) -> Span:
        """A call has come."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        operation = OPERATIONS.get(call.route)
        attributes = {
            "http.request.method": call.method,
            "http.route": call.route,
            "sgl_like.request_id": call.id,
        }
        if operation is not None:
            attributes |= {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "sgl_like",
                "gen_ai.request.model": self._model,
                "gen_ai.response.model": self._model,
            }
        return self._tracer.start_span(
            f"{call.method} {call.route}" if operation is None else f"{operation} {self._model}",
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=int(call.wall * 1e9),
        )

    def first_token(self, call: CallRecord, span: Span) -> None:
        """A call has its first token."""
        if span.is_recording():
            span.add_event("first_token", timestamp=time.time_ns())

    def end(self, call: CallRecord, span: Span) -> None:
        """A call has ended."""
        from opentelemetry.trace import StatusCode

        if span.is_recording():
            span.set_attributes(_attributes(call))
            if call.status >= 500:
                span.set_attribute("error.type", call.error_code or str(call.status))
                span.set_status(StatusCode.ERROR)
        span.end()


def _attributes(call: CallRecord) -> dict[str, str | int | float | bool | list[str]]:
    found: dict[str, str | int | float | bool | list[str]] = {
        "http.response.status_code": call.status,
        "sgl_like.tenant": call.tenant,
    }
    if call.cause is not None:
        found["sgl_like.cause"] = call.cause
    if not call.requests:
        return found
    first, usages = call.requests[0].request, [record.usage for record in call.requests]
    params = first.params
    found |= {
        "gen_ai.request.choice.count": len(call.requests),
        "gen_ai.request.max_tokens": params.max_new_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.top_k": params.top_k,
        "gen_ai.request.frequency_penalty": params.frequency_penalty,
        "gen_ai.request.presence_penalty": params.presence_penalty,
        "gen_ai.request.stream": first.stream,
        "gen_ai.response.finish_reasons": [record.finish or "abort" for record in call.requests],
        "gen_ai.usage.input_tokens": sum(usage.prompt_tokens for usage in usages),
        "gen_ai.usage.output_tokens": sum(record.tokens for record in call.requests),
        "gen_ai.usage.cache_read.input_tokens": sum(usage.cached_tokens for usage in usages),
    }
    if params.seed is not None:
        found["gen_ai.request.seed"] = params.seed
    if call.first is not None and first.stream:
        found["gen_ai.response.time_to_first_chunk"] = call.first - call.received
    return found
