"""``/debug/invariants`` and ``/debug/requests``: what they say when all is well, and what when it is not."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from sgl_like.errors import EngineUnavailable
from sgl_like.runtime.protocol import GenerateRequest, OutputSink
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.engine.wire import Question
from tests.support.servers import Running, running, shared_engine, wait_until


def get(server: Running, path: str) -> Any:
    with urllib.request.urlopen(server.url + path) as answer:
        return json.loads(answer.read())


def test_all_is_well_before_and_after_requests() -> None:
    with running() as server:
        before = get(server, "/debug/invariants")
        assert before["ok"] and before["idle"] and before["problems"] == []
        body = json.dumps({"prompt": "play some", "max_tokens": 5}).encode()
        request = urllib.request.Request(server.url + "/v1/completions", body)
        urllib.request.urlopen(request).read()
        after = get(server, "/debug/invariants")
        assert after["ok"] and after["idle"]
        assert after["counts"] == {
            "accepted": 1, "finished": 1, "aborted": 0, "failed": 0, "rejected": 0, "in_flight": 0,
        }  # fmt: skip
        kv = after["kv"]
        assert kv["available"] + kv["evictable"] + kv["protected"] == kv["total"] and kv["protected"] == 0
        for name in ("asyncio_tasks", "threads", "fds", "rss", "rss_anon"):
            assert after["front"][name] > 0, name
        assert after["engine"]["pid"] > 0 and after["engine"]["rss"] > 0


class Endless(LocalEngine):
    """Goes on to `max_tokens`, whatever the model would like."""

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        super().submit(replace(request, params=replace(request.params, ignore_eos=True)), receive)


async def leave(server: Running) -> Any:
    """Begin a long stream, look at what is in flight, and go."""
    async with aiohttp.ClientSession() as session:
        body = {"prompt": "play", "max_tokens": 900, "stream": True}
        response = await session.post(server.url + "/v1/completions", json=body)
        await response.content.readline()
        async with session.get(server.url + "/debug/requests") as answer:
            shown = await answer.json()
        response.close()
        return shown


def test_a_client_that_goes_away_leaves_nothing() -> None:
    with running(engine=Endless(shared_engine())) as server:
        observer = server.server.observer
        shown = asyncio.run(leave(server))
        assert shown["count"] == 1
        (one,) = shown["requests"]
        assert one["route"] == "/v1/completions" and one["age"] > 0 and one["max_tokens"] == 900
        assert one["prompt_tokens"] >= 1 and one["tokens"] >= 1 and one["handler_running"]
        assert "play" not in json.dumps(one), "no prompts"
        wait_until(lambda: not observer.open and not observer.calls)
        found = get(server, "/debug/invariants")
        assert found["ok"] and found["idle"] and found["counts"]["aborted"] == 1
        assert observer.totals.aborted == {"disconnected": 1}
        assert observer.totals.http_responses["/v1/completions", "POST", 499] == 1
        assert get(server, "/debug/requests") == {"count": 0, "requests": []}


def test_what_is_cut_says_why() -> None:
    with running(engine=Endless(shared_engine())) as server:
        observer = server.server.observer

        def cut() -> None:
            observer.cut("drain")
            for record in observer.open.values():
                server.server.engine.abort(record.request.rid)

        body = json.dumps({"prompt": "play", "max_tokens": 900, "stream": True}).encode()
        with urllib.request.urlopen(urllib.request.Request(server.url + "/v1/completions", body)) as answer:
            answer.readline()
            server.loop.call_soon_threadsafe(cut)
            answer.read()
        wait_until(lambda: not observer.open)
        assert observer.totals.aborted == {"drain": 1}


class Wrong(LocalEngine):
    """Says of itself what a test wants."""

    changes: dict[str, Any]
    error: Exception | None = None

    async def ask(self, what: Question, **arguments: Any) -> Any:
        if what == "check_invariants" and self.error is not None:
            raise self.error
        answer = await super().ask(what, **arguments)
        return {**answer, **self.changes} if what == "stats" else answer


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"kv_free": -1, "kv_evictable": 0}, None, "-1 free"),
        ({"kv_free": 0, "kv_evictable": 0}, None, "slots are held"),
        ({"kv_locked": 3}, None, "3 cached tokens are locked"),
        ({}, AssertionError("locks are left over"), "locks are left over"),
        ({}, AssertionError(), "an invariant does not hold"),
        ({}, EngineUnavailable("the engine is starting"), "the engine is starting"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changes: dict[str, Any], error: Exception | None, problem: str) -> None:
    engine = Wrong(shared_engine())
    engine.changes, engine.error = changes, error
    with running(engine=engine) as server:
        found = get(server, "/debug/invariants")
    assert not found["ok"] and problem in found["problems"][0]


def test_lost_requests_are_noticed() -> None:
    with running() as server:
        server.server.observer.totals.requests[True] += 1
        found = get(server, "/debug/invariants")
    assert found["problems"] == ["front: 1 sequences came, and 0 are accounted for"]
