"""JSON bodies: orjson reads them (no NaN, no lone surrogates, bounded nesting), msgspec checks them against a type.

Of a name that is there twice the last one counts, as everywhere. Compressed bodies are refused: no client of these APIs
sends them, and what they unpack to is not known before.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

import msgspec
import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from sgl_like.runtime.server.http.errors import ApiError, bad_request, unavailable
from sgl_like.runtime.server.limits import Limits

T = TypeVar("T", bound=msgspec.Struct)

LARGE = 256 * 1024
"""Bytes of a body beyond which reading it is left to a thread."""
BODIES = 32
"""All bodies that are being read may have so many times the bytes that one may have."""

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?$", re.DOTALL)


class Bodies:
    """Reads bodies, within limits.

    Args:
        limits: of one body.
        strict: refuse fields that a type does not have.
    """

    def __init__(self, limits: Limits, strict: bool = False) -> None:
        self.in_use = 0  # bytes of bodies that are not complete
        self._limits = limits
        self._strict = strict
        self._large = asyncio.Semaphore(1)  # one at a time: the loop has its turn in between

    async def read(self, http: web.Request, type: type[T]) -> T:
        """The body of a request as a `type`.

        Raises:
            ApiError: 400 with the place of what is wrong, 408, 413, 415, or 503 for want of memory.
        """
        data = await self._bytes(http)
        if len(data) <= LARGE:
            return check_body(parse(data), type, strict=self._strict)
        async with self._large:
            value = await asyncio.to_thread(parse, data)
            return await asyncio.to_thread(check_body, value, type, strict=self._strict)

    async def _bytes(self, http: web.Request) -> bytes:
        _check_headers(http, self._limits.body_bytes)
        content = http.content
        if content.is_eof() and content.total_bytes <= LARGE:  # the usual case: it came with the headers
            return await content.read()
        size = 0
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while chunk := await content.readany():
                    chunks.append(chunk)
                    size += len(chunk)
                    self.in_use += len(chunk)
                    if size > self._limits.body_bytes:
                        raise _too_long(self._limits.body_bytes)
                    if self.in_use > BODIES * self._limits.body_bytes:
                        raise unavailable("the server is busy reading other requests")
        except TimeoutError:
            raise ApiError(408, "the body did not come in time", code="body_timeout", close=True) from None
        except RequestPayloadError as error:
            raise ApiError(
                400, f"the body cannot be read: {error}", code="invalid_body", close=True
            ) from None
        finally:
            self.in_use -= size
        return b"".join(chunks)


def _check_headers(http: web.Request, limit: int) -> None:
    encoding = http.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ApiError(415, "compressed bodies are not supported", code="unsupported_encoding", close=True)
    if http.content_type.startswith("multipart/"):
        raise ApiError(415, "the body must be JSON, not a form", code="unsupported_media_type", close=True)
    if (http.content_length or 0) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> ApiError:
    return ApiError(413, f"the body has more than {limit} bytes", code="body_too_large", close=True)


def parse(data: bytes) -> Any:
    """JSON.

    Raises:
        ApiError: it is none.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}", code="invalid_json") from None


def check_body(value: Any, type: type[T], *, strict: bool = False) -> T:
    """A value as a `type`.

    Raises:
        ApiError: 400 with the place of what is wrong.
    """
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    body = convert(value, type)
    if strict:
        unknown = sorted(value.keys() - {field.encode_name for field in msgspec.structs.fields(type)})
        if unknown:
            raise bad_request(f"unknown field {unknown[0]!r}", param=unknown[0], code="unknown_field")
    return body


def convert(value: Any, type: type[T], where: str = "") -> T:
    """A part of a body as a `type`.

    Args:
        value: JSON as Python has it.
        type: what it has to be.
        where: the part's place in the body, such as ``"input[0]"``.

    Raises:
        ApiError: 400 with the place of what is wrong.
    """
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        found = _WHERE.match(str(error))
        assert found is not None
        inner = found["where"] or ""
        place = f"{where}.{inner}".strip(".") or None
        what = found["what"] if place is None else f"{place}: {found['what']}"
        raise bad_request(what, param=place) from None


def json_response(value: Any, status: int = 200) -> web.Response:
    """An answer as JSON; `value` may hold msgspec structs."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")
