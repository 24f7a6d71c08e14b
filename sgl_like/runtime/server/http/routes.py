"""Routes, and the one object that a handler gets: the call."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.server.generation import Generation
from sgl_like.runtime.server.http.bodies import read_body
from sgl_like.runtime.server.http.errors import ApiError, openai_body
from sgl_like.runtime.server.observe.records import CallRecord

if TYPE_CHECKING:
    from sgl_like.runtime.server.server import Server

T = TypeVar("T", bound=msgspec.Struct)

Access = Literal["open", "user", "admin"]
"""``open``: everybody; ``user``: whoever has an API key, if there are keys; ``admin``: whoever has the admin key."""

ErrorBody = Callable[[ApiError], Any]


class Tenant(NamedTuple):
    """Who calls.

    Args:
        name: for logs and metrics; tells nothing about the key.
        namespace: whose cached prefixes may be used.
        admin: whether the admin routes are open.
    """

    name: str = "default"
    namespace: str = ""
    admin: bool = False


@dataclass(slots=True)
class Call:
    """One HTTP request on its way.

    Args:
        server: what all calls share.
        http: aiohttp's request.
        id: of this call, in logs and in the header ``x-request-id``.
        tenant: who calls.
        received: when it came, as of `perf_counter`.
        record: what metrics and logs say about it; a handler may set its `cause`.
    """

    server: Server
    http: web.Request
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    tenant: Tenant = field(default_factory=Tenant)
    received: float = field(default_factory=perf_counter)
    record: CallRecord = field(init=False)

    async def body(self, type: type[T]) -> T:
        """The request's body, checked.

        Raises:
            ApiError: it is no JSON, too long, or not of this type.
        """
        return await read_body(self.http, type, strict=self.server.config.strict)

    def generate(self, requests: Sequence[GenerateRequest]) -> Generation:
        """Run requests: ``async with call.generate(...) as generation``. What has not ended at its end is aborted.

        Raises:
            ApiError: the server has no room for them, or no engine.
        """
        self.record.tenant = self.tenant.name
        return Generation(self.server.engine, requests, self.record)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """An endpoint.

    Args:
        method: of HTTP.
        path: in aiohttp's syntax.
        handler: answers it.
        summary: one line for the OpenAPI document.
        access: who may call.
        body: what the request's body has to be, if it has one.
        response: what a successful answer's body is; ``None``: described by `summary` only.
        error_body: the shape of errors here.
        streams: whether it may answer with events.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access = "user"
    body: Any = None
    response: Any = None
    error_body: ErrorBody = openai_body
    streams: bool = False
