"""Whether the server lives, and whether it takes requests."""

from __future__ import annotations

from aiohttp import web

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.routes import Call, Route


async def live(call: Call) -> web.StreamResponse:
    """200 as long as the front process answers at all."""
    return json_response({"status": "ok"})


async def ready(call: Call) -> web.StreamResponse:
    """200 if requests would be taken; 503 while the model loads, the engine does not answer, the queue is full, or the
    server drains.
    """
    server = call.server
    state: str = "draining" if server.draining else server.engine.state
    if state == "ready" and server.admission.is_full(server.info):
        state = "overloaded"
    return json_response({"status": state}, 200 if state == "ready" else 503)


ROUTES = (
    Route("GET", "/livez", live, "Whether the server lives", access="open"),
    Route("GET", "/readyz", ready, "Whether the server takes requests", access="open"),
    Route("GET", "/health", ready, "Whether the server takes requests"),
)
