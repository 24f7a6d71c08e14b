from __future__ import annotations

from typing import Any

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from sgl_like.runtime.protocol import Usage
from sgl_like.runtime.server.openai.responses.events import ResponseBuilder

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
BARE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "tiny",
    "output": [],
    "status": "in_progress",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def test_events_are_openais_and_in_order() -> None:
    builder = ResponseBuilder(BARE | {"output": []})
    events = builder.begin()
    events += builder.text("Hello")
    events += builder.text(" you", [{"token": " you", "bytes": [32], "logprob": -0.5, "top_logprobs": []}])
    events += builder.call("weather")
    events += builder.arguments('{"city":')
    events += builder.arguments('"Oslo"}')
    events += builder.end("completed", Usage(10, 5, 3))
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    final = events[-1]["response"]
    assert final["output"][0]["content"][0]["text"] == "Hello you"
    assert final["output"][1]["arguments"] == '{"city":"Oslo"}'
    assert [item["status"] for item in final["output"]] == ["completed", "completed"]
    assert final["usage"]["input_tokens_details"]["cached_tokens"] == 3
    assert final["usage"]["total_tokens"] == 15
    assert events[0]["response"]["output"] == [] and events[0]["response"]["status"] == "in_progress"


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    builder = ResponseBuilder(BARE | {"output": []})
    events = builder.begin() + builder.end("completed", Usage(1, 1))
    assert "response.output_text.delta" not in [event["type"] for event in events]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_what_was_cut_off_is_incomplete() -> None:
    builder = ResponseBuilder(BARE | {"output": []})
    builder.text("Hel")
    last = builder.end("incomplete", Usage(1, 1), reason="max_output_tokens")[-1]
    EVENT.validate_python(last)
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_a_failure_keeps_what_there_is() -> None:
    builder = ResponseBuilder(BARE | {"output": []})
    builder.text("Hel")
    last = builder.end("failed", error={"code": "server_error", "message": "the engine failed"})[-1]
    EVENT.validate_python(last)
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
