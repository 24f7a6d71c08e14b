from __future__ import annotations

from typing import Any

import pytest

from sgl_like.runtime.server.anthropic.bodies import MessagesRequest
from sgl_like.runtime.server.anthropic.conversation import (
    is_prefilled,
    messages_of,
    tool_use_of,
    tools_of,
)
from sgl_like.runtime.server.http.bodies import check_body
from sgl_like.runtime.server.http.errors import ApiError


def body(*messages: dict[str, Any], **fields: Any) -> MessagesRequest:
    return check_body({"model": "m", "max_tokens": 1, "messages": list(messages)} | fields, MessagesRequest)


CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]}


def test_system_texts_and_turns_become_messages() -> None:
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    parts = [{"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}]
    found = messages_of(
        body({"role": "user", "content": parts}, {"role": "user", "content": "two"}, system=system)
    )
    assert found == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "one\ntwo"},
    ]


def test_calls_and_results_become_openais() -> None:
    asked = {"role": "user", "content": "Weather?"}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    called = {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, CALL]}
    answered = {"role": "user", "content": [RESULT, {"type": "text", "text": "So?"}]}
    found = messages_of(body(asked, called, answered))
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Oslo"}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "name": "weather", "content": "rain"},
        {"role": "user", "content": "So?"},
    ]
    failed = {"role": "user", "content": [RESULT | {"is_error": True}]}
    assert messages_of(body(asked, called, failed))[-1]["content"] == "Error: rain"


def test_an_assistants_last_message_is_gone_on_from() -> None:
    user, said = {"role": "user", "content": "x"}, {"role": "assistant", "content": "The"}
    assert is_prefilled(body(user, said))
    assert not is_prefilled(body(user))
    assert not is_prefilled(body(user, {"role": "assistant", "content": [CALL]}))


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ([{"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}], "messages[0].content[0]"),
        ([{"type": "text", "text": "x"}, {"type": "document", "source": {}}], "messages[0].content[1]"),
        ([CALL], "messages[0].content[0]"),
        ([RESULT], "messages[0].content[0].tool_use_id"),
        ([RESULT | {"content": [{"type": "image", "source": {}}], "tool_use_id": "toolu_1"}], None),
        ([{"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}}], None),
    ],
)
def test_what_is_no_text_is_refused(parts: list[dict[str, Any]], where: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        messages_of(body({"role": "user", "content": parts}))
    assert caught.value.status == 400
    assert where is None or caught.value.param == where


def test_tools_and_choices_become_openais() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    user = {"role": "user", "content": "x"}
    tool = {"name": "weather", "description": "d", "input_schema": schema}
    with_tools = body(user, tools=[tool | {"cache_control": {"type": "ephemeral"}}])
    function = {"name": "weather", "description": "d", "parameters": schema}
    assert tools_of(with_tools.tools) == [{"type": "function", "function": function}]
    for choice, (callable_, required, parallel) in (
        (None, (["weather"], False, True)),
        ({"type": "auto"}, (["weather"], False, True)),
        ({"type": "any", "disable_parallel_tool_use": True}, (["weather"], True, False)),
        ({"type": "none"}, ([], False, True)),
        ({"type": "tool", "name": "weather"}, (["weather"], True, False)),
    ):
        use = tool_use_of(body(user, tools=[tool], tool_choice=choice))
        assert use is not None
        assert (use.callable, use.required, use.parallel) == (callable_, required, parallel)
    assert tool_use_of(body(user)) is None
    with pytest.raises(ApiError, match="web_search_20250305"):
        tools_of(body(user, tools=[{"type": "web_search_20250305", "name": "web_search"}]).tools)
