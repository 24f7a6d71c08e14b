"""``/metrics``, ``/v1/loads``, ``/server_info`` and what admins look at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.observe.exposition import registry
from sgl_like.runtime.server.observe.families import families
from sgl_like.runtime.server.observe.histogram import Histogram
from sgl_like.runtime.server.observe.invariants import examine, in_flight
from sgl_like.runtime.server.observe.process import package_version


async def metrics(call: Call) -> web.StreamResponse:
    """Everything that is counted, for Prometheus. If the engine does not answer, its last numbers.

    In the plain format, whatever else is accepted: prometheus_client 0.26 writes the colons of names as underscores in
    OpenMetrics, which would be other names.
    """
    server = call.server
    snapshot = await server.reader.snapshot()
    body = generate_latest(registry(snapshot, server.config.model_name, server.config.metrics_compat))
    response = web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
    response.enable_compression()
    return response


async def loads(call: Call) -> web.StreamResponse:
    """How busy the server is, as routers made for SGLang ask."""
    server = call.server
    snapshot = await server.reader.snapshot()
    ours = families(snapshot)

    def value(name: str) -> float:
        family = ours.get(name)
        found = 0 if family is None else next(iter(family.samples.values()), 0)
        assert not isinstance(found, Histogram)
        return found

    used, running, waiting = (
        value(name) for name in ("kv_tokens_used", "running_requests", "waiting_requests")
    )
    waiting_tokens = value("waiting_tokens")
    load = {
        "dp_rank": 0,
        "num_running_reqs": running,
        "num_waiting_reqs": waiting,
        "num_waiting_uncached_tokens": waiting_tokens,
        "num_used_tokens": used,
        "num_total_tokens": used + waiting_tokens,
        "max_total_num_tokens": value("kv_tokens"),
        "max_running_requests": value("max_running_requests"),
        "token_usage": round(value("kv_usage"), 4),
        "gen_throughput": round(snapshot.throughput, 2),
        "cache_hit_rate": round(value("cache_hit_rate"), 4),
        "utilization": round(running / (value("max_running_requests") or 1), 4),
    }
    return json_response(
        {
            "timestamp": datetime.now(UTC).isoformat(),
            "version": package_version(),
            "dp_rank_count": 1,
            "loads": [load],
        }
    )


async def server_info(call: Call) -> web.StreamResponse:
    """Options and state of the server and its engine."""
    server = call.server
    snapshot = await server.reader.snapshot()
    stats = {name: value for name, value in snapshot.stats.items() if name not in _PRIVATE}
    info = server.info
    inside = {  # what SGLang's own tools look for
        "last_gen_throughput": round(snapshot.throughput, 2),
        "world_size": 1,
    }
    return json_response(
        {
            "version": package_version(),
            "served_model_name": server.config.model_name,
            "status": "draining" if server.draining else server.engine.state,
            "max_total_num_tokens": info.kv_slots,
            "context_length": info.context_length,
            "max_running_requests": info.max_running_requests,
            "vocab_size": info.vocab_size,
            **stats,
            "internal_states": [inside],
        }
    )


_PRIVATE = frozenset({"model_path", "cache_dir", "chat_template"})
"""Paths are nobody's business, not even of who has a key."""


async def debug_invariants(call: Call) -> web.StreamResponse:
    """What must hold, and what does not: always 200; ``ok`` is the answer."""
    return json_response(await examine(call.server))


async def debug_requests(call: Call) -> web.StreamResponse:
    """Requests in flight, with their age and their tokens."""
    found: list[dict[str, Any]] = in_flight(call.server)
    return json_response({"count": len(found), "requests": found})


ROUTES = (
    Route("GET", "/metrics", metrics, "Metrics for Prometheus", media=("text/plain",)),
    Route("GET", "/v1/loads", loads, "How busy the server is"),
    Route("GET", "/server_info", server_info, "Options and state of the server"),
    Route("GET", "/debug/invariants", debug_invariants, "Whether anything is lost or leaks", access="admin"),
    Route("GET", "/debug/requests", debug_requests, "Requests in flight", access="admin"),
)
