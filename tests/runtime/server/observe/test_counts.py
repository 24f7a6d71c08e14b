"""What is counted agrees with what was sent."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from sgl_like.errors import EngineUnavailable, RequestError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.observe.totals import Totals
from tests.support.servers import Running, running, shared_engine, wait_until


def post(server: Running, path: str, body: Any) -> tuple[int, str]:
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def settled(totals: Totals) -> bool:
    return sum(totals.requests.values()) == sum(totals.ended.values())


def test_a_known_workload_is_counted() -> None:
    with running() as server:
        observer, totals = server.server.observer, server.server.observer.totals
        used = []
        for stream in (False, True, True):
            body = {"prompt": "play some", "max_tokens": 6, "temperature": 0, "stream": stream}
            if stream:
                body["stream_options"] = {"include_usage": True}
            status, text = post(server, "/v1/completions", body)
            assert status == 200
            last = text if not stream else text.split("\n\n")[-3].removeprefix("data: ")
            used.append(json.loads(last)["usage"])
        assert post(server, "/v1/completions", {"prompt": "x", "max_tokens": -1})[0] == 400
        assert post(server, "/v1/completions", {"prompt": [2**40]})[0] == 400
        wait_until(lambda: not observer.calls)
        assert totals.requests == {False: 1, True: 2}
        assert totals.ended == {"stop": 0, "length": 3, "abort": 0, "error": 0, "rejected": 0}
        assert not observer.open
        assert sum(totals.prompt_tokens.values()) == sum(usage["prompt_tokens"] for usage in used)
        assert sum(totals.generation_tokens.values()) == 18
        assert totals.http_requests == {("/v1/completions", "POST"): 5}
        assert totals.http_responses == {
            ("/v1/completions", "POST", 200): 3,
            ("/v1/completions", "POST", 400): 2,
        }
        assert totals.http_active == {("/v1/completions", "POST"): 0}
        assert totals.e2e[True].count == 2 and totals.e2e[False].count == 1
        assert totals.first_token[True].count == 2
        assert totals.inter_token.count == 10, "two streams of six tokens have five gaps each"
        assert totals.generation_lengths.sum == 18


class Wary(LocalEngine):
    """Refuses what it is asked for, as an engine does: in its terminal output."""

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        refusal = RequestError("not this one")
        asyncio.get_running_loop().call_soon(
            receive, Output(request.rid, finish=FinishReason("error"), error=refusal)
        )


def test_what_an_engine_refuses_is_rejected_and_what_it_fails_at_is_an_error() -> None:
    with running(engine=Wary(shared_engine())) as server:
        totals = server.server.observer.totals
        assert post(server, "/v1/completions", {"prompt": ["a", "b"]})[0] == 400
        wait_until(lambda: settled(totals))
        assert totals.ended["rejected"] == 2 and sum(totals.ended.values()) == 2
        assert sum(totals.prompt_tokens.values()) == 0


class Refusing(LocalEngine):
    """Takes one request, and then no more."""

    left = 1

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        if self.left == 0:
            raise EngineUnavailable("no more")
        self.left -= 1
        super().submit(request, receive)


@pytest.mark.parametrize("count", [1, 3])
def test_requests_that_the_engine_refuses_are_rejected_and_those_begun_are_aborted(count: int) -> None:
    with running(engine=Refusing(shared_engine())) as server:
        totals = server.server.observer.totals
        for _ in range(count):
            post(server, "/v1/completions", {"prompt": "play", "max_tokens": 4})
        wait_until(lambda: settled(totals))
        assert totals.ended["rejected"] == count - 1
        assert not server.server.observer.open
