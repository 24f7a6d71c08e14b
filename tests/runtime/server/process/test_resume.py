"""Programs whose server's engine is killed under them give what they would have given."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

import sgl_like as sgl
from tests.support.processes import Served, served, until

SCHEMA = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 12}},
    "required": ["tags"],
    "additionalProperties": False,
}


@sgl.function
def long(s: Any, options: dict[str, Any]) -> None:
    s += "Once upon a time" + sgl.gen("x", max_tokens=700, **options)
    s += sgl.gen("y", max_tokens=8)


KILLS = {"greedy": 1, "seeded": 2, "schema": 1}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"ignore_eos": True, "frequency_penalty": 0.2},
    "seeded": {"ignore_eos": True, "temperature": 1.3, "seed": 4, "return_logprob": True},
    "schema": {"json_schema": SCHEMA, "temperature": 1.0, "seed": 2},
}


@pytest.fixture(scope="module")
def server() -> Any:
    with served("--dtype", "float32") as started:
        yield started


@pytest.mark.parametrize("case", CASES)
def test_a_killed_engine_is_not_noticed(server: Served, case: str) -> None:
    with sgl.RuntimeEndpoint(server.url, max_retries=8) as backend:
        expected = long.run(CASES[case], backend=backend, temperature=0)
        assert expected.text()
        before = calls(server)
        state = long.run(CASES[case], backend=backend, temperature=0, stream=True)
        pieces = state.text_iter("x")
        text, kills = "", []
        for piece in pieces:
            text += piece
            if len(kills) < KILLS[case] and len(text) > 20 + 100 * len(kills):
                kills.append(server.engine_pid)
                os.kill(kills[-1], signal.SIGKILL)
        assert text == str(expected["x"])
        assert state.text() == expected.text()
        for name in ("x", "y"):
            old, new = expected.get_meta_info(name), state.get_meta_info(name)
            for field in (
                "output_ids",
                "finish_reason",
                "prompt_tokens",
                "completion_tokens",
                "forced_tokens",
            ):
                assert old.get(field) == new.get(field)
            scores = [place[1] for place in old.get("output_token_logprobs", ())]
            assert scores == [place[1] for place in new.get("output_token_logprobs", ())]
        assert len(set(kills)) == KILLS[case]
        assert calls(server) >= before + 2 + KILLS[case], "two gens, and for one of them the rest"


def test_a_batch_does_not_notice_either(server: Served) -> None:
    rows = [{"at": at} for at in range(48)]
    engine, kills = server.engine_pid, list[int]()

    @sgl.function
    def program(s: Any, at: int) -> None:
        s += f"Row {at}: " + sgl.gen("x", max_tokens=40, ignore_eos=True)
        if at == 20 and kills:
            assert s["x"]
            os.kill(kills.pop(), signal.SIGKILL)
        s += sgl.gen("y", max_tokens=40, ignore_eos=True) + sgl.select("z", ["yes", "no", "maybe"])

    with sgl.RuntimeEndpoint(server.url, max_retries=8) as backend:
        given = {"backend": backend, "temperature": 0, "num_threads": 16}
        expected = [state.text() for state in program.run_batch(rows, **given)]
        kills.append(engine)
        assert [state.text() for state in program.run_batch(rows, **given)] == expected
    assert server.engine_pid != engine


@pytest.mark.slow
@pytest.mark.load
def test_two_hundred_streams_under_five_kills() -> None:
    rows = [{"at": at} for at in range(200)]

    @sgl.function
    def program(s: Any, at: int) -> None:
        options = list(CASES.values())[at % 3]
        s += f"Row {at}: " + sgl.gen("x", **{**options, "max_tokens": 200, "seed": at, "json_schema": None})

    with (
        served("--dtype", "float32", "--max-running-requests", "64") as server,
        sgl.RuntimeEndpoint(server.url, max_retries=20, max_connections=300) as backend,
    ):
        expected = [state.text() for state in program.run_batch(rows, backend=backend, temperature=0)]
        states = [program.run(**row, backend=backend, temperature=0, stream=True) for row in rows]
        kills = set[int]()
        for at in range(0, 200, 40):
            next(states[at].text_iter())
            kills.add(until(lambda: server.is_ready() and server.engine_pid, "an engine"))
            os.kill(server.engine_pid, signal.SIGKILL)
            until(lambda: not server.is_ready(), "the news")
        assert ["".join(state.text_iter()) for state in states] == expected
        assert len(kills) == 5


def calls(server: Served) -> int:
    """To ``/generate`` so far."""
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        found = re.search(
            r'^sgl_like:http_requests_total\{[^}]*route="/generate"[^}]*\} ([0-9.]+)$',
            answer.read().decode(),
            re.M,
        )
    assert found is not None
    return int(float(found[1]))


@contextmanager
def another(port: int) -> Iterator[None]:
    """A server that takes the place of one that ends."""
    with served("--dtype", "float32", "--port", str(port)):
        yield


@pytest.mark.slow
@pytest.mark.load
def test_a_server_that_is_restarted_is_waited_for() -> None:
    pieces, text = None, ""
    with served("--dtype", "float32", "--grace", "0.1") as first:
        port = urlsplit(first.url).port
        assert port is not None
        backend = sgl.RuntimeEndpoint(first.url, max_retries=12)
        expected = long.run(CASES["seeded"], backend=backend, temperature=0)
        assert expected.text()
        state = long.run(CASES["seeded"], backend=backend, temperature=0, stream=True)
        pieces = state.text_iter("x")
        while len(text) < 40:
            text += next(pieces)
        assert first.end() == 0
    with backend, another(port):
        assert text + "".join(pieces) == str(expected["x"])
        assert state.text() == expected.text()
