"""What SGLang's own programs rely on, as found by running them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, NoReturn

import pytest

import sgl_like as sgl
from tests.support.frontend_fake_backend import FakeBackend


@pytest.fixture(scope="module")
def runtime() -> Any:
    with sgl.Runtime() as runtime:
        yield runtime


def test_fork_takes_offsets_of_positions_without_effect(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, *offsets: Any) -> None:
        s += "start"
        forks = s.fork(2, *offsets)
        forks += lambda i: f" {i}"
        forks.join("concate_and_append")

    assert program([0, 1000]).text() == program().text() == "start 0 1"
    assert len(program.trace([0, 1000]).child_states) == 2


def test_pieces_with_meta_data_have_text_and_account_for_every_token(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("Book a table for two")
        s += sgl.assistant(sgl.gen("a", max_tokens=64, temperature=0, return_logprob=True))

    async def read() -> list[tuple[str, dict[str, Any]]]:
        return [piece async for piece in state.text_async_iter("a", return_meta_data=True)]

    state = program.stream(backend=runtime)
    pieces = asyncio.run(read())
    assert state.get_meta_info("a")["finish_reason"]["type"] == "stop", "a token without text has ended it"
    assert all(text for text, _ in pieces) and "".join(text for text, _ in pieces) == state["a"]
    before = 0
    for _, meta in pieces:
        assert meta["completion_tokens"] == meta["output_token_logprobs_length"]
        assert len(meta["output_token_logprobs"]) == meta["completion_tokens"] - before
        before = meta["completion_tokens"]
    ids = [token for _, meta in pieces for _, token, _ in meta["output_token_logprobs"]]
    assert ids == state.get_meta_info("a")["output_ids"]


def test_an_output_without_text_is_one_piece(backend: FakeBackend) -> None:
    backend._respond = lambda call: ""

    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a")

    async def read() -> list[tuple[str, dict[str, Any]]]:
        return [piece async for piece in program.stream().text_async_iter("a", return_meta_data=True)]

    ((text, meta),) = asyncio.run(read())
    assert text == "" and meta["finish_reason"]["type"] == "stop"


def test_two_gens_with_one_name(backend: FakeBackend) -> None:
    """b#9: who reads gets the value of the gen that was added last."""

    @sgl.function
    def program(s: Any) -> tuple[str, str]:
        s += "x" + sgl.gen("a")
        first = s["a"]
        s += sgl.gen("a") + sgl.gen("a")
        return first, s["a"]

    state = program()
    assert state.ret_value == ("answer 1", "answer 3") and state["a"] == "answer 3"


def test_parallel_encoding_on_an_engine(runtime: sgl.Runtime) -> None:
    """b#13: texts of forks are appended, in order, and the program goes on after them."""

    @sgl.function
    def program(s: Any) -> None:
        s += "Statements:\n"
        forks = s.fork(3)
        forks += lambda i: f"number {i}\n"
        forks.join(mode="concate_and_append")
        s += "Question:" + sgl.gen("answer", max_tokens=4)

    state = program.run(backend=runtime)
    assert state.text() == "Statements:\nnumber 0\nnumber 1\nnumber 2\nQuestion:" + state["answer"]


def test_an_engine_in_this_process_opens_no_socket(
    runtime: sgl.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """c#7: zero sockets. That no sampled token is tokenised again is shown in test_token_exact.py."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)

    @sgl.function
    def program(s: Any) -> None:
        s += "abc" + sgl.gen("a", max_tokens=4) + sgl.select("b", ["x", "y"])

    assert program.run(backend=runtime).error() is None
