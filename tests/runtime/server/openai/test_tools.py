"""Calls of functions by the `openai` client, with templates that write them and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from sgl_like.runtime.models.load import EMBEDDED_MODEL as FOLDER
from sgl_like.runtime.server.chat.forms import PLAIN, call_form
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer
from tests.support.chat_templates import CHATML, LLAMA_31
from tests.support.scripted_engine import ScriptedEngine
from tests.support.servers import Running, running, shared_engine

HERMES = """{%- if tools %}<|im_start|>system
{%- for tool in tools %}
{{ tool|tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for c in m.tool_calls or [] %}
{%- if m.content or not loop.first %}

{% endif %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments|tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class Weather(BaseModel):
    """How it is outside."""

    city: str
    days: int


def function(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": f"the {name}", "parameters": schema},
    }


TOOLS = [
    function("weather", {"city": {"enum": ["Oslo", "Rome"]}}),
    function("clock", {"zone": {"type": "integer", "minimum": 0, "maximum": 9}}),
]
ASK = [{"role": "user", "content": "how is it in Oslo?"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
LLAMA = LLAMA_31.source.replace("tojson(indent=4)", "tojson").replace(
    '{%- elif message.role == "tool"',
    """{%- elif 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson + '}<|eot_id|>' }}
    {%- elif message.role == "tool\"""",
)
TEMPLATES = {"own": None, "hermes": HERMES, "llama": LLAMA}


@pytest.fixture(scope="module", params=sorted(TEMPLATES))
def client(request: Any) -> Iterator[openai.OpenAI]:
    template = TEMPLATES[request.param]
    with running(ServerConfig(engine={} if template is None else {"chat_template": template})) as server:
        yield connect(server)


def connect(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(client: openai.OpenAI, messages: Any = ASK, **options: Any) -> Any:
    given = {"tools": TOOLS, "max_tokens": 100, "seed": 1} | options
    return client.chat.completions.create(model="tiny", messages=messages, **given)


def check(call: Any) -> None:
    assert call.type == "function"
    assert call.id.startswith("call_")
    arguments = json.loads(call.function.arguments)
    if call.function.name == "weather":
        assert arguments["city"] in ("Oslo", "Rome")
    else:
        assert call.function.name == "clock"
        assert arguments["zone"] in range(10)


def test_a_call_can_be_demanded(client: openai.OpenAI) -> None:
    for seed in range(4):
        choice = ask(client, tool_choice="required", parallel_tool_calls=False, seed=seed).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        (call,) = choice.message.tool_calls
        check(call)


def test_a_function_can_be_named(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    choice = ask(client, tool_choice=named).choices[0]
    assert choice.finish_reason == "stop"
    (call,) = choice.message.tool_calls
    assert call.function.name == "clock"
    check(call)


def test_some_functions_can_be_allowed(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "clock"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    for call in ask(client, tool_choice=allowed, parallel_tool_calls=False).choices[0].message.tool_calls:
        assert call.function.name == "clock"


def test_demanded_calls_come_without_text(client: openai.OpenAI) -> None:
    for choice in ask(client, tool_choice="required", n=4, temperature=1.5, max_tokens=300).choices:
        assert choice.message.content is None
        for call in choice.message.tool_calls:
            check(call)


ANSWER = {"type": "object", "properties": {"sky": {"enum": ["grey", "blue"]}}, "required": ["sky"]}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER, "strict": True}}


def test_an_answer_calls_or_has_the_response_format(client: openai.OpenAI) -> None:
    options = {"response_format": FORMAT, "n": 16, "temperature": 2.0, "max_tokens": 200}
    try:
        choices = ask(client, **options).choices
    except openai.BadRequestError as refused:  # calls that are JSON themselves cannot be told from the format
        assert "cannot be given together" in refused.message
        assert ask(client, **options, tool_choice="required").choices[0].message.tool_calls
        return
    kinds = set()
    for choice in choices:
        calls, text = choice.message.tool_calls, choice.message.content
        kinds.add(bool(calls))
        assert bool(calls) != bool(text)
        for call in calls or ():
            check(call)
        if text:
            assert json.loads(text)["sky"] in ("grey", "blue")
    assert kinds == {True, False}
    only = ask(client, **options, tool_choice="none").choices[0].message
    assert json.loads(only.content)["sky"] in ("grey", "blue")


def test_several_calls_are_told_apart(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice="required", n=4, temperature=1.5).choices
    for each in choice:
        if each.finish_reason == "tool_calls":
            for call in each.message.tool_calls:
                check(call)
        else:
            assert each.finish_reason == "length"


def test_streams_begin_with_a_name_and_go_on_with_arguments(client: openai.OpenAI) -> None:
    whole = ask(client, tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls[0]
    deltas, reasons = [], []
    for chunk in ask(client, tool_choice="required", parallel_tool_calls=False, stream=True):
        deltas += chunk.choices[0].delta.tool_calls or []
        reasons.append(chunk.choices[0].finish_reason)
    assert deltas[0].function.name == whole.function.name
    assert deltas[0].id.startswith("call_")
    assert deltas[0].function.arguments == ""
    assert all(each.index == 0 and each.id is None and each.function.name is None for each in deltas[1:])
    assert "".join(each.function.arguments for each in deltas) == whole.function.arguments
    assert reasons[-1] == "tool_calls"
    assert len(deltas) > 2


def test_the_clients_stream_helper_reads_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="tiny",
        messages=ASK,  # type: ignore[arg-type]
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=100,
        seed=3,
    ) as stream:
        kinds = {event.type for event in stream}
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    assert isinstance(calls[0].function.parsed_arguments, Weather)
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds


def test_calls_and_results_are_part_of_conversations(client: openai.OpenAI) -> None:
    call = ask(client, tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "<|end|>rain"}
    answer = ask(
        client, [*ASK, call.to_dict(), result], tool_choice="none", extra_body={"return_token_ids": True}
    )
    assert answer.choices[0].message.tool_calls is None
    shown = shared_engine().tokenizer.decode(answer.prompt_token_ids, skip_special_tokens=False)
    after = shown[shown.index("how is it") :]
    (value,) = json.loads(call.tool_calls[0].function.arguments).values()
    assert call.tool_calls[0].function.name in after
    assert str(value) in after
    assert "<|end|>rain" in shown


def test_calls_are_free_to_come_or_not(client: openai.OpenAI) -> None:
    choice = ask(client, temperature=0, max_tokens=20).choices[0]
    if choice.message.tool_calls is None:
        assert choice.message.content


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice", "no tool 'no'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function", "missing"),
        ({"tools": [function("a b", {})]}, "tools[0].function.name", "letters"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name", "twice"),
        ({"tools": [function(f"f{i}", {}) for i in range(129)]}, "tools", "at most 128"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, None, "custom"),
        ({"tools": [{"function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools", "object"),
        ({"extra_body": {"regex": "a+"}}, "tool_choice", "cannot be given together"),
        ({"tools": [function("f", {"x": {"type": "nonsense"}})]}, None, "type"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(options: dict[str, Any], param: str | None, message: str) -> None:
    with running() as server, pytest.raises(openai.BadRequestError) as caught:
        ask(connect(server), **options)
    assert param is None or caught.value.param == param
    assert message in caught.value.message


def test_arguments_in_conversations_are_json() -> None:
    called = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{"}}
    with running() as server, pytest.raises(openai.BadRequestError) as caught:
        ask(connect(server), [*ASK, {"role": "assistant", "content": None, "tool_calls": [called]}])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_text_before_and_between_calls_is_content() -> None:
    pieces = ["I'll", " look.\n<tool", CALL[5:40], CALL[40:], "\n", CALL, "\nDone", "."]
    with running(ServerConfig(engine={"chat_template": HERMES}), ScriptedEngine(pieces)) as server:
        choice = ask(connect(server)).choices[0]
        assert choice.message.content == "I'll look.Done."
        assert [call.function.arguments for call in choice.message.tool_calls] == ['{"city": "Oslo"}'] * 2
        assert len({call.id for call in choice.message.tool_calls}) == 2
        assert choice.finish_reason == "tool_calls"
        indexes = [
            call.index
            for chunk in ask(connect(server), stream=True)
            for call in chunk.choices[0].delta.tool_calls or ()
        ]
        assert indexes == sorted(indexes)
        assert set(indexes) == {0, 1}


def test_what_looks_like_a_call_is_text_without_tools() -> None:
    with running(ServerConfig(engine={"chat_template": HERMES}), ScriptedEngine([CALL])) as server:
        for options in ({"tools": []}, {"tool_choice": "none"}):
            message = ask(connect(server), **options).choices[0].message
            assert (message.content, message.tool_calls) == (CALL, None)


def test_what_the_engine_is_asked_for() -> None:
    engine = ScriptedEngine(["x"])
    with running(ServerConfig(engine={"chat_template": HERMES}), engine) as server:
        client = connect(server)
        ask(client)
        ask(client, tool_choice="required", parallel_tool_calls=False)
        ask(client, tool_choice="none")
    tags = [json.loads(request.params.structural_tag or "null") for request in engine.requests]
    assert [tag and (tag["free_text"], tag["stop_after_first"]) for tag in tags] == [
        (True, False),
        (False, True),
        None,
    ]
    assert [each["begin"] for each in tags[0]["structures"]] == [
        f'<tool_call>\n{{"name": "{name}", "arguments": ' for name in ("weather", "clock")
    ]
    assert {each["end"] for each in tags[0]["structures"]} == {"}\n</tool_call>"}
    shown = shared_engine().tokenizer.decode(engine.requests[2].input_ids)
    assert '"name": "weather"' in shown


def test_forms_of_templates() -> None:
    forms = [call_form(Tokenizer(FOLDER, chat_template=each)) for each in (LLAMA, HERMES, CHATML.source)]
    assert (forms[0].begin, forms[0].between, forms[0].end) == ('{"name": "', '", "parameters": ', "}")
    assert (forms[1].trigger, forms[1].end) == ("<tool_call>", "}\n</tool_call>")
    assert forms[2] == PLAIN


def test_calls_that_begin_with_a_special_token_are_written_plainly() -> None:
    special = HERMES.replace("<tool_call>\n", "<|system|>\n")
    assert call_form(Tokenizer(FOLDER, chat_template=special)) == PLAIN
