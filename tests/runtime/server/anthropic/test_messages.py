from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

import sgl_like as sgl
from sgl_like.runtime.server.config import ServerConfig
from tests.support.dialects import sse_events
from tests.support.http_clients import call
from tests.support.servers import Running, running, shared_engine

USER = {"role": "user", "content": "play some jazz music please"}
TOOL = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


def body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    base = {"model": "tiny", "max_tokens": 24, "temperature": 0, "messages": list(messages) or [USER]}
    return base | fields


def engines(messages: list[dict[str, Any]], **params: Any) -> str:
    """What the engine itself says to a conversation."""
    ids = shared_engine().tokenizer.apply_chat_template(messages)
    params = {"temperature": 0, "max_new_tokens": 24} | params
    text: str = shared_engine().generate(input_ids=ids, sampling_params=params)["text"]
    return text


def ask(server: Running, asked: dict[str, Any], path: str = "/v1/messages", **headers: str) -> Any:
    return call(server, path, asked, headers=headers).json


def streamed(server: Running, asked: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Events of a stream, and the message they amount to."""
    events = sse_events(call(server, "/v1/messages", asked | {"stream": True}))
    assert all(name == data["type"] for name, data in events)
    found = [data for _, data in events]
    message = found[0]["message"]
    partial: dict[int, str] = {}
    for event in found[1:]:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta" if event["delta"]["type"] == "text_delta":
                message["content"][event["index"]]["text"] += event["delta"]["text"]
            case "content_block_delta":
                at = event["index"]
                partial[at] = partial.get(at, "") + event["delta"]["partial_json"]
            case "content_block_stop" if message["content"][event["index"]]["type"] == "tool_use":
                message["content"][event["index"]]["input"] = json.loads(partial[event["index"]])
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    return found, message


def test_whole_and_streamed_texts_are_the_engines(server: Running) -> None:
    expected = engines([{"role": "system", "content": "Be brief."}, USER])
    asked = body(system="Be brief.")
    whole = ask(server, asked)
    assert whole["type"] == "message" and whole["role"] == "assistant" and whole["id"].startswith("msg_")
    assert whole["content"] == [{"type": "text", "text": expected}]
    events, message = streamed(server, asked)
    assert message["content"] == whole["content"]
    assert message["stop_reason"] == whole["stop_reason"]
    assert message["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["message_start", "content_block_start", "ping", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_begun_answer_is_continued(server: Running) -> None:
    whole = engines([USER])
    begun = whole[:5]
    found = ask(server, body(USER, {"role": "assistant", "content": begun}))
    ids = [
        *shared_engine().tokenizer.apply_chat_template([USER]),
        *shared_engine().tokenizer.encode_plain(begun),
    ]
    params = {"temperature": 0, "max_new_tokens": 24}
    expected = shared_engine().generate(input_ids=ids, sampling_params=params)["text"]
    assert found["content"][0]["text"] == expected


def test_reasons_to_stop(server: Running) -> None:
    text = engines([USER])
    stop = text[4:7]
    found = ask(server, body(stop_sequences=[stop]))
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", stop)
    assert found["content"] == [{"type": "text", "text": text[: text.index(stop)]}]
    found = ask(server, body(max_tokens=2))
    assert (found["stop_reason"], found["stop_sequence"]) == ("max_tokens", None)
    assert found["usage"]["output_tokens"] == 2
    assert ask(server, body(max_tokens=500))["stop_reason"] == "end_turn"
    template = shared_engine().tokenizer.apply_chat_template
    long = [{"role": "user", "content": "a " * times} for times in range(300, 1024)]
    question = max(
        (each for each in long if len(template([each])) <= 1022), key=lambda each: len(template([each]))
    )
    found = ask(server, body(question, max_tokens=10**6))
    assert found["stop_reason"] in ("model_context_window_exceeded", "end_turn")
    usage = found["usage"]
    total = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["output_tokens"]
    assert (total == 1024) == (found["stop_reason"] == "model_context_window_exceeded")


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "any"},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "tool", "name": "weather"},
    ],
)
def test_tools_are_called_with_valid_arguments(server: Running, choice: dict[str, Any]) -> None:
    asked = body(tools=[TOOL], tool_choice=choice, max_tokens=120)
    whole = ask(server, asked)
    used = [block for block in whole["content"] if block["type"] == "tool_use"]
    assert used
    if choice != {"type": "any"}:  # then there is nothing but the one call
        assert whole["content"] == used and len(used) == 1 and whole["stop_reason"] == "tool_use"
    for block in used:
        assert block["name"] == "weather" and block["id"]
        jsonschema.validate(block["input"], TOOL["input_schema"])
    _, message = streamed(server, asked)
    assert [{**block, "id": ""} for block in message["content"]] == [
        {**block, "id": ""} for block in whole["content"]
    ]
    result = {"type": "tool_result", "tool_use_id": used[0]["id"], "content": "sunny"}
    again = body(
        USER, {"role": "assistant", "content": whole["content"]}, {"role": "user", "content": [result]}
    )
    assert ask(server, again | {"tools": [TOOL]})["type"] == "message"


def test_tools_that_need_not_be_called(server: Running) -> None:
    for choice in ({"type": "none"}, {"type": "auto"}):
        found = ask(server, body(tools=[TOOL], tool_choice=choice))
        assert found["type"] == "message"
        if choice["type"] == "none":
            assert [block["type"] for block in found["content"]] == ["text"]


def test_an_answer_under_a_schema(server: Running) -> None:
    schema = {"type": "object", "properties": {"genre": {"enum": ["jazz", "rock"]}}, "required": ["genre"]}
    config = {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    found = ask(server, body(output_config=config))
    jsonschema.validate(json.loads(found["content"][0]["text"]), schema)


def test_usage_tells_what_was_cached(server: Running) -> None:
    question = {"role": "user", "content": "tell me something about a rather long and unusual question " * 5}
    counted = ask(server, body(question), "/v1/messages/count_tokens")
    assert counted == {"input_tokens": len(shared_engine().tokenizer.apply_chat_template([question]))}
    ask(server, body(question))
    usage = ask(server, body(question))["usage"]
    assert usage["cache_read_input_tokens"] > 20
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted["input_tokens"]
    events, _ = streamed(server, body(question))
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] > 20


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "image"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "hologram"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "1024"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"top_k": -5}, "top_k"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"tools": [TOOL | {"type": "bash_20250124"}]}, "bash_20250124"),
        ({"tools": [{"name": "x"}]}, "input_schema"),
        ({"tools": [TOOL, TOOL]}, "weather"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "other"),
        ({"tool_choice": {"type": "any"}}, "tool"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "wrong"}}}}, ""),
    ],
)
def test_errors_are_anthropics(server: Running, fields: dict[str, Any], word: str) -> None:
    answer = call(server, "/v1/messages", body() | fields)
    assert answer.status == 400
    error = answer.json
    assert error["type"] == "error" and error["error"]["type"] == "invalid_request_error"
    assert word in error["error"]["message"]
    assert ask(server, body())["type"] == "message"


def test_keys_come_in_either_header() -> None:
    with running(ServerConfig(api_keys=("secret",))) as server:
        assert ask(server, body(), **{"x-api-key": "secret"})["type"] == "message"
        assert ask(server, body(), Authorization="Bearer secret")["type"] == "message"
        answer = call(server, "/v1/messages", body(), headers={"x-api-key": "wrong"})
        assert answer.status == 401 and answer.json["error"]["type"] == "authentication_error"


def test_our_own_programs_run_on_it(server: Running) -> None:
    backend = sgl.Anthropic("tiny", "none", base_url=server.url, prefill=True, sampling=True)

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("Be brief.")
        s += sgl.user("play some jazz music please")
        s += sgl.assistant(sgl.gen("answer", max_tokens=24, temperature=0))

    try:
        state = program.run(backend=backend)
        expected = engines([{"role": "system", "content": "Be brief."}, USER])
        assert state["answer"] == expected
        streaming = program.run(backend=backend, stream=True)
        assert "".join(streaming.text_iter("answer")) == expected
    finally:
        backend.shutdown()
