"""The engine's process dies or hangs; the server stays (serving.md 3.2, T4 and T5)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.support.processes import PATIENCE, Served, Stream, all_stream, is_alive, served, streams, until

CANARY = {"prompt": "play some", "max_tokens": 8, "temperature": 0}
LONG = {"prompt": "play some jazz", "max_tokens": 900, "temperature": 2.0, "ignore_eos": True}
SECONDS_TO_NEWS = 2.0
SECONDS_TO_READY = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("--dtype", "float32") as started:
        yield started


def canary(server: Served) -> str:
    status, answer = server.call("POST", "/v1/completions", CANARY)
    assert status == 200, answer
    text = answer["choices"][0]["text"]
    assert isinstance(text, str)
    return text


def check_told(running: Sequence[Stream], since: float) -> float:
    """Every client has heard of it, once; seconds until the last one had."""
    for stream in running:
        stream.join(PATIENCE)
        assert stream.error is None and not stream.is_alive()
        assert (stream.failure is None) == stream.done
        if stream.failure is not None:
            assert "may be sent again" in stream.failure["message"]
            assert stream.failure["type"] == "server_error"
    told = [stream.ended for stream in running if stream.failure is not None]
    assert told, "nobody was in flight"
    return max(told) - since


def kill_once(server: Served, count: int) -> tuple[float, float]:
    """Kill the engine under `count` streams; seconds until all clients know, and until the server is ready again."""
    front, engine = server.process.pid, server.engine_pid
    running = streams(server.url, count, LONG)
    all_stream(running)
    killed = time.monotonic()
    os.kill(engine, signal.SIGKILL)
    told = check_told(running, killed)
    until(server.is_ready, "the next engine")
    ready = time.monotonic() - killed
    assert server.process.pid == front and server.process.poll() is None
    assert server.engine_pid != engine and not is_alive(engine)
    return told, ready


@pytest.mark.parametrize("repeat", range(3))
def test_a_killed_engine_is_told_of_and_replaced(server: Served, repeat: int) -> None:
    before = canary(server)
    told, ready = kill_once(server, 20)
    assert told < SECONDS_TO_NEWS
    assert ready < SECONDS_TO_READY
    assert canary(server) == before


@pytest.mark.slow
@pytest.mark.load
def test_two_hundred_streams_twenty_times() -> None:
    with served("--dtype", "float32", "--max-running-requests", "256") as server:
        before = canary(server)
        sockets = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        found = []
        for _ in range(20):
            found.append(kill_once(server, 200))
            assert canary(server) == before
        until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= sockets + 2, "closed sockets")
        print(f"told after at most {max(t for t, _ in found):.2f} s, ready {max(r for _, r in found):.2f} s")
        assert max(told for told, _ in found) < SECONDS_TO_NEWS
        assert max(ready for _, ready in found) < SECONDS_TO_READY


def test_while_there_is_no_engine_requests_are_refused_and_the_server_lives(server: Served) -> None:
    os.kill(server.engine_pid, signal.SIGKILL)
    until(lambda: not server.is_ready(), "the news")
    assert server.get("/livez")[0] == 200
    status, answer = server.call("POST", "/v1/completions", CANARY)
    assert status == 503 and answer["error"]["type"] == "server_error"
    until(server.is_ready, "the next engine")
    assert canary(server)


def test_a_stopped_engine_is_given_up_and_replaced() -> None:
    with served("--dtype", "float32") as server:
        before = canary(server)
        engine = server.engine_pid
        running = streams(server.url, 50, LONG)
        all_stream(running)
        stopped = time.monotonic()
        os.kill(engine, signal.SIGSTOP)
        told = check_told(running, stopped)
        assert told < 2 * SECONDS_TO_NEWS
        assert server.get("/livez")[0] == 200 and not server.is_ready()
        assert server.call("POST", "/v1/completions", CANARY)[0] == 503
        until(lambda: not is_alive(engine), "the end of the engine")
        until(server.is_ready, "the next engine")
        assert canary(server) == before


def test_an_engine_that_goes_on_in_time_is_kept_and_forgets_what_was_given_up() -> None:
    options = ("--dtype", "float32", "--unresponsive-seconds", "0.6", "--kill-seconds", "600")
    with served(*options) as server:
        before = canary(server)
        engine = server.engine_pid
        running = streams(server.url, 20, LONG)
        all_stream(running)
        os.kill(engine, signal.SIGSTOP)
        check_told(running, time.monotonic())
        counts = [len(stream.events) for stream in running]
        os.kill(engine, signal.SIGCONT)
        until(server.is_ready, "an answer")
        assert canary(server) == before
        assert server.engine_pid == engine
        assert [len(stream.events) for stream in running] == counts
