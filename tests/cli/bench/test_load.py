"""Load on a server that counts. It and the load share an event loop, so nothing here depends on time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from sgl_like.cli.bench.client import Client
from sgl_like.cli.bench.datasets import RandomTokens
from sgl_like.cli.bench.dialects import Sampling
from sgl_like.cli.bench.load import Level, Load, Result, Target
from sgl_like.errors import DataError
from tests.cli.bench.fake_server import Behaviour, Fake, Seen, fake


def put(
    behave: Behaviour, level: Level, check: Callable[[Fake], bool] = lambda state: True, **target: Any
) -> tuple[Result, Fake]:
    """Run one level; then wait until `check` holds on the server's side."""

    async def run() -> tuple[Result, Fake]:
        async with fake(behave) as state:
            dataset = RandomTokens(8, 4)
            load = Load(Target(url=state.url, endpoint="completions", **target), dataset)
            result = await asyncio.wait_for(load.run(level), 60)
            load.close()
            async with asyncio.timeout(30):
                while not check(state):
                    await asyncio.sleep(0.001)
            return result, state

    return uvloop.run(run())


async def answer(seen: Seen) -> None:
    await seen.text(seen.body["max_tokens"])


def outcomes(result: Result) -> set[str]:
    return {record.outcome for record in result.records}


def test_so_many_at_a_time_on_connections_that_are_kept() -> None:
    result, state = put(answer, Level(concurrency=5, requests=40))
    assert len(result.records) == len(state.requests) == 40
    assert outcomes(result) == {"ok"}
    assert state.most == state.connections == result.connections == 5
    assert all(record.output_tokens == 4 and record.cached_tokens == 4 for record in result.records)
    assert all(record.events == 4 for record in result.records)
    assert len(result.gaps) == 40 * 3
    assert all(record.sent <= (record.first or 0) <= record.last <= record.ended for record in result.records)


def test_what_is_sent() -> None:
    sampling = Sampling(model="m", temperature=0.5, extra={"top_k": 3})
    _, state = put(answer, Level(concurrency=1, requests=2), sampling=sampling, api_key="secret")
    body = state.requests[0].body
    assert len(body.pop("prompt")) == 8
    assert body == {
        "model": "m",
        "max_tokens": 4,
        "temperature": 0.5,
        "stream": True,
        "ignore_eos": True,
        "top_k": 3,
        "stream_options": {"include_usage": True},
    }
    assert b"Authorization: Bearer secret\r\n" in state.requests[0].headers
    assert state.requests[0].body != state.requests[1].body


def test_so_many_a_second_however_many_are_under_way() -> None:
    """No answer comes before all requests are there: an open loop does not wait for answers."""
    there = asyncio.Event()

    async def wait(seen: Seen) -> None:
        if seen.number == 19:
            there.set()
        await there.wait()
        await answer(seen)

    result, state = put(wait, Level(rate=10_000.0, requests=20))
    assert outcomes(result) == {"ok"}
    assert state.most == 20


def test_refusals_are_counted_and_the_connection_is_kept() -> None:
    async def refuse(seen: Seen) -> None:
        if seen.number % 2:
            await answer(seen)
        else:
            seen.writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}")

    result, state = put(refuse, Level(concurrency=2, requests=10))
    assert sorted(record.outcome for record in result.records) == ["http_503"] * 5 + ["ok"] * 5
    assert all(record.retry_after == (record.outcome != "ok") for record in result.records)
    assert state.connections == 2


def test_a_stream_that_breaks() -> None:
    async def break_off(seen: Seen) -> None:
        await seen.text(2, finish=False)
        await seen.writer.drain()
        seen.writer.close()

    result, _ = put(break_off, Level(concurrency=2, requests=6))
    assert outcomes(result) == {"broken"}
    assert all(record.output_tokens == 2 for record in result.records)


