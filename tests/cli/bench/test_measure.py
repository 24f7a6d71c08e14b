"""One request, with times that the test decides."""

from __future__ import annotations

import asyncio
from array import array

import orjson
import pytest

from sgl_like.cli.bench.dialects import Endpoint
from sgl_like.cli.bench.measure import Call
from sgl_like.cli.bench.responses import ResponseReader

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 100, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 25}}


def event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chat(content: str | None = None, finish: str | None = None, **delta: object) -> bytes:
    return event({"choices": [{"delta": {"content": content, **delta}, "finish_reason": finish}]})


class Fed:
    """A call whose response comes as a test says."""

    def __init__(self, endpoint: Endpoint = "chat", outputs: int = 1, abort_after: int | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.gaps = array("d")
        self.response = ResponseReader()

        async def make() -> Call:
            return Call(b"", endpoint, outputs, self.gaps, abort_after)

        self.call = self.loop.run_until_complete(make())
        self.call.record.sent = 10.0
        self.loop.close()

    def stream(self, *timed: tuple[float, bytes], ends: float | None = None) -> None:
        self.response.feed(HEAD)
        for now, data in timed:
            if not self.call.receive(self.response, data, now):
                return
        if ends is not None:
            self.call.end(self.response, ends)


def test_times_of_a_stream() -> None:
    fed = Fed()
    fed.stream(
        (10.5, chat(role="assistant")),
        (11.0, chat("a")),
        (11.25, chat("b") + chat("c")),
        (12.0, chat("d")),
        (12.5, chat(None, "stop")),
        (12.75, event({"choices": [], "usage": USAGE}) + DONE),
        ends=13.0,
    )
    record = fed.call.record
    assert record.outcome == "ok"
    assert record.ttft == 1.0
    assert list(fed.gaps) == [0.25, 0.0, 0.75]
    assert record.e2e == 3.0
    assert record.tpot == pytest.approx(1 / 3)
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (100, 4, 25)
    assert fed.call.over.done()


def test_tokens_are_events_if_the_server_does_not_count() -> None:
    fed = Fed()
    fed.stream((11.0, chat("a")), (12.0, chat(tool_calls=[{"index": 0}], finish="tool_calls")), ends=12.0)
    assert (fed.call.record.outcome, fed.call.record.output_tokens) == ("ok", 2)
    assert fed.call.record.cached_tokens is None


def test_an_output_without_text_comes_with_its_end() -> None:
    fed = Fed()
    fed.stream((11.0, chat("")), (12.0, chat("", "length")), ends=12.0)
    assert (fed.call.record.outcome, fed.call.record.ttft) == ("ok", 2.0)


def test_the_native_endpoint() -> None:
    fed = Fed("generate")
    meta = {"prompt_tokens": 7, "cached_tokens": 3}
    fed.stream(
        (11.0, event({"text": "a", "meta_info": {**meta, "completion_tokens": 1, "finish_reason": None}})),
        (
            12.0,
            event(
                {
                    "text": "ab",
                    "meta_info": {**meta, "completion_tokens": 2, "finish_reason": {"type": "length"}},
                }
            ),
        ),
        ends=12.0,
    )
    record = fed.call.record
    assert (record.outcome, record.output_tokens, record.cached_tokens, record.ttft) == ("ok", 2, 3, 1.0)


def test_a_stream_of_several_outputs() -> None:
    fed = Fed("completions", outputs=2)
    fed.stream(
        (11.0, event({"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]})),
        (12.0, event({"choices": [{"index": 1, "text": "b", "finish_reason": "stop"}]})),
        ends=12.0,
    )
    assert fed.call.record.outcome == "ok"


def test_a_stream_that_ends_without_its_output() -> None:
    fed = Fed("completions", outputs=2)
    fed.stream(
        (11.0, event({"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}) + DONE), ends=12.0
    )
    assert fed.call.record.outcome == "unfinished"


def test_an_error_amid_a_stream() -> None:
    fed = Fed()
    fed.stream((11.0, chat("a")), (12.0, event({"error": {"message": "the engine is gone"}})), ends=13.0)
    assert fed.call.record.outcome == "error_event"
    assert "the engine is gone" in fed.call.record.message
    assert fed.call.record.ended == 12.0


def test_what_no_server_should_send() -> None:
    fed = Fed()
    fed.stream((11.0, b"data: {broken\n\n"), ends=13.0)
    assert fed.call.record.outcome == "protocol"


def test_leaves_after_so_many_events() -> None:
    fed = Fed(abort_after=2)
    fed.stream((11.0, chat("a")), (12.0, chat("b")), (13.0, chat("c")), ends=14.0)
    assert (fed.call.record.outcome, fed.call.record.events, fed.call.record.ended) == ("aborted", 2, 12.0)


def test_does_not_leave_what_has_ended() -> None:
    fed = Fed(abort_after=2)
    fed.stream((11.0, chat("a")), (12.0, chat("b", "stop")), ends=14.0)
    assert fed.call.record.outcome == "ok"


def test_a_whole_answer() -> None:
    fed = Fed()
    answer = orjson.dumps(
        {"choices": [{"message": {"content": "ab"}, "finish_reason": "stop"}], "usage": USAGE}
    )
    fed.response.feed(WHOLE % len(answer))
    fed.call.receive(fed.response, answer[:10], 11.0)
    fed.call.receive(fed.response, answer[10:], 12.0)
    fed.call.end(fed.response, 12.0)
    record = fed.call.record
    assert (record.outcome, record.output_tokens, record.ttft, record.e2e) == ("ok", 4, None, 2.0)
    assert not fed.gaps


def test_a_refusal() -> None:
    fed = Fed()
    fed.response.feed(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\n")
    fed.call.receive(fed.response, b"full", 11.0)
    fed.call.end(fed.response, 11.0)
    record = fed.call.record
    assert (record.outcome, record.message, record.retry_after) == ("http_503", "full", True)
