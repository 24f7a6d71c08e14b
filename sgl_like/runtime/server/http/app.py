"""The aiohttp application: every route, behind what all of them share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from sgl_like.runtime.server.http.errors import ApiError, api_error
from sgl_like.runtime.server.http.health import ROUTES as HEALTH
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.ollama.embed import ROUTES as OLLAMA_EMBED
from sgl_like.runtime.server.ollama.models import ROUTES as OLLAMA_MODELS
from sgl_like.runtime.server.openai.completions import ROUTES as COMPLETIONS
from sgl_like.runtime.server.openai.embeddings import ROUTES as EMBEDDINGS
from sgl_like.runtime.server.openai.models import ROUTES as MODELS
from sgl_like.runtime.server.page.routes import ROUTES as PAGE
from sgl_like.runtime.server.server import Server

log = logging.getLogger(__name__)

ROUTES: tuple[Route, ...] = (
    *HEALTH,
    *MODELS,
    *COMPLETIONS,
    *EMBEDDINGS,
    *OLLAMA_EMBED,
    *OLLAMA_MODELS,
    *PAGE,
)
"""All endpoints."""


def build_app(server: Server, routes: Sequence[Route] = ROUTES) -> web.Application:
    """The application.

    Args:
        server: what all calls share.
        routes: the endpoints.
    """
    app = web.Application(client_max_size=server.config.limits.body_bytes)
    for route in routes:
        app.router.add_route(route.method, route.path, _handler(server, route))
    return app


def _handler(server: Server, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(http: web.Request) -> web.StreamResponse:
        call = Call(server, http)
        with server.observer.begin(call.id, route.method, route.path, call.received) as call.record:
            try:
                response = await route.handler(call)
            except (asyncio.CancelledError, ConnectionResetError):
                raise
            except Exception as error:
                response = _refuse(call, route, error)
            call.record.status = response.status
            return response

    return handle


def _refuse(call: Call, route: Route, error: Exception) -> web.Response:
    answer = api_error(error)
    call.record.error_code = answer.code or answer.type
    if answer.status == 500:
        log.exception("call failed", extra={"fields": {"request_id": call.id, "route": route.path}})
    return error_response(answer, route)


def error_response(error: ApiError, route: Route) -> web.Response:
    """An error in the shape that a route has for it."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    body = msgspec.json.encode(route.error_body(error))
    return web.Response(body=body, status=error.status, headers=headers, content_type="application/json")
