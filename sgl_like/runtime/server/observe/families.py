"""Our metrics: a name, a type and labels for each thing that is counted.

Labels have few values: routes are templates, tenants those of the configured keys, reasons words of ours. Nothing that
a client sends becomes one.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.wire import EngineInfo
from sgl_like.runtime.server.observe.histogram import Histogram
from sgl_like.runtime.server.observe.process import package_version
from sgl_like.runtime.server.observe.totals import Totals

Kind = Literal["counter", "gauge", "histogram"]
Value = float | Histogram


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Args:
        name: counters without ``_total``.
        kind: its type.
        help: one sentence.
        samples: values by those of `labels`.
        labels: their names.
    """

    name: str
    kind: Kind
    help: str
    samples: Mapping[tuple[str, ...], Value]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What metrics are made of.

    Args:
        totals: of the front process.
        state: of the engine.
        restarts: how many engines have died.
        info: about the engine; ``None`` before the first is ready.
        stats: what the engine said last.
        refused: calls that admission did not let in, by reason.
        in_flight: requests without a terminal output.
        draining: whether the server takes no more requests.
        throughput: tokens a second, of late.
        dropped_lines: of the log.
    """

    totals: Totals
    state: EngineState = "starting"
    restarts: int = 0
    info: EngineInfo | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    draining: bool = False
    throughput: float = 0.0
    dropped_lines: int = 0


REFUSALS = (
    "queue_requests",
    "queue_tokens",
    "max_requests",
    "fair_share",
    "requests_per_minute",
    "tokens_per_minute",
)
"""The reasons that `http/admission.py` has; they are there from the beginning, so that their rates are right."""

CAUSES = ("disconnected", "slow_reader", "deadline", "drain", "engine", "other")
"""Why sequences are cut short."""


def families(snapshot: Snapshot) -> dict[str, Family]:
    """All metrics by name."""
    found = [*_requests(snapshot), *_http(snapshot), *_engine(snapshot), *_cache(snapshot), *_times(snapshot)]
    return {family.name: family for family in found}


def _one(name: str, kind: Kind, help: str, value: Value) -> Family:
    return Family(name, kind, help, {(): value})


def _streaming(values: Mapping[bool, Value]) -> dict[tuple[str, ...], Value]:
    return {("true" if streaming else "false",): value for streaming, value in values.items()}


def _words(values: Mapping[str, float]) -> dict[tuple[str, ...], Value]:
    return {(word,): value for word, value in values.items()}


def _requests(snapshot: Snapshot) -> Iterator[Family]:
    t = snapshot.totals
    by_stream = ("streaming",)
    yield Family(
        "requests", "counter", "Sequences that were asked for: prompts times outputs of each.",
        _streaming(t.requests), by_stream,
    )  # fmt: skip
    yield Family(
        "requests_ended", "counter", "Sequences that ended, by how; rejected: the engine never ran them.",
        _words(t.ended), ("reason",),
    )  # fmt: skip
    yield Family(
        "requests_aborted", "counter", "Sequences that were cut short, by why.",
        _words({**dict.fromkeys(CAUSES, 0), **t.aborted}), ("cause",),
    )  # fmt: skip
    yield Family(
        "calls_refused", "counter", "Calls that were not let in because there was no room, by what was full.",
        _words({**dict.fromkeys(REFUSALS, 0), **snapshot.refused}), ("reason",),
    )  # fmt: skip
    yield _one("requests_in_flight", "gauge", "Sequences that have not ended.", snapshot.in_flight)
    yield _one(
        "constrained_requests", "counter", "Sequences held by a schema, a regex or a grammar.", t.constrained
    )
    yield Family(
        "prompt_tokens", "counter", "Tokens of prompts that ran, cached or not.",
        _streaming(t.prompt_tokens), by_stream,
    )  # fmt: skip
    yield _one(
        "prompt_tokens_cached", "counter", "Tokens of prompts that came from the cache.", t.cached_tokens
    )
    yield Family(
        "generation_tokens", "counter", "Tokens of outputs.", _streaming(t.generation_tokens), by_stream
    )
    yield _one(
        "forced_tokens",
        "counter",
        "Tokens of outputs that a constraint left no choice about.",
        t.forced_tokens,
    )
    yield _one("generation_throughput", "gauge", "Tokens of outputs a second, of late.", snapshot.throughput)
    yield Family("tenant_requests", "counter", "Sequences by tenant.", _words(t.tenant_requests), ("tenant",))
    yield Family(
        "tenant_tokens", "counter", "Tokens by tenant.",
        {(tenant, kind): count for (tenant, kind), count in t.tenant_tokens.items()}, ("tenant", "kind"),
    )  # fmt: skip


def _http(snapshot: Snapshot) -> Iterator[Family]:
    t = snapshot.totals
    yield Family(
        "http_requests", "counter", "HTTP requests by route.",
        {(route, method): count for (route, method), count in t.http_requests.items()}, ("route", "method"),
    )  # fmt: skip
    yield Family(
        "http_responses", "counter", "HTTP responses; 499: the client had gone.",
        {(route, method, str(status)): count for (route, method, status), count in t.http_responses.items()},
        ("route", "method", "status"),
    )  # fmt: skip
    yield Family(
        "http_requests_active", "gauge", "HTTP requests that are being answered.",
        {(route, method): count for (route, method), count in t.http_active.items()}, ("route", "method"),
    )  # fmt: skip
    yield _one("log_lines_dropped", "counter", "Lines that nobody read in time.", snapshot.dropped_lines)


def _engine(snapshot: Snapshot) -> Iterator[Family]:
    stats = snapshot.stats
    yield Family(
        "build_info", "gauge", "1; the versions are in the labels.",
        {(package_version(), platform.python_version()): 1.0}, ("version", "python"),
    )  # fmt: skip
    yield _one("engine_up", "gauge", "1 if the engine takes requests.", float(snapshot.state == "ready"))
    yield _one("engine_restarts", "counter", "Engines that died or were given up.", snapshot.restarts)
    yield _one(
        "draining", "gauge", "1 while running requests end before the server does.", float(snapshot.draining)
    )
    for name, help in (
        ("running_requests", "Sequences in the engine's batch."),
        ("running_tokens", "Their tokens, prompts and outputs."),
        ("running_constrained", "Of them, those held by a constraint."),
        ("waiting_requests", "Sequences that wait for the engine."),
        ("waiting_tokens", "Their tokens."),
    ):
        yield _one(name, "gauge", help, stats.get(name, 0))
    for name, key, help in (
        ("retractions", "retracted_requests", "Sequences that had to give up their KV and wait again."),
        ("retracted_prompt_tokens", "retracted_input_tokens", "Tokens of their prompts."),
        ("retracted_generation_tokens", "retracted_output_tokens", "Tokens of their outputs."),
        ("steps", "steps", "Forward passes; engine counters begin anew with each engine."),
        ("computed_tokens", "computed_tokens", "Tokens that went through the model."),
        ("sampled_tokens", "sampled_tokens", "Tokens that were drawn."),
        ("draft_tokens", "draft_tokens", "Tokens that were guessed before they were sampled."),
        ("draft_tokens_accepted", "accepted_tokens", "Of these, those that were right."),
        ("constraints_compiled", "constraints_compiled", "Schemas, regexes and grammars that were compiled."),
        ("constraints_found", "constraints_found", "Those that had been compiled before."),
        ("constraints_refused", "constraints_refused", "Those that cannot be compiled."),
    ):
        yield _one(name, "counter", help, stats.get(key, 0))
    for name, key, help in (
        ("step_time_seconds", "step_seconds", "What a forward pass takes, with all that belongs to it."),
        ("step_tokens", "step_tokens", "Tokens of a forward pass."),
        ("constraint_compile_seconds", "compile_seconds", "What the compilation of a constraint takes."),
    ):
        if key in stats:
            yield _one(name, "histogram", help, Histogram.of(stats[key]))
    if snapshot.info is not None:
        yield _one("context_length", "gauge", "Tokens of the longest sequence.", snapshot.info.context_length)
        yield _one(
            "max_running_requests", "gauge", "Sequences that may run at once.", snapshot.info.max_running_requests
        )  # fmt: skip
    memory = stats.get("memory_bytes")
    if isinstance(memory, Mapping):
        yield Family("memory_bytes", "gauge", "Memory of the engine, by part.", _words(memory), ("part",))


def _cache(snapshot: Snapshot) -> Iterator[Family]:
    stats = snapshot.stats
    total = stats.get("kv_slots", 0) or (snapshot.info.kv_slots if snapshot.info is not None else 0)
    free, evictable = stats.get("kv_free", total), stats.get("kv_evictable", 0)
    used = max(0, total - free - evictable)
    prompts = sum(snapshot.totals.prompt_tokens.values())
    yield _one("kv_tokens", "gauge", "Tokens that the KV pool holds.", total)
    yield _one("kv_tokens_free", "gauge", "Of these, those that hold nothing.", free)
    yield _one("kv_tokens_evictable", "gauge", "Of these, cached ones that nobody uses now.", evictable)
    yield _one("kv_tokens_used", "gauge", "Of these, those that running sequences use.", used)
    yield _one(
        "kv_usage", "gauge", "Share of the KV pool that is in use, 0 to 1.", used / total if total else 0.0
    )
    yield _one("kv_tokens_evicted", "counter", "Cached tokens that had to go.", stats.get("kv_evicted", 0))
    yield _one(
        "kv_tokens_loaded", "counter", "Tokens read back from the host tier.", stats.get("kv_loaded", 0)
    )
    yield _one(
        "kv_tokens_pinned", "gauge", "Cached tokens that are kept on request.", stats.get("kv_pinned", 0)
    )
    yield _one(
        "cache_hit_rate", "gauge", "Share of prompt tokens that came from the cache, since the start.",
        snapshot.totals.cached_tokens / prompts if prompts else 0.0,
    )  # fmt: skip


def _times(snapshot: Snapshot) -> Iterator[Family]:
    t = snapshot.totals
    yield Family(
        "time_to_first_token_seconds", "histogram", "From the submission of a sequence to its first token.",
        _streaming(t.first_token), ("streaming",),
    )  # fmt: skip
    yield Family(
        "e2e_request_latency_seconds", "histogram", "From the submission of a sequence to its end.",
        _streaming(t.e2e), ("streaming",),
    )  # fmt: skip
    for name, histogram, help in (
        ("inter_token_latency_seconds", t.inter_token, "Between two tokens of a streamed sequence."),
        ("time_per_output_token_seconds", t.per_output_token, "The mean of that, one for each sequence."),
        ("request_queue_time_seconds", t.queue, "What a sequence waited before it ran."),
        ("request_inference_time_seconds", t.inference, "What a sequence ran for."),
        ("request_prefill_time_seconds", t.prefill, "From the beginning of its run to its first token."),
        ("request_decode_time_seconds", t.decode, "From its first token to its last."),
        ("request_prompt_tokens", t.prompt_lengths, "Lengths of prompts."),
        ("request_generation_tokens", t.generation_lengths, "Lengths of outputs."),
        ("request_max_tokens", t.max_tokens, "Lengths that outputs were allowed."),
        ("request_outputs", t.outputs_asked, "Outputs asked for one prompt (n)."),
    ):
        yield _one(name, "histogram", help, histogram)
