"""``/v1/responses`` with the `openai` client, unmodified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from sgl_like.runtime.server.config import ServerConfig
from tests.support.servers import Running, running, shared_engine

QUESTION = "play some jazz music please"
GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_output_tokens": 24}
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Weather of a city",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Music(BaseModel):
    """What to play."""

    genre: Literal["jazz", "rock"]
    loud: bool


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def engines(*messages: tuple[str, str], **params: Any) -> str:
    """What the engine itself says to a conversation."""
    conversation = [{"role": role, "content": content} for role, content in messages]
    ids = shared_engine().tokenizer.apply_chat_template(conversation)
    params = {"temperature": 0, "max_new_tokens": 24} | params
    text: str = shared_engine().generate(input_ids=ids, sampling_params=params)["text"]
    return text


def test_texts_are_the_engines_however_they_are_asked_for(client: OpenAI) -> None:
    expected = engines(("user", QUESTION))
    for given in (
        QUESTION,
        [{"role": "user", "content": QUESTION}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
    ):
        found = client.responses.create(input=given, **GREEDY)  # type: ignore[arg-type]
        Response.model_validate(found.model_dump())
        assert found.output_text == expected and found.id.startswith("resp_")
    assert found.usage is not None
    assert found.usage.input_tokens == len(
        shared_engine().tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}])
    )
    with_instructions = client.responses.create(input=QUESTION, instructions="Be brief.", **GREEDY)
    assert with_instructions.output_text == engines(("system", "Be brief."), ("user", QUESTION))
    assert with_instructions.instructions == "Be brief."


def test_streams_tell_the_same_in_typed_events(client: OpenAI) -> None:
    expected = engines(("user", QUESTION))
    events = list(client.responses.create(input=QUESTION, stream=True, metadata={"a": "b"}, **GREEDY))
    for event in events:
        EVENT.validate_python(event.model_dump())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == expected
    assert events[-1].type in ("response.completed", "response.incomplete")
    final = events[-1].response
    assert final.output_text == expected and final.metadata == {"a": "b"}
    assert final.usage is not None and final.usage.output_tokens > 0


def test_the_clients_own_stream_helper(client: OpenAI) -> None:
    asked = GREEDY | {"max_output_tokens": 200}
    with client.responses.stream(input=QUESTION, text_format=Music, **asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert isinstance(final.output_parsed, Music)


def test_parse_gives_objects(client: OpenAI) -> None:
    found = client.responses.parse(
        model="tiny", temperature=0, input=QUESTION, text_format=Music, max_output_tokens=200
    )
    assert isinstance(found.output_parsed, Music)
    assert found.status == "completed"


def test_the_async_client(server: Running) -> None:
    async def talk() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            found = await client.responses.create(input=QUESTION, **GREEDY)
            text = ""
            async for event in await client.responses.create(input=QUESTION, stream=True, **GREEDY):
                text += event.delta if event.type == "response.output_text.delta" else ""
        return found.output_text, text

    assert asyncio.run(talk()) == (engines(("user", QUESTION)),) * 2


def test_formats(client: OpenAI) -> None:
    found = client.responses.create(
        input=QUESTION, text={"format": {"type": "json_object"}}, **(GREEDY | {"max_output_tokens": 200})
    )
    assert isinstance(json.loads(found.output_text), dict)
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
    form: Any = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    found = client.responses.create(
        input=QUESTION, text={"format": form}, **(GREEDY | {"max_output_tokens": 60})
    )
    jsonschema.validate(json.loads(found.output_text), schema)
    assert (
        found.text is not None and found.text.format is not None and found.text.format.type == "json_schema"
    )


def test_an_answer_that_is_cut_off_is_incomplete(client: OpenAI) -> None:
    found = client.responses.create(input=QUESTION, **(GREEDY | {"max_output_tokens": 2}))
    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"
    events = list(client.responses.create(input=QUESTION, stream=True, **(GREEDY | {"max_output_tokens": 2})))
    assert events[-1].type == "response.incomplete"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_functions_are_called_and_answered(client: OpenAI, choice: Any) -> None:
    asked = GREEDY | {"max_output_tokens": 120, "tools": [WEATHER], "tool_choice": choice}
    question: Any = {"role": "user", "content": "How is the weather?"}
    found = client.responses.create(input=[question], **asked)
    calls = [item for item in found.output if item.type == "function_call"]
    assert calls
    for item in calls:
        assert item.name == "weather" and item.call_id
        jsonschema.validate(json.loads(item.arguments), WEATHER["parameters"])
    results: list[Any] = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"} for item in calls
    ]
    whole: Any = [question, *(item.model_dump() for item in found.output), *results]
    after = client.responses.create(input=whole, tools=[WEATHER], **GREEDY)  # type: ignore[list-item]
    stored = client.responses.create(
        input=results,
        previous_response_id=found.id,
        tools=[WEATHER],  # type: ignore[list-item]
        **GREEDY,
    )
    assert stored.output_text == after.output_text
    events = list(client.responses.create(input=[question], stream=True, **asked))
    for event in events:
        EVENT.validate_python(event.model_dump())
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == "".join(item.arguments for item in calls)


def test_functions_and_a_format_go_together(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "temperature": 1.8,
        "max_output_tokens": 200,
        "tools": [WEATHER],
    }
    for _ in range(4):
        found = client.responses.parse(input=QUESTION, text_format=Music, **asked)
        calls = [item for item in found.output if item.type == "function_call"]
        if not calls and found.status == "completed":
            assert isinstance(found.output_parsed, Music)
        assert bool(calls) != bool(found.output_text)
    only = client.responses.create(input=QUESTION, tool_choice="required", **asked)
    assert {item.type for item in only.output} == {"function_call"}


def test_logprobs(client: OpenAI) -> None:
    found = client.responses.create(
        input=QUESTION, include=["message.output_text.logprobs"], top_logprobs=3, **GREEDY
    )
    part = found.output[0].content[0]  # type: ignore[union-attr]
    assert part.type == "output_text" and part.logprobs
    assert all(len(each.top_logprobs) == 3 for each in part.logprobs)
    assert b"".join(bytes(each.bytes) for each in part.logprobs).decode() == part.text
    events = list(
        client.responses.create(
            input=QUESTION, include=["message.output_text.logprobs"], top_logprobs=3, stream=True, **GREEDY
        )
    )
    streamed = [
        each for event in events if event.type == "response.output_text.delta" for each in event.logprobs
    ]
    assert [each.logprob for each in streamed] == pytest.approx([each.logprob for each in part.logprobs])


def test_what_is_stored_is_gone_on_from_listed_and_deleted(client: OpenAI) -> None:
    first = client.responses.create(input=QUESTION, instructions="Be brief.", **GREEDY)
    second = client.responses.create(input="another one", previous_response_id=first.id, **GREEDY)
    assert second.previous_response_id == first.id
    assert second.output_text == engines(
        ("user", QUESTION), ("assistant", first.output_text), ("user", "another one")
    )
    assert client.responses.retrieve(second.id).output_text == second.output_text
    items = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.type for item in items] == ["message"] * 3
    paged = list(client.responses.input_items.list(second.id, limit=1))
    assert [item.id for item in paged] == [item.id for item in reversed(items)]
    client.responses.delete(first.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(BadRequestError, match="not found"):
        client.responses.create(input="x", previous_response_id=first.id, **GREEDY)
    kept = client.responses.create(input="again", previous_response_id=second.id, **GREEDY)
    assert kept.status in ("completed", "incomplete")


def test_what_is_not_to_be_stored_is_not(client: OpenAI) -> None:
    found = client.responses.create(input=QUESTION, store=False, **GREEDY)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(found.id)


def test_tenants_cannot_read_each_others_responses() -> None:
    with running(ServerConfig(api_keys=("one", "two"))) as server:
        clients = [OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) for key in ("one", "two")]
        found = clients[0].responses.create(input=QUESTION, **GREEDY)
        assert clients[0].responses.retrieve(found.id).id == found.id
        for attempt in (
            lambda: clients[1].responses.retrieve(found.id),
            lambda: clients[1].responses.delete(found.id),
            lambda: clients[1].responses.input_items.list(found.id),
            lambda: clients[1].responses.create(input="x", previous_response_id=found.id, **GREEDY),
        ):
            with pytest.raises(APIStatusError):
                attempt()
        for each in clients:
            each.close()


def test_a_running_response_can_be_cancelled(client: OpenAI) -> None:
    endless = {"model": "tiny", "temperature": 1, "max_output_tokens": 900}
    schema = {"type": "object", "properties": {"s": {"type": "string", "minLength": 800}}, "required": ["s"]}
    form: Any = {"type": "json_schema", "name": "long", "schema": schema}
    kinds, cancelled, started = [], None, ""
    for event in client.responses.create(input=QUESTION, stream=True, text={"format": form}, **endless):  # type: ignore[call-overload]
        kinds.append(event.type)
        if event.type == "response.output_text.delta" and cancelled is None:
            cancelled = client.responses.cancel(started)
        if event.type == "response.created":
            started = event.response.id
    assert cancelled is not None and cancelled.status == "cancelled"
    assert kinds[-1] == "response.incomplete" and event.response.status == "cancelled"
    with pytest.raises(BadRequestError):
        client.responses.cancel(started)


def test_long_conversations_are_cut_at_their_beginning_if_asked(client: OpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"turn {at} " + "word " * 60} for at in range(40)]
    with pytest.raises(BadRequestError, match="1024"):
        client.responses.create(input=turns, **GREEDY)
    found = client.responses.create(input=turns, truncation="auto", instructions="Be brief.", **GREEDY)
    assert found.usage is not None and 500 < found.usage.input_tokens <= 1024
    assert found.truncation == "auto"
    assert (
        found.output_text
        == client.responses.create(
            input=turns[-count_of_kept(turns, found.usage.input_tokens) :], instructions="Be brief.", **GREEDY
        ).output_text
    )
    huge: Any = [{"role": "user", "content": "word " * 100_000}, *turns[:3]]
    assert client.responses.create(input=huge, truncation="auto", **GREEDY).usage is not None


def count_of_kept(turns: list[dict[str, Any]], tokens: int) -> int:
    """How many of the last turns make a conversation of so many tokens."""
    template = shared_engine().tokenizer.apply_chat_template
    system = {"role": "system", "content": "Be brief."}
    (count,) = [at for at in range(1, len(turns)) if len(template([system, *turns[-at:]])) == tokens]
    assert len(template([system, *turns[-count - 1 :]])) > 1024 - 1  # one more would not have fitted
    return count


def test_the_input_is_counted(client: OpenAI) -> None:
    found = client.responses.input_tokens.count(model="tiny", input=QUESTION, instructions="Be brief.")
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    assert found.input_tokens == len(shared_engine().tokenizer.apply_chat_template(conversation))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, None),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "none"}}, None),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, None),
        ({"metadata": {str(at): "x" for at in range(17)}}, "metadata"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"truncation": "middle"}, "truncation"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "wrong"}}}}, None),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
def test_what_does_not_exist_is_refused(client: OpenAI, fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.post("/responses", body=GREEDY | {"input": QUESTION} | fields, cast_to=object)
    if param is not None:
        assert caught.value.param == param
    assert client.responses.create(input=QUESTION, **GREEDY).output_text == engines(("user", QUESTION))
