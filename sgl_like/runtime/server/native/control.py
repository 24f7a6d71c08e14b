"""What operators and clients ask of the server besides generation: caches, requests in flight, a sign of life."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from sgl_like.errors import SglError
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request, unavailable
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.native.bodies import Name
from sgl_like.runtime.server.native.reading import engine_rid, rid_prefix

HEALTH_SECONDS = 10.0
"""That a token may take to come before the server counts as ill."""
FIRST = 1 << 20
"""Priority of the request that tells whether tokens come: it is not to wait for others."""


class Done(msgspec.Struct, kw_only=True):
    """What was asked for has been done."""

    success: bool = True
    message: str = ""


class AbortBody(msgspec.Struct, kw_only=True):
    """The body of ``/abort_request``: the `rid` of a request, or all of them."""

    rid: Name | None = None
    abort_all: bool = False


class Aborted(msgspec.Struct, kw_only=True):
    """How many sequences were in flight under that name; each still gets its last output."""

    aborted: int


async def flush_cache(call: Call) -> web.StreamResponse:
    """Forget all cached prefixes; 400 if requests hold some."""
    flushed = await call.server.engine.ask("flush_cache")
    if not flushed:
        raise bad_request("requests are running: what they use stays cached", code="cache_in_use")
    return json_response(Done(message="Cache flushed."))


async def abort_request(call: Call) -> web.StreamResponse:
    """End requests of the caller early; with the admin key those of anybody."""
    body = await call.body(AbortBody)
    if (body.rid is None) == (not body.abort_all):
        raise bad_request("give either rid or abort_all", param="rid")
    found = [
        record
        for record in call.server.observer.open.values()
        if _is_meant(call, record.call.tenant, record.request.rid, body)
    ]
    for record in found:
        call.server.engine.abort(record.request.rid)
    return json_response(Aborted(aborted=len(found)))


def _is_meant(call: Call, tenant: str, rid: str, body: AbortBody) -> bool:
    if tenant != call.tenant.name and not call.tenant.admin:
        return False
    return body.rid is None or rid.startswith(rid_prefix(tenant, body.rid))


async def health_generate(call: Call) -> web.StreamResponse:
    """200 if a token can be generated within `HEALTH_SECONDS`, 503 if not."""
    params = SamplingParams(max_new_tokens=1, temperature=0.0, ignore_eos=True)
    request = GenerateRequest(
        call.server.tokenizer.encode("a")[:1], params, rid=engine_rid(call, "health"), priority=FIRST,
        deadline=HEALTH_SECONDS, namespace=call.tenant.namespace,
    )  # fmt: skip
    try:
        async with asyncio.timeout(HEALTH_SECONDS), call.generate([request]) as generation:
            await generation.all()
    except (SglError, TimeoutError):
        raise unavailable("no token came") from None
    return json_response(Done(message="a token came"))


ROUTES = (
    *(
        Route(
            method,
            "/flush_cache",
            flush_cache,
            "Forget all cached prefixes (SGLang)",
            access="admin",
            response=Done,
        )
        for method in ("GET", "POST")
    ),
    Route(
        "POST",
        "/abort_request",
        abort_request,
        "End requests early (SGLang)",
        body=AbortBody,
        response=Aborted,
    ),
    Route(
        "GET", "/health_generate", health_generate, "Whether a token can be generated (SGLang)", response=Done
    ),
)
