"""Acceptance test 14 of serving.md and its load test 21: keys share neither prefixes nor fate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.limits import Limits
from tests.support.http_clients import call
from tests.support.oracle import nothing_lost
from tests.support.servers import Running, running, wait_until

PROMPT = "what is the weather like in the little town by the sea, and what was it like a year ago"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """With four rows, so that it is soon full."""
    keys = tmp_path / "keys"
    keys.write_text(
        "sk-flood name=flood\nsk-other name=other\nsk-small name=small max_requests=2 tokens_per_minute=200\n"
    )
    engine = sgl_like.Engine(dtype="float32", kv_cache_memory=64 * 2**20, max_running_requests=4)
    config = ServerConfig(api_key_file=keys, limits=Limits(queue_requests=60))
    with engine, running(config, LocalEngine(engine)) as started:
        yield started


def cached(server: Running, key: str, **fields: Any) -> int:
    answer = call(server, "/v1/completions", {"prompt": PROMPT, "max_tokens": 1, **fields}, key=key)
    assert answer.status == 200, answer
    details = answer.json["usage"].get("prompt_tokens_details") or {}
    return int(details.get("cached_tokens") or 0)


def test_14_no_key_finds_prefixes_of_another(server: Running) -> None:
    assert cached(server, "sk-flood") == 0
    assert cached(server, "sk-flood") > 0
    assert cached(server, "sk-other") == 0


def test_14_nor_does_a_salt_of_another_salt(server: Running) -> None:
    assert cached(server, "sk-flood", cache_salt="a") == 0
    assert cached(server, "sk-flood", cache_salt="a") > 0
    assert cached(server, "sk-flood", cache_salt="b") == 0
    assert cached(server, "sk-flood") == 0
    assert cached(server, "sk-other", cache_salt="a") == 0


class Flood:
    """Calls of one key, until it is told to stop; each as soon as there is room for it."""

    def __init__(self, server: Running, clients: int) -> None:
        self.done: list[float] = []
        self.refused = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(server,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, server: Running) -> None:
        body = {"prompt": PROMPT, "max_tokens": 60, "ignore_eos": True, "priority": 1000}
        while not self._stop.is_set():
            status = call(server, "/v1/completions", body, key="sk-flood").status
            assert status in (200, 429, 503)
            if status == 200:
                self.done.append(0)
            else:
                self.refused += 1
                self._stop.wait(0.05)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_t21_a_key_that_floods_does_not_stand_in_the_way_of_another(server: Running) -> None:
    with nothing_lost(server, "sk-other"):
        flood = Flood(server, 60)
        try:
            wait_until(lambda: flood.refused > 0)
            assert server.server.admission.sequences >= 40
            for _ in range(5):
                before = len(flood.done)
                answer = call(server, "/v1/completions", {"prompt": "hi", "max_tokens": 4}, key="sk-other")
                assert answer.status == 200
                assert len(flood.done) - before <= 8, "it waited for its turn behind what was there before"
        finally:
            flood.end()
    assert "fair_share" in server.server.admission.rejected


def test_t21_a_quota_holds_for_its_key_alone(server: Running) -> None:
    body = {"prompt": "hi", "max_tokens": 60, "ignore_eos": True}
    assert call(server, "/v1/completions", {**body, "n": 3}, key="sk-small").status == 429
    for _ in range(3):
        answer = call(server, "/v1/completions", body, key="sk-small")
        assert answer.status == 200
    refused = call(server, "/v1/completions", body, key="sk-small")
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["x-ratelimit-limit-tokens"] == "200"
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 62
    assert call(server, "/v1/completions", body, key="sk-other").status == 200
