"""Spans of OpenTelemetry for runs and their gens, by way of hooks.

    span answer                    a run; a child of the span that is current where it begins
    ├── span gen('draft')          a gen or select: model, tokens, finish reason
    └── span gen('answer')

Attributes have the names of OpenTelemetry's conventions for generative AI. Needs the package ``opentelemetry-api``,
which the extra ``otel`` brings; what becomes of the spans is up to the SDK that the application sets up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ConfigError
from sgl_like.frontend.bodies.hooks import EVENTS, Event, on

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["instrument_opentelemetry"]


def instrument_opentelemetry(tracer_provider: TracerProvider | None = None) -> Callable[[], None]:
    """Make a span of every run and of every gen in it; returns a function that ends this.

    Args:
        tracer_provider: where the spans go; by default OpenTelemetry's global one.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise ConfigError(
            "OpenTelemetry is not installed; install it with: pip install 'sgl-like[otel]'"
        ) from error
    spans = _Spans(trace.get_tracer("sgl_like", tracer_provider=tracer_provider))
    removes = [on(name, getattr(spans, f"on_{name}")) for name in EVENTS]

    def end() -> None:
        for remove in removes:
            remove()

    return end


class _Spans:
    """The spans that have begun: by the run, and by the gen or ``None`` for the run itself."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._lock = threading.Lock()
        self._open: dict[int, dict[int | None, Span]] = {}

    def on_run_start(self, event: Event) -> None:
        span = self._tracer.start_span(event.program, attributes={"gen_ai.request.model": event.model})
        with self._lock:
            self._open[event.run] = {None: span}

    def on_gen_start(self, event: Event) -> None:
        from opentelemetry.trace import set_span_in_context

        with self._lock:
            spans = self._open.get(event.run)
        if spans is None:  # it began before this was switched on
            return
        attributes = {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.request.model": event.model,
            "sgl_like.program": event.program,
        }
        if event.variable is not None:
            attributes["sgl_like.variable"] = event.variable
        span = self._tracer.start_span(
            event.node or "gen", context=set_span_in_context(spans[None]), attributes=attributes
        )
        with self._lock:
            spans[event.gen] = span

    def on_gen_end(self, event: Event) -> None:
        if (span := self._take(event)) is None:
            return
        if event.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", event.usage.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", event.usage.completion_tokens)
            span.set_attribute("sgl_like.usage.cached_tokens", event.usage.cached_tokens)
        reason: Any = (event.meta or {}).get("finish_reason")
        if isinstance(reason, dict):
            span.set_attribute("gen_ai.response.finish_reasons", [str(reason.get("type"))])
        span.end()

    def on_error(self, event: Event) -> None:
        if event.gen is not None and (span := self._take(event)) is not None:
            _end_failed(span, event)

    def on_run_end(self, event: Event) -> None:
        with self._lock:
            spans = self._open.pop(event.run, {})
        for span in reversed(spans.values()):  # the run's own last
            if event.error is not None:
                _end_failed(span, event)
            else:
                span.end()

    def _take(self, event: Event) -> Span | None:
        with self._lock:
            return self._open.get(event.run, {}).pop(event.gen, None)


def _end_failed(span: Span, event: Event) -> None:
    from opentelemetry.trace import Status, StatusCode

    if event.error is not None:
        span.record_exception(event.error)
    span.set_status(Status(StatusCode.ERROR, str(event.error)))
    span.end()
