"""The page's files, and what it asks beyond the APIs that others use, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from sgl_like.errors import ConstraintError, RequestError
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError, bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FILES = {path.name: path for path in (Path(__file__).parent / "static").iterdir() if path.suffix in _TYPES}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class ConstraintCheck(msgspec.Struct, kw_only=True):
    """The body of ``POST /constraints/check``: one constraint."""

    json_schema: str | dict[str, Any] | bool | None = None
    regex: str | None = None
    ebnf: str | None = None


class ConstraintVerdict(msgspec.Struct, kw_only=True):
    """Why outputs cannot be held to a constraint; ``None``: they can."""

    problem: str | None


async def index(call: Call) -> web.StreamResponse:
    """The page."""
    return _file("index.html")


async def static(call: Call) -> web.StreamResponse:
    """What the page loads."""
    name = call.http.match_info["name"]
    if name not in _FILES:
        raise ApiError(404, f"the page has no file {name!r}", code="not_found")
    return _file(name)


async def check(call: Call) -> web.StreamResponse:
    """Compile a constraint and generate nothing."""
    body = await call.body(ConstraintCheck)
    given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
    if len(given) != 1:
        raise bad_request("give exactly one of json_schema, regex and ebnf")
    try:
        params = SamplingParams(max_new_tokens=0, **given)
    except RequestError as error:
        return json_response(ConstraintVerdict(problem=str(error)))
    request = GenerateRequest(call.server.tokenizer.encode("a"), params, namespace=call.tenant.namespace)
    async with call.generate([request]) as generation:
        try:
            await generation.all()
        except ConstraintError as error:
            return json_response(ConstraintVerdict(problem=str(error)))
    return json_response(ConstraintVerdict(problem=None))


async def tree(call: Call) -> web.StreamResponse:
    """The engine's counts and a part of its radix tree, with text in place of ids."""
    engine = call.server.engine
    stats, found = await engine.ask("stats"), await engine.ask("tree", limit=200)
    for each in (*found["nodes"], *found["evicted"]):
        each["text"] = _text(call.server.tokenizer, each.pop("token_ids"))
    return json_response({"stats": stats, "tree": found})


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


def _file(name: str) -> web.Response:
    path = _FILES[name]
    return web.Response(
        body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8", headers=_HEADERS
    )


ROUTES = (
    Route("GET", "/", index, "The page: playground and live view", media=("text/html",)),
    Route("GET", "/static/{name}", static, "Files of the page", media=tuple(_TYPES.values())),
    Route(
        "POST", "/constraints/check", check, "Whether outputs can be held to a constraint",
        body=ConstraintCheck, response=ConstraintVerdict,
    ),
    Route("GET", "/debug/tree", tree, "Counts and radix tree, for the live view", access="admin"),
)  # fmt: skip
