"""The aiohttp application: every route, behind what all of them share.

What happens to a call, in this order; whatever refuses it, the answer has the shape of the route's API:

    connection.py   deadlines, sizes and number of headers, connections of one address
    here            id of the request; CORS preflights are answered
    auth.py         who calls, and whether they may: 401, 403. Also for paths that do not exist
    here            404, 405
    admission.py    requests per minute (429); whether there is room at all (503), before the body is read
    bodies.py       length, time, JSON, types: 408, 413, 415, 400
    the handler     what the fields mean: 400
    admission.py    room for all sequences and tokens of the call: 503, 429

and on the way back, whatever the answer is, headers: id, rate limits, CORS, and what browsers should not do.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from sgl_like.runtime.server.anthropic.messages import ROUTES as ANTHROPIC
from sgl_like.runtime.server.http.errors import ApiError, api_error
from sgl_like.runtime.server.http.health import ROUTES as HEALTH
from sgl_like.runtime.server.http.openapi import openapi_route
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.sse import STREAM
from sgl_like.runtime.server.native.control import ROUTES as NATIVE_CONTROL
from sgl_like.runtime.server.native.encode import ROUTES as ENCODE
from sgl_like.runtime.server.native.generate import ROUTES as GENERATE
from sgl_like.runtime.server.native.info import ROUTES as NATIVE_INFO
from sgl_like.runtime.server.native.parsing import ROUTES as NATIVE_PARSING
from sgl_like.runtime.server.observe.routes import ROUTES as OBSERVE
from sgl_like.runtime.server.ollama.chat import ROUTES as OLLAMA_CHAT
from sgl_like.runtime.server.ollama.embed import ROUTES as OLLAMA_EMBED
from sgl_like.runtime.server.ollama.generate import ROUTES as OLLAMA_GENERATE
from sgl_like.runtime.server.ollama.models import ROUTES as OLLAMA_MODELS
from sgl_like.runtime.server.openai.chat import ROUTES as CHAT
from sgl_like.runtime.server.openai.completions import ROUTES as COMPLETIONS
from sgl_like.runtime.server.openai.embeddings import ROUTES as EMBEDDINGS
from sgl_like.runtime.server.openai.models import ROUTES as MODELS
from sgl_like.runtime.server.openai.responses.create import ROUTES as RESPONSES
from sgl_like.runtime.server.openai.tokenize import ROUTES as TOKENIZE
from sgl_like.runtime.server.page.routes import ROUTES as PAGE
from sgl_like.runtime.server.server import Server

log = logging.getLogger(__name__)

_CALL = web.RequestKey("call", Call)

ROUTES: tuple[Route, ...] = (
    *HEALTH,
    *OBSERVE,
    *MODELS,
    *COMPLETIONS,
    *CHAT,
    *TOKENIZE,
    *EMBEDDINGS,
    *RESPONSES,
    *ANTHROPIC,
    *OLLAMA_CHAT,
    *OLLAMA_GENERATE,
    *OLLAMA_EMBED,
    *OLLAMA_MODELS,
    *GENERATE,
    *ENCODE,
    *NATIVE_CONTROL,
    *NATIVE_INFO,
    *NATIVE_PARSING,
    *PAGE,
)
"""All endpoints."""


def build_app(server: Server, routes: Sequence[Route] = ROUTES) -> web.Application:
    """The application.

    Args:
        server: what all calls share.
        routes: the endpoints.
    """
    app = web.Application()
    for route in (*routes, openapi_route(routes)):
        handler = _handler(server, route)
        app.router.add_route(route.method, route.path, handler)
        if route.method == "GET" and not route.streams:
            app.router.add_route("HEAD", route.path, handler)
    known = list(app.router.resources())

    async def refuse(call: Call) -> web.StreamResponse:
        return await _no_route(call, known)

    anything = Route("*", "/{path:.*}", refuse, "Anything else")
    app.router.add_route("*", r"/{path:[\s\S]*}", _handler(server, anything))  # with line ends, too
    app.on_response_prepare.append(_finish_headers(server))
    return app


def _handler(server: Server, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(http: web.Request) -> web.StreamResponse:
        call = Call(server, http)
        http[_CALL] = call
        with server.observer.begin(
            call.request_id, route.method, route.path, call.received, http.headers
        ) as call.record:
            try:
                response = await _answer(call, route)
            except (asyncio.CancelledError, ConnectionResetError):
                raise
            except Exception as error:
                response = await _refuse(call, route, error)
            finally:
                if STREAM in http:
                    http[STREAM].stop()
            call.record.status = response.status
            return response

    return handle


async def _answer(call: Call, route: Route) -> web.StreamResponse:
    server, http = call.server, call.http
    if sum(len(name) + len(value) for name, value in http.raw_headers) > server.config.limits.header_bytes:
        raise ApiError(431, "the headers are too long", code="headers_too_large", close=True)
    if http.method == "OPTIONS" and "Access-Control-Request-Method" in http.headers:
        return _preflight(call)
    call.tenant = server.auth.caller(http, route.access)
    call.record.tenant = call.tenant.name
    if route.body is not None and route.access == "user":
        server.admission.count_request(call.tenant.name)
    if route.streams:
        call.check_room()
    return await route.handler(call)


async def _refuse(call: Call, route: Route, error: Exception) -> web.StreamResponse:
    answer = api_error(error)
    call.record.error_code = answer.code or answer.type
    if answer.status == 500:
        log.error(
            "call failed",
            exc_info=error,
            extra={"fields": {"request_id": call.request_id, "route": route.path}},
        )
    if STREAM in call.http:  # the answer has begun
        await call.http[STREAM].send(route.error_body(answer))
        return await call.http[STREAM].close()
    if call.http.writer.output_size > 0:
        raise ConnectionResetError("the answer has begun; a connection that breaks off says that it failed")
    return error_response(answer, route)


async def _no_route(call: Call, known: Sequence[web.AbstractResource]) -> web.StreamResponse:
    allowed: set[str] = set()
    for resource in sorted(known, key=lambda each: not isinstance(each, web.PlainResource)):
        if allowed and not isinstance(resource, web.PlainResource):
            break  # a path that is there by its name is not one of those that a pattern stands for
        _, methods = await resource.resolve(call.http)
        allowed |= methods
    if not allowed:
        raise ApiError(404, f"there is no {call.http.path[:200]!r} here", code="unknown_url")
    raise ApiError(
        405,
        f"{call.http.method} is not allowed here",
        code="method_not_allowed",
        headers={"Allow": ", ".join(sorted(allowed))},
    )


def _preflight(call: Call) -> web.StreamResponse:
    if call.server.auth.allowed_origin(call.http) is None:
        raise ApiError(403, "pages of this origin may not call", type="permission_error", code="bad_origin")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": call.http.headers.get("Access-Control-Request-Headers", "")[
                :1024
            ],
            "Access-Control-Max-Age": "600",
        },
    )


def _finish_headers(server: Server) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def finish(http: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["Server"] = "sgl_like"
        headers["X-Content-Type-Options"] = "nosniff"
        call = http.get(_CALL)
        if call is not None:
            headers["x-request-id"] = call.request_id
            headers.update(server.admission.account(call.tenant.name).headers())
        origin = server.auth.allowed_origin(http)
        if origin is not None:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Vary"] = "Origin"
            headers["Access-Control-Expose-Headers"] = "x-request-id, retry-after"

    return finish


def error_response(error: ApiError, route: Route) -> web.Response:
    """An error in the shape that a route has for it."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    body = msgspec.json.encode(route.error_body(error))
    response = web.Response(body=body, status=error.status, headers=headers, content_type="application/json")
    if error.close:
        response.force_close()
    return response