def test_a_stream_without_its_last_token() -> None:
    async def cut(seen: Seen) -> None:
        await seen.text(2, finish=False)
        seen.writer.write(b"0\r\n\r\n")

    assert outcomes(put(cut, Level(concurrency=1, requests=2))[0]) == {"unfinished"}


def test_a_connection_without_a_response() -> None:
    async def hang_up(seen: Seen) -> None:
        seen.writer.close()

    assert outcomes(put(hang_up, Level(concurrency=1, requests=2))[0]) == {"no_response"}


def test_a_kept_connection_that_was_closed_meanwhile_is_no_error() -> None:
    async def once(seen: Seen) -> None:
        if seen.number % 2 == 0:
            await answer(seen)
        elif seen.connection == 0:
            seen.writer.close()
        else:
            await answer(seen)

    result, state = put(once, Level(concurrency=1, requests=2))
    assert outcomes(result) == {"ok"}
    assert (len(state.requests), state.connections) == (3, 2)


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

        async def run() -> Result:
            load = Load(Target(url=url, endpoint="completions"), RandomTokens(1, 1))
            return await load.run(Level(concurrency=2, requests=4))

        assert outcomes(uvloop.run(run())) == {"refused"}


def test_no_http() -> None:
    async def babble(seen: Seen) -> None:
        seen.writer.write(b"hello\r\n\r\n")
        await seen.gone()

    result, _ = put(babble, Level(concurrency=1, requests=1), lambda state: state.ended == 1)
    assert outcomes(result) == {"protocol"}


def test_those_that_leave_close_their_connections() -> None:
    """Each is answered but for its last token, so whoever does not leave waits; the server sees every one go."""

    async def hold(seen: Seen) -> None:
        await seen.text(4, finish=False)
        await seen.gone()

    result, state = put(
        hold,
        Level(concurrency=4, requests=40),
        lambda state: state.ended == state.connections,
        abort_share=1.0,
    )
    assert outcomes(result) == {"aborted"}
    assert {record.events for record in result.records} >= {0, 1, 2, 3, 4}
    assert state.connections == len(result.records) == 40


def test_those_that_leave_without_a_stream() -> None:
    async def hold(seen: Seen) -> None:
        await seen.gone()

    result, _ = put(
        hold,
        Level(concurrency=4, requests=20),
        lambda state: state.ended == state.connections,
        abort_share=1.0,
        sampling=Sampling(stream=False),
    )
    assert outcomes(result) == {"aborted"}
    assert len(result.records) == 20


def test_a_request_that_takes_too_long() -> None:
    async def hold(seen: Seen) -> None:
        await seen.gone()

    result, _ = put(hold, Level(concurrency=1, requests=2), lambda state: state.ended == 2, timeout=0.05)
    assert outcomes(result) == {"timeout"}


def test_a_share_of_the_requests_leaves_and_the_seed_says_which() -> None:
    def aborted(seed: int) -> list[tuple[str, int]]:
        result, _ = put(answer, Level(concurrency=1, requests=200, seed=seed), abort_share=0.3)
        return [(record.outcome, record.events) for record in result.records if record.outcome == "aborted"]

    first = aborted(1)
    assert 30 <= len(first) <= 90
    assert len(aborted(2)) != len(first) or aborted(2) != first


def test_no_request_begins_after_the_time_is_over() -> None:
    ticks = iter(range(1_000_000))

    async def run() -> Result:
        async with fake(answer) as state:
            target = Target(url=state.url, endpoint="completions")
            load = Load(target, RandomTokens(8, 4), clock=lambda: float(next(ticks)))
            try:
                return await load.run(Level(concurrency=1, requests=10**9, seconds=100.0))
            finally:
                load.close()

    result = uvloop.run(run())
    assert 1 < len(result.records) < 100


def test_an_address_that_is_none() -> None:
    for url in ("localhost:30000", "ftp://x", "http://"):
        with pytest.raises(DataError, match="address"):
            Client(url, lambda: 0.0)
