"""Answers that arrive in pieces: cut anywhere, cumulative or not, broken off, cancelled."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sgl_like as sgl
from sgl_like.frontend.backend.base import Segment
from sgl_like.frontend.backend.remote import loop
from sgl_like.frontend.backend.remote.engines.sglang import SglangGenerate
from sgl_like.frontend.backend.remote.sse import json_lines, server_sent_events
from tests.support.remote_server import Asked, FakeServer, Reply, bytewise, sse

TEXTS = ["né", " 你好", "", "🌿 and", "\n\nso on"]
WHOLE = "".join(TEXTS)


@sgl.function
def plain(s: Any) -> None:
    s += "Once" + sgl.gen("x", max_tokens=20)


@sgl.function
def chat(s: Any) -> None:
    s += sgl.user("Hi") + sgl.assistant(sgl.gen("x", max_tokens=20))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


async def collected(reader: Any, chunks: list[bytes]) -> list[Any]:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [event async for event in reader(source())]


EVENTS = st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3), max_size=4)


@given(
    EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.lists(st.integers(0, 9999), max_size=20)
)
def test_events_cut_anywhere(events: list[Any], end: str, closed: bool, places: list[int]) -> None:
    lines = [f": a comment{end}event: x{end}"]
    for event in events:
        lines.append(f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}")
    lines.append(f"data: [DONE]{end}{end}" if closed else "")
    data = "".join(lines).encode()
    assert asyncio.run(collected(server_sent_events, cut(data, places))) == events


@given(EVENTS, st.lists(st.integers(0, 9999), max_size=20))
def test_json_lines_cut_anywhere(events: list[Any], places: list[int]) -> None:
    data = "\n".join(json.dumps(event) for event in events).encode()
    assert asyncio.run(collected(json_lines, cut(data, places))) == events


def chat_events(texts: list[str]) -> list[Any]:
    events: list[Any] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    events += [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in texts]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    return [*events, {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}]


def test_a_chat_stream_cut_at_every_byte() -> None:
    with FakeServer([Reply(chunks=bytewise(sse(*chat_events(TEXTS))))]) as server:
        backend = sgl.OpenAICompatible(server.url, "m", dialect="vllm")
        state = chat.run(backend=backend, stream=True)
        assert list(state.text_iter("x")) and state["x"] == WHOLE
        assert "".join(state.text_iter("x")) == WHOLE
        assert backend.token_usage.completion_tokens == 5
        options = {"include_usage": True, "continuous_usage_stats": True}
        assert server.asked[0].body["stream_options"] == options


def test_a_stream_of_json_lines() -> None:
    lines = [{"message": {"content": text}, "done": False} for text in TEXTS]
    last = {
        "message": {"content": ""},
        "done": True,
        "done_reason": "length",
        "eval_count": 5,
        "prompt_eval_count": 7,
    }
    data = "".join(json.dumps(line) + "\n" for line in [*lines, last]).encode()
    with FakeServer([Reply(chunks=bytewise(data))]) as server:
        state = chat.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="ollama"), stream=True)
        assert state["x"] == WHOLE
        assert state.get_meta_info("x")["finish_reason"] == {"type": "length"}


def generate_events(texts: list[str], cumulative: bool, ids: bool = True) -> list[Any]:
    """SGLang's events; `texts` one token each. Cumulative by default, else as with incremental_streaming_output."""
    events: list[Any] = []
    for at in range(1, len(texts) + 1):
        meta = {
            "prompt_tokens": 7, "completion_tokens": at,
            "finish_reason": {"type": "length", "length": 5} if at == len(texts) else None,
            "output_token_logprobs": [[-0.5, n, None] for n in (range(at) if cumulative else [at - 1])],
        }  # fmt: skip
        tokens = list(range(at)) if cumulative else [at - 1]
        event = {"text": "".join(texts[:at]) if cumulative else texts[at - 1], "meta_info": meta}
        events.append({**event, "output_ids": tokens} if ids else event)
    return events


@pytest.mark.parametrize("cumulative", [True, False])
@pytest.mark.parametrize("ids", [True, False])
def test_whole_and_incremental_texts(cumulative: bool, ids: bool) -> None:  # b#28
    data = sse(*generate_events(TEXTS, cumulative, ids))
    with FakeServer([Reply(chunks=[data])]) as server:
        state = plain.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="sglang"), stream=True)
        assert "".join(state.text_iter("x")) == WHOLE and state["x"] == WHOLE
        assert state.get_meta_info("x")["completion_tokens"] == 5


@given(st.lists(st.sampled_from(["", "a", "aa", "ab", "\ufffd"]), min_size=1, max_size=8), st.booleans())
def test_texts_that_repeat_are_told_apart_by_their_ids(texts: list[str], cumulative: bool) -> None:  # b#28
    answer = SglangGenerate().answer({"stream": True})
    pieces = [answer.read(event) for event in generate_events(texts, cumulative)]
    assert "".join(piece.text for piece in pieces) == "".join(texts)
    assert [token for piece in pieces for token in piece.token_ids] == list(range(len(texts)))
    assert [place.token[1] for piece in pieces for place in piece.output_logprobs] == list(range(len(texts)))


def resuming(cumulative: bool) -> Any:
    """A server that breaks off after the second token, and goes on when asked for the rest."""

    def script(asked: Asked) -> Reply:
        written = asked.body["text"].removeprefix("Once")
        left = TEXTS[2:] if written else TEXTS
        assert WHOLE.startswith(written)
        events = generate_events(left, cumulative)
        if written:
            assert asked.body["sampling_params"]["max_new_tokens"] == 18
            return Reply(chunks=[sse(*events)])
        return Reply(chunks=[sse(*events[:2], done=False)], breaks=True)

    return script


