from __future__ import annotations

from typing import Any

from sgl_like.runtime.server.http.bodies import check_body
from sgl_like.runtime.server.openai.responses.bodies import ResponsesRequest
from sgl_like.runtime.server.openai.responses.items import input_items, messages_of


def messages(*items: dict[str, Any], instructions: str | None = None) -> list[dict[str, Any]]:
    return messages_of(input_items(check_body({"input": list(items)}, ResponsesRequest)), instructions)


def test_items_become_the_messages_of_a_chat() -> None:
    calls = [
        {"type": "function_call", "call_id": f"c{at}", "name": "f", "arguments": '{"a": 1}'}
        for at in range(2)
    ]
    results: list[dict[str, Any]] = [
        {"type": "function_call_output", "call_id": "c0", "output": "x"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "y"}]},
    ]
    found = messages(
        {"role": "developer", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        *calls,
        *results,
        instructions="Be brief.",
    )
    function = {"name": "f", "arguments": {"a": 1}}
    assert found == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "c0", "type": "function", "function": function},
                {"id": "c1", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "name": "f", "content": "x"},
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "y"},
    ]


def test_arguments_that_were_cut_off_are_told_as_they_are() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": '}
    (message,) = messages(call)
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a": '
