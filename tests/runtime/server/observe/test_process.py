"""The same with a server and an engine that are processes of their own."""

from __future__ import annotations

import json
import os
import signal
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import Served, Stream, served, until


def metric(server: Served, name: str) -> float:
    with urllib.request.urlopen(server.url + "/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.mark.parametrize("kind", ["stub", pytest.param("model", marks=pytest.mark.slow)])
def test_an_engine_that_dies_is_counted_and_logged_and_nothing_is_lost(kind: str) -> None:
    with served("--engine-kind", kind, "--log-format", "json", "--grace", "1") as server:
        assert server.get("/debug/invariants")[1]["ok"]
        assert metric(server, "sgl_like:engine_up") == 1
        before = metric(server, "sgl_like:kv_tokens")
        stream = Stream(server.url, {"prompt": "play", "max_tokens": 1000, "ignore_eos": True})
        until(lambda: stream.events, "a first token")
        shown = server.get("/debug/requests")[1]
        assert shown["count"] == 1 and shown["requests"][0]["tokens"] >= 1
        os.kill(server.engine_pid, signal.SIGKILL)
        stream.join()
        assert metric(server, "sgl_like:kv_tokens") == before, "the last numbers"
        until(server.is_ready, "a new engine")
        found = server.get("/debug/invariants")[1]
        assert found["ok"] and found["idle"] and found["restarts"] == 1
        assert found["counts"]["failed"] == 1 and found["counts"]["in_flight"] == 0
        assert found["engine"]["pid"] == server.engine_pid
        assert metric(server, "sgl_like:engine_restarts_total") == 1
        assert server.end() == 0
        lines = [json.loads(line) for line in server.stderr().splitlines()]
    call = next(line for line in lines if line.get("finish") == ["error"])
    assert (call["level"], call["cause"], call["status"]) == ("warning", "engine", 200)
    assert any(line["level"] == "error" and line["logger"].endswith(".supervised") for line in lines)
