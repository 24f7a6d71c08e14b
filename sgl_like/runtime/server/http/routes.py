"""Routes, and the one object that a handler gets: the call."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.server.generation import Generation
from sgl_like.runtime.server.http.admission import Ticket
from sgl_like.runtime.server.http.errors import ApiError, openai_body, unavailable
from sgl_like.runtime.server.observe.records import CallRecord
from sgl_like.runtime.server.quota import Quota

if TYPE_CHECKING:
    from sgl_like.runtime.server.server import Server

T = TypeVar("T", bound=msgspec.Struct)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Access = Literal["open", "user", "admin"]
"""``open``: everybody; ``user``: whoever has an API key, if there are keys; ``admin``: whoever has the admin key."""

ErrorBody = Callable[[ApiError], Any]


class Tenant(NamedTuple):
    """Who calls.

    Args:
        name: for logs and metrics; tells nothing about the key.
        namespace: whose cached prefixes may be used.
        admin: whether the admin routes are open.
        quota: what the key may use.
    """

    name: str = "default"
    namespace: str = ""
    admin: bool = False
    quota: Quota = Quota()


@dataclass(slots=True)
class Call:
    """One HTTP request on its way.

    Args:
        server: what all calls share.
        http: aiohttp's request.
        id: of this call, and no other one's.
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

    @property
    def request_id(self) -> str:
        """In logs and in the header ``x-request-id``: the client's own, if it sent one that is sane, or `id`."""
        given = self.http.headers.get("x-request-id")
        return given if given is not None and _REQUEST_ID.fullmatch(given) else self.id

    async def body(self, type: type[T]) -> T:
        """The request's body, checked.

        Raises:
            ApiError: it is no JSON, too long, or not of this type.
        """
        return await self.server.bodies.read(self.http, type)

    def generate(self, requests: Sequence[GenerateRequest]) -> Generation:
        """Run requests: ``async with call.generate(...) as generation``. What has not ended at its end is aborted.

        Raises:
            ApiError: the server has no room for them, or no engine.
        """
        if self.server.draining:
            raise unavailable("the server is shutting down")
        most = self.server.config.limits.stream_bytes
        return Generation(self.server.engine, requests, self.record, self._admit, most)

    def namespace(self, salt: str | None = None) -> str:
        """Whose cached prefixes a request may use: the caller's own, and of them those with the same salt.

        Args:
            salt: a body's ``cache_salt`` or ``extra_key``.
        """
        if not salt:
            return self.tenant.namespace
        return f"{self.tenant.namespace}:{hashlib.sha256(salt.encode()).hexdigest()[:32]}"

    def check_room(self, sequences: int = 1) -> None:
        """Refuse early what `generate` would refuse: before any work is done for it.

        Raises:
            ApiError: the server has no room for so many sequences, or no engine.
        """
        self.server.admission.check(self.tenant.name, self.server.info, sequences)

    def _admit(self, requests: Sequence[GenerateRequest]) -> Ticket:
        return self.server.admission.admit(self.tenant.name, self.server.info, requests)


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
        media: types of a successful answer; none: JSON, and events if it streams.
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
    media: tuple[str, ...] = ()
