"""Signals to the server, and its death (serving.md 3.2, T6 and T7)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from tests.support.processes import PATIENCE, Served, all_stream, children, is_alive, served, streams, until

STUB = ("--engine-kind", "stub", "--stub-step", "0.02")
LONG = {"prompt": "play some", "max_tokens": 10_000}


def medium(tokens: int) -> dict[str, Any]:
    return {"prompt": "play some", "max_tokens": tokens}


def read(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def begin_drain(server: Served) -> None:
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.get("/livez")[0] == 0, "closed doors")


def test_what_runs_ends_within_the_grace_and_nothing_new_is_taken() -> None:
    with served(*STUB, "--grace", "60") as server:
        where = urlsplit(server.url)
        kept = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
        kept.request("GET", "/readyz")
        assert read(kept)[0] == 200
        running = streams(server.url, 100, medium(150))
        all_stream(running)
        begin_drain(server)
        kept.request("GET", "/readyz")  # on a connection that was there before
        assert read(kept) == (503, {"status": "draining"})
        kept.request("POST", "/v1/completions", '{"prompt": "a"}', {"Content-Type": "application/json"})
        status, refused = read(kept)
        assert status == 503 and refused["error"]["message"] == "the server is shutting down"
        kept.close()
        assert server.process.wait(PATIENCE) == 0
        for stream in running:
            stream.join(PATIENCE)
            assert (stream.finish, stream.done, stream.error) == ("length", True, None)
        assert "Traceback" not in server.stderr()


def test_what_takes_longer_than_the_grace_is_cut_cleanly() -> None:
    with served(*STUB, "--grace", "0.3") as server:
        running = streams(server.url, 50, LONG)
        whole: list[tuple[int, Any]] = []
        client = Thread(target=lambda: whole.append(server.call("POST", "/v1/completions", LONG)))
        client.start()
        all_stream(running)
        engine = server.engine_pid
        assert server.end() == 0
        for stream in running:
            stream.join(PATIENCE)
            assert (stream.finish, stream.done, stream.failure, stream.error) == ("abort", True, None, None)
            assert len(stream.events) > 2
        client.join(PATIENCE)
        status, answer = whole[0]
        assert status == 200 and answer["choices"][0]["finish_reason"] == "abort"
        assert answer["choices"][0]["text"]
        until(lambda: not is_alive(engine), "the end of the engine")
        assert "Traceback" not in server.stderr()


def test_a_second_signal_ends_at_once() -> None:
    with served(*STUB, "--grace", "600") as server:
        running = streams(server.url, 10, LONG)
        all_stream(running)
        engine = server.engine_pid
        begin_drain(server)
        assert server.end() == 128 + signal.SIGTERM
        until(lambda: not is_alive(engine), "the end of the engine")


def test_a_signal_while_there_is_no_engine_ends_the_server() -> None:
    with served("--engine-kind", "stub") as server:
        engine = server.engine_pid
        os.kill(engine, signal.SIGKILL)
        until(lambda: not server.is_ready(), "the news")
        assert server.end() == 0
        assert children(server.process.pid) == []


def test_an_engine_does_not_outlive_its_front() -> None:
    with served("--dtype", "float32") as server:
        engine = server.engine_pid
        running = streams(server.url, 20, {"prompt": "play", "max_tokens": 900, "temperature": 2.0})
        all_stream(running)
        killed = time.monotonic()
        os.kill(server.process.pid, signal.SIGKILL)
        until(lambda: not is_alive(engine), "the end of the engine")
        assert time.monotonic() - killed < 5.0
        for stream in running:
            stream.join(PATIENCE)
            assert not stream.is_alive()
