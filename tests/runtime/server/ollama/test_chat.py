from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

import sgl_like as sgl
from tests.support.dialects import json_lines
from tests.support.http_clients import call
from tests.support.servers import Running, running, shared_engine

USER = {"role": "user", "content": "play some jazz music please"}
GREEDY = {"temperature": 0, "num_predict": 24}
SCHEMA = {"type": "object", "properties": {"genre": {"enum": ["jazz", "rock"]}}, "required": ["genre"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [USER], "options": GREEDY} | fields


def prompt(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": USER["content"], "options": GREEDY} | fields


def ask(server: Running, path: str, body: dict[str, Any]) -> Any:
    answer = call(server, path, body | {"stream": False})
    assert answer.status == 200, answer.body
    return answer.json


def engines(ids: list[int], **params: Any) -> str:
    params = {"temperature": 0, "max_new_tokens": 24} | params
    text: str = shared_engine().generate(input_ids=ids, sampling_params=params)["text"]
    return text


def conversation(*messages: dict[str, Any]) -> list[int]:
    return shared_engine().tokenizer.apply_chat_template(messages or [USER])


def test_chats_are_the_engines_whole_and_as_lines(server: Running) -> None:
    whole = ask(server, "/api/chat", chat())
    assert whole["message"] == {"role": "assistant", "content": engines(conversation())}
    assert whole["model"] == "tiny" and whole["done"] is True
    lines = json_lines(call(server, "/api/chat", chat()))  # streams unless told not to
    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    for last in (whole, lines[-1]):
        assert last["prompt_eval_count"] == len(conversation())
        assert last["eval_count"] > 0 and last["done_reason"] in ("stop", "length")
        names = ("load_duration", "prompt_eval_duration", "eval_duration")
        assert 0 < sum(last[name] for name in names) <= last["total_duration"] + 3
    assert "done_reason" not in lines[0]


def test_prompts_are_put_into_a_chat_unless_they_are_raw(server: Running) -> None:
    assert ask(server, "/api/generate", prompt())["response"] == engines(conversation())
    with_system = ask(server, "/api/generate", prompt(system="Be brief."))
    system = {"role": "system", "content": "Be brief."}
    assert with_system["response"] == engines(conversation(system, USER))
    raw = ask(server, "/api/generate", prompt(raw=True))
    assert raw["response"] == engines(shared_engine().tokenizer.encode(USER["content"]))
    assert "context" not in raw
    lines = json_lines(call(server, "/api/generate", prompt(raw=True)))
    assert "".join(line["response"] for line in lines) == raw["response"]


def test_a_context_is_gone_on_from(server: Running) -> None:
    first = ask(server, "/api/generate", prompt())
    ids = first["context"]
    assert ids[: len(conversation())] == conversation()
    assert len(ids) == first["prompt_eval_count"] + first["eval_count"]
    second = ask(server, "/api/generate", prompt(prompt="another one", context=ids))
    more = conversation({"role": "user", "content": "another one"})
    assert second["response"] == engines(ids + more)
    assert call(server, "/api/generate", prompt(context=[10**9])).status == 400


def test_an_empty_prompt_loads_the_model(server: Running) -> None:
    assert ask(server, "/api/generate", {"model": "tiny"}) | {"created_at": ""} == {
        "model": "tiny", "created_at": "", "response": "", "done": True, "done_reason": "load",
    }  # fmt: skip
    assert ask(server, "/api/chat", {"model": "tiny", "messages": []})["done_reason"] == "load"
    unloaded = ask(server, "/api/chat", {"model": "tiny", "messages": [], "keep_alive": 0})
    assert unloaded["done_reason"] == "unload"


def test_formats(server: Running) -> None:
    options = {"options": GREEDY | {"num_predict": 200}}
    found = ask(server, "/api/chat", chat(format=SCHEMA, **options))
    jsonschema.validate(json.loads(found["message"]["content"]), SCHEMA)
    found = ask(server, "/api/generate", prompt(format=SCHEMA, **options))
    jsonschema.validate(json.loads(found["response"]), SCHEMA)
    found = ask(server, "/api/generate", prompt(format="json", **options))
    assert isinstance(json.loads(found["response"]), dict)
    assert ask(server, "/api/chat", chat(format=""))["message"]["content"] == engines(conversation())


def test_options(server: Running) -> None:
    text = engines(conversation())
    stopped = ask(server, "/api/chat", chat(options=GREEDY | {"stop": [text[4:7]]}))
    assert stopped["message"]["content"] == text[: text.index(text[4:7])]
    assert stopped["done_reason"] == "stop"
    cut = ask(server, "/api/chat", chat(options=GREEDY | {"num_predict": 2}))
    assert cut["done_reason"] == "length" and cut["eval_count"] == 2
    hot = {"temperature": 1.5, "seed": 7, "num_predict": 24, "top_k": 0, "top_p": 1.0}
    one, same = (ask(server, "/api/chat", chat(options=hot)) for _ in range(2))
    assert one["message"] == same["message"]
    expected = engines(conversation(), temperature=1.5, seed=7)
    assert one["message"]["content"] == expected
    loading = {"num_ctx": 4096, "num_gpu": 1, "num_thread": 4, "use_mmap": True, "num_keep": 5}
    assert ask(server, "/api/chat", chat(options=GREEDY | loading, keep_alive="5m"))["done"]
    endless = ask(server, "/api/chat", chat(options={"temperature": 0, "num_predict": -1}))
    assert endless["done"]


def test_tools(server: Running) -> None:
    found = ask(server, "/api/chat", chat(tools=[TOOL], think=False))
    assert found["message"]["role"] == "assistant"
    calls = [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
    told = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_name": "weather"},
    ]
    assert ask(server, "/api/chat", chat(messages=told, tools=[TOOL]))["done"]


def test_logprobs(server: Running) -> None:
    found = ask(server, "/api/chat", chat(logprobs=True, top_logprobs=2))
    assert len(found["logprobs"]) >= found["eval_count"] - 1
    assert all(len(each["top_logprobs"]) == 2 and each["logprob"] <= 0 for each in found["logprobs"])
    lines = json_lines(call(server, "/api/chat", chat(logprobs=True)))
    tokens = [each["token"] for line in lines for each in line.get("logprobs", ())]
    assert "".join(tokens).startswith(found["message"]["content"])


@pytest.mark.parametrize(
    ("path", "fields", "status", "word"),
    [
        ("/api/chat", {"model": "llama3"}, 404, "llama3"),
        ("/api/chat", {"messages": [{"role": "robot", "content": "x"}]}, 400, "robot"),
        ("/api/chat", {"messages": [USER | {"images": ["aGk="]}]}, 400, "images"),
        ("/api/chat", {"think": True}, 400, "thinking"),
        ("/api/chat", {"think": "high"}, 400, "thinking"),
        ("/api/chat", {"options": {"temperature": -1}}, 400, "temperature"),
        ("/api/chat", {"options": {"repeat_penalty": 1e-320}}, 400, "repeat_penalty"),
        ("/api/chat", {"options": {"mirostat": 2}}, 400, "mirostat"),
        ("/api/chat", {"options": {"stop": ["x"] * 17}}, 400, "stop"),
        ("/api/chat", {"format": "yaml"}, 400, "format"),
        ("/api/chat", {"format": {"type": "wrong"}}, 400, "'type'"),
        ("/api/chat", {"top_logprobs": 50}, 400, "top_logprobs"),
        ("/api/chat", {"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "1024"),
        ("/api/generate", {"model": "llama3"}, 404, "llama3"),
        ("/api/generate", {"suffix": "x"}, 400, "suffix"),
        ("/api/generate", {"template": "{{ .Prompt }}"}, 400, "template"),
        ("/api/generate", {"images": ["aGk="]}, 400, "images"),
        ("/api/generate", {"context": [-1]}, 400, "context"),
        ("/api/generate", {"context": ["x"]}, 400, "context"),
    ],
)
def test_errors_are_ollamas(
    server: Running, path: str, fields: dict[str, Any], status: int, word: str
) -> None:
    body = chat() if path == "/api/chat" else prompt()
    answer = call(server, path, body | fields)
    assert answer.status == status and set(answer.json) == {"error"}
    assert word in answer.json["error"]
    assert ask(server, "/api/chat", chat())["done"]


@pytest.mark.parametrize("roles", [True, False])
def test_our_own_programs_run_on_it(server: Running, roles: bool) -> None:
    backend = sgl.OpenAICompatible(server.url, "tiny", dialect="ollama")

    @sgl.function
    def talk(s: Any) -> None:
        s += sgl.user(USER["content"])
        s += sgl.assistant(sgl.gen("answer", max_tokens=24, temperature=0))

    @sgl.function
    def write(s: Any) -> None:
        s += USER["content"] + sgl.gen("answer", max_tokens=24, temperature=0)

    ids = conversation() if roles else shared_engine().tokenizer.encode(USER["content"])
    try:
        program = talk if roles else write
        assert program.run(backend=backend)["answer"] == engines(ids)
        streaming = program.run(backend=backend, stream=True)
        assert "".join(streaming.text_iter("answer")) == engines(ids)
    finally:
        backend.shutdown()
