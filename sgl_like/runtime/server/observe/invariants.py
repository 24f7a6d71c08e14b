"""Nothing is lost and nothing leaks: what must hold at any time, and what must hold when no request is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sgl_like.errors import SglError
from sgl_like.runtime.server.observe.process import engine_process, front_process
from sgl_like.runtime.server.observe.records import RequestRecord

if TYPE_CHECKING:
    from sgl_like.runtime.server.server import Server

CHECK_SECONDS = 10.0
"""That the engine gets to look at itself between two steps."""


async def examine(server: Server) -> dict[str, Any]:
    """The state of everything, and what is wrong with it under ``"problems"``. Never fails.

    ``"idle"`` says whether nothing was in flight, so that what must hold then was looked at too. `counts` are those of
    `Totals`: ``accepted == finished + aborted + failed + rejected + in_flight``.
    """
    problems: list[str] = []
    stats: Mapping[str, Any] = {}
    try:
        await asyncio.wait_for(server.engine.ask("check_invariants"), CHECK_SECONDS)
    except AssertionError as error:
        problems.append(f"engine: {error}" if str(error) else "engine: an invariant does not hold")
    except (SglError, TimeoutError) as error:
        problems.append(f"engine: {_said(error)}")
    try:
        stats = await asyncio.wait_for(server.engine.ask("stats"), CHECK_SECONDS)
    except (SglError, TimeoutError) as error:
        problems.append(f"engine: {_said(error)}")
    observer = server.observer
    counts = _counts(server)
    idle = not observer.open and not stats.get("running_requests") and not stats.get("waiting_requests")
    problems += _books(counts)
    if stats:
        problems += _slots(stats, idle)
    info = server.engine.info
    return {
        "ok": not problems,
        "problems": list(dict.fromkeys(problems)),
        "idle": idle,
        "state": server.engine.state,
        "restarts": server.engine.restarts,
        "kv": _kv(stats) if stats else None,
        "queues": {
            "running": stats.get("running_requests"),
            "waiting": stats.get("waiting_requests"),
            "front": len(observer.open),
            "calls": len(observer.calls),
        },
        "counts": counts,
        "front": front_process(),
        "engine": None if info is None else engine_process(info.pid),
    }


def in_flight(server: Server) -> list[dict[str, Any]]:
    """Requests without a terminal output, the oldest first."""
    now = perf_counter()
    found = sorted(server.observer.open.values(), key=lambda record: record.submitted)
    return [_shown(record, now) for record in found]


def _shown(record: RequestRecord, now: float) -> dict[str, Any]:
    request = record.request
    return {
        "rid": request.rid,
        "call": record.call.id,
        "route": record.call.route,
        "tenant": record.call.tenant,
        "age": round(now - record.submitted, 3),
        "since_last_token": None if record.first is None else round(now - record.last, 3),
        "prompt_tokens": len(request.input_ids),
        "tokens": record.tokens,
        "max_tokens": request.params.max_new_tokens,
        "priority": request.priority,
        "stream": request.stream,
        "handler_running": id(record.call) in record.call.observer.calls,
    }


def _said(error: BaseException) -> str:
    return "it did not answer in time" if isinstance(error, TimeoutError) else str(error)


def _counts(server: Server) -> dict[str, int]:
    totals = server.observer.totals
    return {
        "accepted": sum(totals.requests.values()),
        "finished": totals.ended["stop"] + totals.ended["length"],
        "aborted": totals.ended["abort"],
        "failed": totals.ended["error"],
        "rejected": totals.ended["rejected"],
        "in_flight": len(server.observer.open),
    }


def _books(counts: Mapping[str, int]) -> list[str]:
    ended = sum(counts[name] for name in ("finished", "aborted", "failed", "rejected", "in_flight"))
    if counts["accepted"] == ended:
        return []
    return [f"front: {counts['accepted']} sequences came, and {ended} are accounted for"]


def _kv(stats: Mapping[str, Any]) -> dict[str, int]:
    total, available, evictable = stats["kv_slots"], stats["kv_free"], stats["kv_evictable"]
    return {
        "total": total,
        "available": available,
        "evictable": evictable,
        "protected": total - available - evictable,
        "locked": stats.get("kv_locked", 0),
        "pinned": stats["kv_pinned"],
    }


def _slots(stats: Mapping[str, Any], idle: bool) -> list[str]:
    kv = _kv(stats)
    if min(kv.values()) < 0:
        return [f"engine: {kv['available']} free and {kv['evictable']} evictable of {kv['total']} slots"]
    if idle and kv["locked"] != kv["pinned"]:
        return [f"engine: {kv['locked'] - kv['pinned']} cached tokens are locked, and nothing runs"]
    if idle and kv["protected"] != kv["pinned"]:
        return [f"engine: {kv['protected'] - kv['pinned']} slots are held, and nothing runs"]
    return []
