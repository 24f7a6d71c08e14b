"""select on other engines: scored where that can be had, else the model is held to the choices."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from zlib import crc32

import pytest

import sgl_like as sgl
from tests.support.remote_replies import chat_reply, llama_reply, ollama_reply, text_reply
from tests.support.remote_server import Asked, FakeServer, Reply

CHOICES = ["yes", "no", "not at all"]
OBJECT = {
    "type": "object",
    "properties": {"choice": {"type": "string", "enum": CHOICES}},
    "required": ["choice"],
    "additionalProperties": False,
}
REGEX = "(yes|no|not at all)"
GBNF = 'root ::= "yes" | "no" | "not at all"'


def program(roles: bool, **options: Any) -> Any:
    @sgl.function
    def ask(s: Any) -> None:
        choice = sgl.select("x", CHOICES, **options)
        s += sgl.user("Is it?") + sgl.assistant(choice) if roles else "It is " + choice

    return ask


HELD: list[tuple[str, bool, Reply, dict[str, Any]]] = [
    (
        "openai", True, chat_reply('{"choice":"no"}'),
        {
            "response_format": {
                "type": "json_schema", "json_schema": {"name": "output", "schema": OBJECT, "strict": True},
            },
        },
    ),
    ("sglang", True, chat_reply("no"), {"regex": REGEX}),
    ("llama.cpp", True, chat_reply("no"), {"grammar": GBNF}),
    ("llama.cpp", False, llama_reply("no"), {"grammar": GBNF}),
    ("llama-cpp-python", False, text_reply("no"), {"grammar": GBNF}),
    ("ollama", True, ollama_reply('"no"', "message"), {"format": {"type": "string", "enum": CHOICES}}),
    ("tgi", True, chat_reply("no"), {"response_format": {"type": "regex", "value": REGEX}}),
    ("tensorrt-llm", False, text_reply("no"), {"response_format": {"type": "regex", "regex": REGEX}}),
    (
        "mlc-llm", True, chat_reply('{"choice":"no"}'),
        {"response_format": {"type": "json_object", "schema": json.dumps(OBJECT)}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "roles", "reply", "fields"), HELD)
def test_the_model_is_held_to_the_choices(
    dialect: str, roles: bool, reply: Reply, fields: dict[str, Any]
) -> None:
    with FakeServer([reply]) as server, sgl.OpenAICompatible(server.url, "m", dialect=dialect) as backend:
        state = program(roles).run(backend=backend)
        assert state["x"] == "no", state.error()
        assert fields.items() <= server.asked[0].body.items()
        meta = state.get_meta_info("x")
        assert meta["chosen_by"] == "constraint" and meta["completion_tokens"] == 3
        assert "choice_probs" not in meta  # they are not known


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"choices_method": sgl.greedy_token_selection}])
def test_what_needs_log_probabilities_is_refused(options: dict[str, Any]) -> None:
    with FakeServer([]) as server:
        state = program(True, **options).run(backend=sgl.OpenAI("gpt-4o", "k", base_url=server.url))
        assert "gives no log-probabilities of choices here" in str(state.error()) and not server.asked


@pytest.mark.parametrize(
    ("model", "fields"), [("claude-haiku-4-5", {"temperature": 0.0}), ("claude-opus-5", {})]
)
def test_a_choice_of_anthropic(model: str, fields: dict[str, Any]) -> None:
    content = [{"type": "text", "text": '{"choice":"no"}'}]
    reply = {"type": "message", "content": content, "stop_reason": "end_turn", "usage": {"output_tokens": 3}}
    with FakeServer([Reply(reply)]) as server, sgl.Anthropic(model, "k", base_url=server.url) as backend:
        assert program(True).run(backend=backend)["x"] == "no"
        body = server.asked[0].body
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": OBJECT}}
        assert {key: body[key] for key in body.keys() & {"temperature"}} == fields


def test_an_engine_with_neither_is_refused() -> None:
    with FakeServer([]) as server:
        state = program(False).run(backend=sgl.OpenAI("gpt-4o", "k", base_url=server.url))
        assert "can neither score choices nor be held to them (for plain text)" in str(state.error())


def test_an_answer_that_is_no_choice_is_an_error() -> None:
    with FakeServer([chat_reply("perhaps")]) as server:
        state = program(True).run(backend=sgl.OpenAICompatible(server.url, "m", dialect="sglang"))
        assert "answered 'perhaps'" in str(state.error())


# A model of words with the blank before them: "is " + "yes" is "is", " yes". Log-probability: minus the length.


def words(text: str) -> list[str]:
    return re.findall(r" ?\w+|\W", text)


EXPECTED = {"yes": [-4.0], "no": [-3.0], "not at all": [-4.0, -3.0, -4.0]}


def check(state: Any) -> None:
    assert state.error() is None, state.error()
    meta = state.get_meta_info("x")
    rows = [[token[0] for token in row] for row in meta["input_token_logprobs"]]
    assert rows == [EXPECTED[choice] for choice in CHOICES]
    weights = [math.exp(sum(EXPECTED[choice])) for choice in CHOICES]
    assert list(meta["choice_probs"].values()) == pytest.approx([w / sum(weights) for w in weights])
    assert state["x"] == "no" and "no" in state.text()


def sglang(asked: Asked) -> Reply:
    body = asked.body
    tokens = words(body["text"])
    meta = {"prompt_tokens": len(tokens), "completion_tokens": 0, "finish_reason": {"type": "length"}}
    if body.get("return_logprob"):
        start = body["logprob_start_len"]
        meta["input_token_logprobs"] = [
            [None if at == 0 else -float(len(token)), crc32(token.encode()), None]
            for at, token in enumerate(tokens)
        ][start:]
    assert body["sampling_params"] == {"max_new_tokens": 0, "temperature": 0.0}
    return Reply({"text": "", "meta_info": meta})


def test_scores_of_sglang() -> None:  # b#17, b#18: values of 0 count, and no choice wins by its length
    with FakeServer(sglang) as server:
        check(program(False).run(backend=sgl.OpenAICompatible(server.url, "m", dialect="sglang")))
        assert len(server.asked) == 2 + len(CHOICES)


def vllm(asked: Asked) -> Reply:
    body = asked.body
    assert body["prompt_logprobs"] == 0 and body["max_tokens"] == 1
    if "prompt" in body:
        text = body["prompt"]
    else:
        *before, last = body["messages"]
        text = f"{before or [last]} " + (last["content"] if before else "")
        assert body.get("continue_final_message", False) == bool(before)
    entries = [{str(crc32(token.encode())): {"logprob": -float(len(token))}} for token in words(text)]
    found: list[Any] = [None, *entries[1:]]
    choice = {"index": 0, "finish_reason": "length", "text": "x", "prompt_logprobs": found}
    usage = {"prompt_tokens": len(found), "completion_tokens": 1}
    if "prompt" in body:
        return Reply({"choices": [choice], "usage": usage})
    return Reply({"choices": [{"message": {}}], "prompt_logprobs": found, "usage": usage})


@pytest.mark.parametrize("roles", [True, False])
def test_scores_of_vllm(roles: bool) -> None:
    with FakeServer(vllm) as server, sgl.OpenAICompatible(server.url, "m", dialect="vllm") as backend:
        check(program(roles).run(backend=backend))
        assert len(server.asked) == 1 + len(CHOICES) and backend.token_usage.prompt_tokens > 0


def tgi(asked: Asked) -> Reply:
    assert asked.path == "/generate" and asked.body["parameters"]["decoder_input_details"] is True
    prefill = [
        {"id": crc32(token.encode()), "text": token, "logprob": None if at == 0 else -float(len(token))}
        for at, token in enumerate(words(asked.body["inputs"]))
    ]
    return Reply({"generated_text": "x", "details": {"prefill": prefill, "generated_tokens": 1}})


def test_scores_of_tgi() -> None:
    with FakeServer(tgi) as server:
        check(program(False).run(backend=sgl.OpenAICompatible(server.url, "m", dialect="tgi")))


def test_scores_that_are_missing_are_an_error() -> None:
    reply = {"choices": [{"text": "x"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    with FakeServer(lambda asked: Reply(reply)) as server:
        state = program(False).run(backend=sgl.OpenAICompatible(server.url, "m", dialect="vllm"))
        assert "did not say the log-probabilities" in str(state.error())


def test_choices_without_the_prompt_cannot_be_scored_there() -> None:
    method = sgl.unconditional_likelihood_normalized
    with FakeServer(sglang) as server:
        backend = sgl.OpenAICompatible(server.url, "m", dialect="sglang")
        state = program(False, choices_method=method).run(backend=backend)
        assert "cannot score choices without the prompt" in str(state.error()) and not server.asked
