"""The exact requests that each engine gets, and what is read from answers in its own form.

The forms are those of the engines' sources and documents, which the modules under ``remote/engines`` name.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.remote_replies import (
    chat_reply,
    generate_reply,
    llama_reply,
    message_reply,
    ollama_reply,
    text_reply,
    tgi_reply,
)  # fmt: skip
from tests.support.remote_server import Asked, FakeServer, Reply, bytewise, sse

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def chat(**params: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("Be brief.") + sgl.user("Hi") + sgl.assistant(sgl.gen("x", **params))

    return program


def begun(**params: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("Hi") + sgl.assistant("It is" + sgl.gen("x", **params))

    return program


def begun_with(text: str) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("Hi") + sgl.assistant(text + sgl.gen("x"))

    return program


def late_system() -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("Hi") + sgl.system("Be brief.") + sgl.assistant(sgl.gen("x"))

    return program


def plain(**params: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += "Once" + sgl.gen("x", **params)

    return program


def ask(dialect: str, program: Any, reply: Reply, **params: Any) -> tuple[Any, Asked]:
    """Run `program` on a server of `dialect`; its state, and the one request made."""
    with FakeServer([reply]) as server, sgl.OpenAICompatible(server.url, "m", dialect=dialect) as backend:
        state = program.run(backend=backend, **params)
        assert state.error() is None, state.error()
        assert backend.token_usage.completion_tokens == 3
        assert backend.token_usage.prompt_tokens == 7
        return state, server.asked[0]


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
BEGUN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]
VLLM = {
    "max_tokens": 128,
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "top_k": -1,
    "repetition_penalty": 1.0,
}
CHAT: dict[str, dict[str, Any]] = {
    "openai": {"max_completion_tokens": 128, "temperature": 1.0},
    "compatible": {"max_tokens": 128, "temperature": 1.0},
    "vllm": VLLM,
    "vllm-guided": VLLM,
    "sglang": VLLM,
    "llama.cpp": {
        "max_tokens": 128, "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "repeat_penalty": 1.0,
    },
    "llama-cpp-python": {
        "max_tokens": 128, "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "repeat_penalty": 1.0,
    },
    "tgi": {"max_tokens": 128, "temperature": 1.0},
    "tensorrt-llm": {**VLLM, "top_k": 0},
    "triton": {"max_tokens": 128, "temperature": 1.0},
    "mlc-llm": {"max_tokens": 128, "temperature": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("dialect", CHAT)
def test_chat_without_parameters(dialect: str) -> None:
    state, asked = ask(dialect, chat(), chat_reply(" Yes."))
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.body == {"model": "m", "messages": MESSAGES, "stream": False, **CHAT[dialect]}
    assert state["x"] == " Yes." and state.messages()[-1] == {"role": "assistant", "content": " Yes."}
    meta = state.get_meta_info("x")
    assert (meta["prompt_tokens"], meta["completion_tokens"]) == (7, 3)
    assert meta["finish_reason"] == {"type": "stop"}


def test_chat_of_ollama() -> None:
    state, asked = ask("ollama", chat(), ollama_reply("Yes.", "message"), temperature=0, stop="\n", seed=3)
    options = {
        "num_predict": 128, "temperature": 0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "repeat_penalty": 1.0,
        "stop": ["\n"], "seed": asked.body["options"]["seed"],
    }  # fmt: skip
    assert asked.path == "/api/chat"
    assert asked.body == {"model": "m", "messages": MESSAGES, "stream": False, "options": options}
    assert state["x"] == "Yes."


def response_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}


# b#34: what SGLang's frontend drops or only warns about. (dialect, parameter, value, fields of the request)
CONSTRAINTS: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("openai", "json_schema", SCHEMA, {"response_format": response_format(SCHEMA)}),
    ("compatible", "json_schema", SCHEMA, {"response_format": response_format(SCHEMA)}),
    ("vllm", "json_schema", SCHEMA, {"structured_outputs": {"json": SCHEMA}}),
    ("vllm", "regex", "a+", {"structured_outputs": {"regex": "a+"}}),
    ("vllm", "ebnf", 'root ::= "a"', {"structured_outputs": {"grammar": 'root ::= "a"'}}),
    ("vllm-guided", "json_schema", SCHEMA, {"guided_json": SCHEMA}),
    ("vllm-guided", "regex", "a+", {"guided_regex": "a+"}),
    ("vllm-guided", "ebnf", 'root ::= "a"', {"guided_grammar": 'root ::= "a"'}),
    ("sglang", "json_schema", SCHEMA, {"response_format": response_format(SCHEMA)}),
    ("sglang", "regex", "a+", {"regex": "a+"}),
    ("sglang", "ebnf", 'root ::= "a"', {"ebnf": 'root ::= "a"'}),
    ("llama.cpp", "json_schema", SCHEMA, {"response_format": response_format(SCHEMA)}),
    ("llama.cpp", "ebnf", 'root ::= "a"', {"grammar": 'root ::= "a"'}),
    ("llama-cpp-python", "json_schema", SCHEMA, {"response_format": {"type": "json_object", "schema": SCHEMA}}),
    ("llama-cpp-python", "ebnf", 'root ::= "a"', {"grammar": 'root ::= "a"'}),
    ("tgi", "json_schema", SCHEMA, {"response_format": {"type": "json", "value": SCHEMA}}),
    ("tgi", "regex", "a+", {"response_format": {"type": "regex", "value": "a+"}}),
    ("tensorrt-llm", "json_schema", SCHEMA, {"response_format": {"type": "json", "schema": SCHEMA}}),
    ("tensorrt-llm", "regex", "a+", {"response_format": {"type": "regex", "regex": "a+"}}),
    ("tensorrt-llm", "ebnf", 'root ::= "a"', {"response_format": {"type": "ebnf", "ebnf": 'root ::= "a"'}}),
    ("mlc-llm", "json_schema", SCHEMA, {"response_format": {"type": "json_object", "schema": json.dumps(SCHEMA)}}),
    (
        "triton", "json_schema", SCHEMA,
        {
            "tools": [{"type": "function", "function": {"name": "output", "parameters": SCHEMA}}],
            "tool_choice": {"type": "function", "function": {"name": "output"}},
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "name", "value", "fields"), CONSTRAINTS)
def test_constraints_of_a_chat(dialect: str, name: str, value: Any, fields: dict[str, Any]) -> None:
    _, asked = ask(dialect, chat(**{name: value}), chat_reply('{"a":1}'))
    assert fields.items() <= asked.body.items()


def test_triton_answers_with_the_arguments_of_a_tool() -> None:
    call = {"type": "function", "function": {"name": "output", "arguments": '{"a":1}'}}
    reply = chat_reply("", "tool_calls", message={"role": "assistant", "content": "", "tool_calls": [call]})
    assert ask("triton", chat(json_schema=SCHEMA), reply)[0]["x"] == '{"a":1}'


def test_format_of_ollama() -> None:
    _, asked = ask("ollama", chat(json_schema=SCHEMA), ollama_reply('{"a":1}', "message"))
    assert asked.body["format"] == SCHEMA


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}),
        ("sglang", {"continue_final_message": True}),
        ("llama.cpp", {}),
    ],
)
def test_a_message_that_is_begun(dialect: str, fields: dict[str, Any]) -> None:
    state, asked = ask(dialect, begun(), chat_reply(" so."))
    assert asked.body["messages"] == BEGUN and fields.items() <= asked.body.items()
    assert state.messages()[-1]["content"] == "It is so."


PLAIN: list[tuple[str, str, Reply, dict[str, Any]]] = [
    ("openai", "/v1/completions", text_reply(" upon"), {"model": "m", "max_tokens": 128, "temperature": 1.0}),
    (
        "compatible",
        "/v1/completions",
        text_reply(" upon"),
        {"model": "m", "max_tokens": 128, "temperature": 1.0},
    ),
    ("vllm", "/v1/completions", text_reply(" upon"), {"model": "m", **VLLM}),
    ("tensorrt-llm", "/v1/completions", text_reply(" upon"), {"model": "m", **VLLM, "top_k": 0}),
    (
        "mlc-llm",
        "/v1/completions",
        text_reply(" upon"),
        {"model": "m", "max_tokens": 128, "temperature": 1.0},
    ),
    ("triton", "/v1/completions", text_reply(" upon"), {"model": "m", "max_tokens": 128, "temperature": 1.0}),
    ("llama-cpp-python", "/v1/completions", text_reply(" upon"), {"model": "m", **CHAT["llama-cpp-python"]}),
]


@pytest.mark.parametrize(("dialect", "path", "reply", "fields"), PLAIN)
def test_plain_text(dialect: str, path: str, reply: Reply, fields: dict[str, Any]) -> None:
    state, asked = ask(dialect, plain(), reply)
    assert asked.path == path and asked.body == {"prompt": "Once", "stream": False, **fields}
    assert state.text() == "Once upon"


def test_generate_of_sglang() -> None:
    program = plain(regex="a+", stop=["."], logit_bias={5: 1.5})
    state, asked = ask("sglang", program, generate_reply(" upon"), temperature=0.5)
    params = {
        "max_new_tokens": 128, "temperature": 0.5, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
        "repetition_penalty": 1.0, "stop": ["."], "regex": "a+", "logit_bias": {"5": 1.5},
    }  # fmt: skip
    assert asked.path == "/generate"
    assert asked.body == {"text": "Once", "stream": False, "sampling_params": params}
    assert state.text() == "Once upon" and state.get_meta_info("x")["cached_tokens"] == 4


def test_completion_of_llama_cpp() -> None:
    program = plain(json_schema=SCHEMA, logit_bias={5: 1.5}, stop=".")
    state, asked = ask("llama.cpp", program, llama_reply(" upon"))
    fields = {key: value for key, value in CHAT["llama.cpp"].items() if key != "max_tokens"}
    assert asked.path == "/completion"
    assert asked.body == {
        "prompt": "Once", "stream": False, "cache_prompt": True, "n_predict": 128, "json_schema": SCHEMA,
        "logit_bias": [[5, 1.5]], "stop": ["."], **fields,
    }  # fmt: skip
    meta = state.get_meta_info("x")
    assert meta["finish_reason"] == {"type": "stop", "matched": "."} and meta["cached_tokens"] == 4


def test_generate_of_ollama() -> None:
    state, asked = ask("ollama", plain(json_schema=SCHEMA), ollama_reply(" upon", "response"))
    assert asked.path == "/api/generate" and asked.body["raw"] is True and asked.body["format"] == SCHEMA
    assert state.text() == "Once upon"


@pytest.mark.parametrize(
    ("temperature", "fields"),
    [(0.5, {"do_sample": True, "temperature": 0.5}), (0, {"do_sample": False})],
)
def test_generate_of_tgi(temperature: float, fields: dict[str, Any]) -> None:
    program = plain(regex="a+", max_tokens=9)
    state, asked = ask("tgi", program, tgi_reply(" up", "on"), temperature=temperature)
    assert asked.path == "/generate_stream"
    grammar = {"type": "regex", "value": "a+"}
    parameters = {
        "details": True,
        "return_full_text": False,
        "max_new_tokens": 9,
        "grammar": grammar,
        **fields,
    }
    assert asked.body == {"inputs": "Once", "parameters": parameters}
    assert state.text() == "Once upon"


def test_tgi_leaves_the_stop_string_in_the_text_and_it_is_cut_off() -> None:
    reply = tgi_reply(" up", "on.", "\n\n", finish="stop_sequence")
    state, _ = ask("tgi", plain(stop=["\n\n", "!"]), reply)
    assert state.text() == "Once upon."
    assert state.get_meta_info("x")["finish_reason"] == {"type": "stop", "matched": "\n\n"}


# -- Anthropic -----------------------------------------------------------------------------------------------


def test_anthropic_keeps_the_system_message_for_every_call() -> None:  # b#27
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("Be brief.") + sgl.user("Hi")
        s += sgl.assistant(sgl.gen("a", max_tokens=5, stop=".", top_k=4))
        s += sgl.user("And?") + sgl.assistant("Well," + sgl.gen("b", json_schema=SCHEMA))

    replies = [message_reply("Yes"), message_reply(" no")]
    with FakeServer(replies) as server:
        backend = sgl.Anthropic("claude-sonnet-4-5", "key-1", base_url=server.url)
        state = program.run(backend=backend)
        assert state["b"] == " no" and state.messages()[0] == {"role": "system", "content": "Be brief."}
        first, second = server.bodies()
        backend.shutdown()
    assert server.asked[0].path == "/v1/messages"
    assert server.asked[0].headers["x-api-key"] == "key-1" and "anthropic-version" in server.asked[0].headers
    assert first == {
        "model": "claude-sonnet-4-5", "system": "Be brief.", "messages": MESSAGES[1:], "stream": False,
        "max_tokens": 5, "top_k": 4, "stop_sequences": ["."],
    }  # fmt: skip
    assert second["system"] == "Be brief." and "top_k" not in second  # upstream sent top_k=-1
    assert second["messages"][-1] == {"role": "assistant", "content": "Well,"}
    assert second["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert state.usage.prompt_tokens == 14 and state.usage.cached_tokens == 4


@pytest.mark.parametrize(
    ("model", "program", "message"),
    [
        ("claude-opus-4-6", begun(), "cannot continue a message: 'It is'"),
        ("claude-sonnet-4-5", chat(seed=1), "seed=1 cannot be asked of Anthropic's claude-sonnet-4-5"),
        ("claude-sonnet-4-5", chat(regex="a"), "it knows json_schema"),
        ("claude-sonnet-4-5", plain(), "takes messages only"),
        ("claude-opus-5", chat(temperature=0), "temperature=0 cannot be asked of Anthropic's claude-opus-5"),
        ("claude-sonnet-4-5", begun_with("It is "), "does not continue a message that ends with a blank"),
        ("claude-sonnet-4-5", late_system(), "a system message only before all others"),
    ],
)
def test_anthropic_refuses_before_the_call(model: str, program: Any, message: str) -> None:
    with FakeServer([]) as server:
        state = program.run(backend=sgl.Anthropic(model, "k", base_url=server.url))
        assert message in str(state.error())
        assert server.asked == []


def test_anthropic_stream() -> None:
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in ("né", " 你好", "🌿")
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "."},
         "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]  # fmt: skip
    data = b"".join(f"event: {each['type']}\r\n".encode() + sse(each, done=False) for each in events)
    with FakeServer([Reply(chunks=bytewise(data))]) as server:
        state = chat().run(backend=sgl.Anthropic("claude-3", "k", base_url=server.url), stream=True)
        assert "".join(state.text_iter("x")) == "né 你好🌿"
        assert server.asked[0].body["stream"] is True
    meta = state.get_meta_info("x")
    assert meta["finish_reason"] == {"type": "stop", "matched": "."}
    assert (meta["prompt_tokens"], meta["completion_tokens"]) == (7, 3)