@pytest.mark.parametrize("cumulative", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_broken_stream_is_gone_on_with(cumulative: bool, stream: bool) -> None:
    with FakeServer(resuming(cumulative)) as server:
        backend = sgl.OpenAICompatible(server.url, "m", dialect="sglang", sleep=no_sleep)
        if not stream:
            server._script = [Reply(breaks=True), Reply(generate_events(TEXTS, True)[-1])]
        state = plain.run(backend=backend, stream=stream)
        assert state["x"] == WHOLE, state.error()
        assert state.get_meta_info("x")["completion_tokens"] == 5
        assert len(server.asked) == 2


async def no_sleep(seconds: float) -> None:
    return


def test_a_broken_stream_that_cannot_be_gone_on_with_is_an_error_that_keeps_the_text() -> None:
    events = [{"choices": [{"text": "half", "finish_reason": None}]}]
    with FakeServer([Reply(chunks=[sse(*events, done=False)], breaks=True)]) as server:
        state = plain.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="mlc-llm"), stream=True)
        error = state.error()
        assert isinstance(error.__cause__, sgl.RemoteConnectionError)
        assert state._interpreter.chunks == ["Once", "half"]


def test_an_answer_that_was_whole_when_it_broke_off() -> None:
    events = [{"choices": [{"text": " upon", "finish_reason": "stop"}]}]
    with FakeServer([Reply(chunks=[sse(*events, done=False)], breaks=True)]) as server:
        state = plain.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="vllm"), stream=True)
        assert state["x"] == " upon" and len(server.asked) == 1


def test_an_error_in_the_middle_of_a_stream() -> None:
    events = [{"choices": [{"text": "half"}]}, {"error": {"message": "out of memory", "code": 500}}]
    with FakeServer([Reply(chunks=[sse(*events)])]) as server:
        state = plain.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="vllm"), stream=True)
        assert "reported an error: out of memory" in str(state.error())


def test_errors_of_llama_cpp_have_a_field_of_their_own() -> None:
    data = b'data: {"content": "a", "stop": false}\n\nerror: {"code": 500, "message": "no slot"}\n\n'
    with FakeServer([Reply(chunks=[data])]) as server:
        state = plain.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="llama.cpp"), stream=True)
        assert "no slot" in str(state.error())


@pytest.mark.parametrize("stream", [True, False])
def test_a_program_that_is_cancelled_hangs_up(stream: bool) -> None:
    chunks = [sse({"choices": [{"text": "a"}]}, done=False)] if stream else None
    with FakeServer([Reply(chunks=chunks, hangs=True)]) as server:
        state = plain.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="vllm"), stream=True)
        assert server.hanging.wait(20)
        state.cancel()
        assert "cancelled" in str(state.error())
        assert server.disconnected.wait(20)


def test_a_request_cancelled_before_it_is_sent_leaves_nothing_behind() -> None:
    with FakeServer([]) as server:
        backend = sgl.OpenAICompatible(server.url, "m", dialect="vllm")
        ids = backend.encode([Segment("Once", True)])
        loop._running_loop().call_soon_threadsafe((gate := threading.Event()).wait, 20)  # the loop is busy
        handle = backend.submit(ids, {}, lambda output: None, False)
        handle.cancel()
        handle.cancel()
        gate.set()
        loop.run(no_sleep(0))
        gc.collect()
        assert not server.asked and not backend._running


def test_many_programs_share_one_thread() -> None:
    def script(asked: Asked) -> Reply:
        return Reply({"choices": [{"text": asked.body["prompt"][-1], "finish_reason": "stop"}]})

    @sgl.function
    def program(s: Any, n: int) -> None:
        for _ in range(3):
            s += str(n % 10) + sgl.gen("x")

    with FakeServer(script) as server:
        backends = [sgl.OpenAICompatible(server.url, "m", dialect="compatible") for _ in range(3)]
        rows = [(n,) for n in range(30)]
        random.Random(0).shuffle(rows)
        for backend in backends:
            states = program.run_batch(rows, backend=backend)
            assert [state["x"] for state in states] == [str(n % 10) for (n,) in rows]
        assert sum(thread.name == "sgl-remote" for thread in threading.enumerate()) == 1


THINKING = [
    {"reasoning_content": "Let me "},
    {"reasoning_content": "see."},
    {"content": "4"},
    {"content": "!"},
]


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_that_the_engine_has_separated(stream: bool) -> None:
    """vLLM, SGLang and DeepSeek send it in a field of its own."""

    def script(asked: Asked) -> Reply:
        if asked.body.get("stream"):
            chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in THINKING]
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            return Reply(chunks=[sse(*chunks, end)], headers={"Content-Type": "text/event-stream"})
        message = {"role": "assistant", "reasoning_content": "Let me see.", "content": "4!"}
        return Reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    @sgl.function
    def think(s: Any) -> None:
        s += sgl.user("2+2?") + sgl.assistant(sgl.separate_reasoning(sgl.gen("x", max_tokens=9)))

    with FakeServer(script) as server, sgl.OpenAICompatible(server.url, "m", dialect="vllm") as backend:
        state = think.run(backend=backend, stream=stream)
        assert (state["x"], state["x_reasoning_content"]) == ("4!", "Let me see.")
        assert "".join(state.text_iter("x_reasoning_content")) == "Let me see."
        assert state.messages()[-1] == {"role": "assistant", "content": "4!"}
        assert chat.run(backend=backend, stream=stream)["x"] == "4!"
