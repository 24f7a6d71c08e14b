from __future__ import annotations

import json
from typing import Any

import pytest

from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http.app import ROUTES
from sgl_like.runtime.server.http.bodies import LARGE
from tests.support.http_clients import call
from tests.support.servers import Running, running

NOT_JSON = [
    b"",
    b" ",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b'{"prompt": "\xff"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\xed\xa0\x80"}',
    b'{"prompt": "hi"',
    b'{"prompt": "hi",}',
    b"{'prompt': 'hi'}",
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}',
    b'{"temperature": 1e400}',
    b'{"seed": ' + b"1" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\x00" * 100,
    b'{"prompt": "hi"}{"prompt": "hi"}',
]
PATHS = sorted({route.path for route in ROUTES if route.body is not None and "{" not in route.path})


@pytest.fixture(scope="module")
def server() -> Any:
    with running() as started:
        yield started


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_json_is_an_error_everywhere(server: Running, path: str) -> None:
    for body in NOT_JSON:
        answer = call(server, path, body)
        assert answer.status == 400, (body[:40], answer.body)
        assert b"JSON" in answer.body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"null", b"true", b"3", b'"text"', b"[]", b"[{}]"])
def test_json_that_is_no_object_is_an_error_everywhere(server: Running, path: str, body: bytes) -> None:
    answer = call(server, path, body)
    assert (answer.status, b"object" in answer.body) == (400, True)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "text/plain", "nonsense", ""]
)
def test_the_content_type_does_not_matter(server: Running, kind: str) -> None:
    body = {"prompt": "hi", "max_tokens": 1}
    assert call(server, "/v1/completions", body, headers={"Content-Type": kind}).status == 200


def test_but_for_forms_with_files(server: Running) -> None:
    answer = call(
        server, "/v1/completions", b"--x--", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert (answer.status, answer.json["error"]["code"]) == (415, "unsupported_media_type")


def test_a_large_body_is_read_as_a_small_one_is(server: Running) -> None:
    ids = [1] * LARGE
    good = call(server, "/v1/completions", {"prompt": [1, 2], "max_tokens": 1, "user": "x" * LARGE})
    assert good.status == 200
    long = call(server, "/v1/completions", {"prompt": ids, "max_tokens": 1})
    assert (long.status, long.json["error"]["code"]) == (400, "context_length_exceeded")
    wrong = call(server, "/v1/completions", {"prompt": [*ids, "x"]})
    assert wrong.status == 400
    assert call(server, "/v1/completions", json.dumps({"prompt": ids}).encode()[:-1]).status == 400


def test_errors_name_the_field(server: Running) -> None:
    error = call(server, "/v1/completions", {"prompt": "hi", "max_tokens": "x"}).json["error"]
    assert (error["param"], error["type"]) == ("max_tokens", "invalid_request_error")
    assert "max_tokens" in error["message"]


def test_unknown_fields_are_refused_if_that_is_wanted() -> None:
    body = {"prompt": "hi", "max_tokens": 1, "promt": "hi"}
    with running(ServerConfig(strict=True)) as server:
        error = call(server, "/v1/completions", body).json["error"]
        assert (error["param"], error["code"]) == ("promt", "unknown_field")


def test_no_memory_is_held_for_bodies_that_were_read_or_given_up(server: Running) -> None:
    call(server, "/v1/completions", b"1 " * 5_000_000)
    call(server, "/v1/completions", b"1 " * 1_000_000)
    assert server.server.bodies.in_use == 0
