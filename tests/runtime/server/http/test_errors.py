from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from aiohttp import web

from sgl_like.errors import EngineError
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http.routes import Call, Route
from tests.support.held_engine import HeldEngine
from tests.support.http_clients import call
from tests.support.servers import Running, running

SECRET = "/root/secret/path.py at 0x7f4083df6f70"


async def fail(call: Call) -> web.StreamResponse:
    raise KeyError(SECRET)


async def fail_in_the_engine(call: Call) -> web.StreamResponse:
    raise EngineError(SECRET)


async def ok(call: Call) -> web.StreamResponse:
    return web.Response(text=call.id)


ROUTES = (
    Route("GET", "/fail", fail, "Fails"),
    Route("GET", "/engine", fail_in_the_engine, "Fails"),
    Route("GET", "/ok/{name}", ok, "Works"),
    Route("POST", "/ok/{name}", ok, "Works"),
)


@pytest.fixture(scope="module")
def server() -> Any:
    with running(ServerConfig(cors_origins=("https://app.example",)), HeldEngine(), ROUTES) as started:
        yield started


@pytest.mark.parametrize(("path", "status"), [("/fail", 500), ("/engine", 503)])
def test_what_went_wrong_inside_is_told_to_nobody_but_the_log(
    server: Running, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = call(server, path)
    assert answer.status == status
    assert b"secret" not in answer.body and b"0x" not in answer.body
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert status != 500 or "secret" in caplog.text


def test_unknown_paths_and_methods_are_errors_in_openais_shape(server: Running) -> None:
    unknown = call(server, "/v1/nothing")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "unknown_url")
    assert call(server, "/v1/no%0Athing").json["error"]["code"] == "unknown_url"
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        wrong = call(server, "/ok/x", method=method)
        assert (wrong.status, wrong.json["error"]["code"]) == (405, "method_not_allowed")
        assert wrong.headers["Allow"] == "GET, HEAD, POST"


def test_head_is_get_without_the_body(server: Running) -> None:
    answer = call(server, "/ok/x", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_every_call_has_an_id_its_own_or_ours(server: Running) -> None:
    first, second = (call(server, "/ok/x").headers["x-request-id"] for _ in range(2))
    assert first != second and re.fullmatch(r"[0-9a-f]{32}", first)
    theirs = call(server, "/nothing", headers={"x-request-id": "req_1:2.3-4"})
    assert theirs.headers["x-request-id"] == "req_1:2.3-4"
    for bad in ("", "a b", "x" * 129, "a\tb", "é", "<script>"):
        answer = call(server, "/ok/x", headers={"x-request-id": bad.encode().decode("latin-1")})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_two_calls_with_one_id_do_not_meet(server: Running) -> None:
    ids = [call(server, "/ok/x", headers={"x-request-id": "same"}).body for _ in range(2)]
    assert ids[0] != ids[1]


def test_no_answer_says_what_the_server_is_made_of(server: Running) -> None:
    for path in ("/ok/x", "/fail", "/nothing"):
        answer = call(server, path)
        assert answer.headers.get_all("Server") == ["sgl_like"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_pages_of_an_origin_in_the_list_may_call_and_read(server: Running) -> None:
    origin = {"Origin": "https://app.example"}
    answer = call(server, "/ok/x", headers=origin)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = call(server, "/ok/x", method="OPTIONS", headers=origin | asked)
    assert (preflight.status, preflight.headers["Access-Control-Allow-Headers"]) == (204, "authorization")


def test_pages_of_others_may_not(server: Running) -> None:
    other = {"Origin": "https://app.example.evil.example"}
    assert call(server, "/ok/x", headers=other).status == 403
    asked = other | {"Access-Control-Request-Method": "POST"}
    preflight = call(server, "/ok/x", method="OPTIONS", headers=asked)
    assert preflight.status == 403 and "Access-Control-Allow-Origin" not in preflight.headers


def test_a_path_that_is_there_by_its_name_has_its_own_methods_only() -> None:
    routes = (Route("GET", "/things/{id}", ok, "Works"), Route("POST", "/things/count", ok, "Works"))
    with running(engine=HeldEngine(), routes=routes) as server:
        assert call(server, "/things/count", method="PUT").headers["Allow"] == "POST"
        assert call(server, "/things/3", method="PUT").headers["Allow"] == "GET, HEAD"
