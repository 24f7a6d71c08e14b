"""JSON bodies: orjson reads them (no NaN, no lone surrogates, bounded nesting), msgspec checks them against a type."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import orjson
from aiohttp import web

from sgl_like.runtime.server.http.errors import ApiError, bad_request

T = TypeVar("T", bound=msgspec.Struct)

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?$", re.DOTALL)


async def read_body(http: web.Request, type: type[T], *, strict: bool = False) -> T:
    """The body of a request as a `type`.

    Args:
        http: the request.
        type: what it has to be.
        strict: refuse fields that `type` does not have.

    Raises:
        ApiError: 400 with the place of what is wrong; 413.
    """
    try:
        data = await http.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, "the body is too long", code="body_too_large") from None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}", code="invalid_json") from None
    return check_body(value, type, strict=strict)


def check_body(value: Any, type: type[T], *, strict: bool = False) -> T:
    """See `read_body`."""
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
