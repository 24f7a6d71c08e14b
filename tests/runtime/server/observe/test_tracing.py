"""Spans, as OpenTelemetry's own SDK collects them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from sgl_like.runtime.server.observe.observer import Observer
from sgl_like.runtime.server.observe.tracing import find_tracing
from tests.support.servers import Running, running, wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans() -> Iterator[tuple[Running, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with running() as server:
        server.server.observer = Observer(find_tracing("tiny", provider))
        yield server, exporter
    provider.shutdown()


def send(server: Running, body: Any, headers: Mapping[str, str] | None = None) -> None:
    everything = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(server.url + "/v1/completions", json.dumps(body).encode(), everything)
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as error:
        error.read()
    wait_until(lambda: not server.server.observer.calls)


def only(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, Mapping[str, Any]]:
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    return span, span.attributes


def test_a_call_is_a_span_below_that_of_the_client(spans: tuple[Running, InMemorySpanExporter]) -> None:
    server, exporter = spans
    body = {"prompt": "play some", "max_tokens": 5, "temperature": 0, "seed": 3, "stream": True}
    send(server, body, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    span, attributes = only(exporter)
    assert span.name == "text_completion tiny" and span.kind is SpanKind.SERVER
    assert span.context is not None and span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE and f"{span.parent.span_id:016x}" == PARENT
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "sgl_like",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0,
        "gen_ai.request.seed": 3,
        "gen_ai.request.choice.count": 1,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.output_tokens": 5,
    }
    assert {name: attributes.get(name) for name in expected} == expected
    assert attributes["gen_ai.usage.input_tokens"] > 1
    assert attributes["gen_ai.response.time_to_first_chunk"] > 0
    (event,) = span.events
    assert event.name == "first_token"
    assert span.start_time is not None and span.end_time is not None
    assert span.start_time <= event.timestamp <= span.end_time
    assert not any("play" in str(value) for value in attributes.values())


def test_a_refused_call_is_a_span_too_and_no_error_of_ours(
    spans: tuple[Running, InMemorySpanExporter],
) -> None:
    server, exporter = spans
    send(server, {"prompt": "x", "max_tokens": -1})
    span, attributes = only(exporter)
    assert attributes["http.response.status_code"] == 400
    assert span.status.status_code is StatusCode.UNSET and not span.events


def test_a_failure_of_ours_is_an_error(
    spans: tuple[Running, InMemorySpanExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, exporter = spans
    server.server.draining = True
    send(server, {"prompt": "x"})
    span, attributes = only(exporter)
    assert (
        attributes["http.response.status_code"] == 503 and attributes["error.type"] == "service_unavailable"
    )
    assert span.status.status_code is StatusCode.ERROR


def test_probes_make_no_spans(spans: tuple[Running, InMemorySpanExporter]) -> None:
    server, exporter = spans
    urllib.request.urlopen(server.url + "/livez").read()
    urllib.request.urlopen(server.url + "/metrics").read()
    assert exporter.get_finished_spans() == ()


def test_a_call_that_is_not_sampled_costs_no_attributes() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with running() as server:
        server.server.observer = Observer(find_tracing("tiny", provider))
        send(server, {"prompt": "play", "max_tokens": 2})
    assert exporter.get_finished_spans() == ()


def test_without_a_provider_there_is_no_tracing() -> None:
    assert find_tracing("tiny") is None
