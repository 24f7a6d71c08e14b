"""What an engine cannot do is an error before anything is sent, and says what would work."""

from __future__ import annotations

from typing import Any

import pytest

import sgl_like as sgl
from tests.support.remote_replies import chat_reply
from tests.support.remote_server import FakeServer

SCHEMA = {"type": "object"}


def program(roles: bool, before: str, **params: Any) -> Any:
    @sgl.function
    def ask(s: Any) -> None:
        gen = before + sgl.gen("x", **params) if before else sgl.gen("x", **params)
        s += sgl.user("Hi") + sgl.assistant(gen) if roles else "Once" + gen

    return ask


REFUSED: list[tuple[str, bool, str, dict[str, Any], str]] = [
    (
        "openai",
        True,
        "",
        {"regex": "a+"},
        "regex='a+' cannot be asked of OpenAI (for messages); it knows json_schema",
    ),
    ("openai", True, "", {"dtype": int}, "regex="),
    ("openai", False, "", {"json_schema": SCHEMA}, "json_schema="),
    ("openai", True, "", {"top_k": 4}, "it knows top_p; top_k is known to vLLM"),
    ("openai", True, "It is", {}, "OpenAI cannot continue a message: 'It is'"),
    ("openai", True, "It is", {}, "num_api_spec_tokens"),
    ("vllm", True, "", {"stop_regex": "a"}, "it knows stop, stop_token_ids; stop_regex is known to SGLang"),
    (
        "vllm-guided",
        True,
        "",
        {"structural_tag": {"structures": [], "triggers": []}},
        "it knows ebnf, json_schema",
    ),
    ("llama.cpp", True, "", {"regex": "(?=a)a"}, "regex"),
    ("llama.cpp", True, "", {"min_tokens": 4}, "min_new_tokens=4"),
    ("ollama", True, "", {"ebnf": "root ::= x"}, "it knows json_schema"),
    ("ollama", True, "", {"return_logprob": True}, "gives no log-probabilities"),
    ("tgi", True, "", {"ebnf": "root ::= x"}, "it knows json_schema, regex"),
    ("tensorrt-llm", True, "It is", {}, "cannot continue"),
    ("triton", False, "", {"json_schema": SCHEMA}, "of Triton Inference Server (for plain text)"),
    ("mlc-llm", True, "", {"regex": "a"}, "it knows json_schema"),
    ("vllm", True, "", {"return_logprob": True, "logprob_start_len": 0}, "logprob_start_len: vLLM"),
    ("vllm", True, "", {"return_logprob": True, "token_ids_logprob": [1]}, "token_ids_logprob: vLLM"),
    ("vllm", True, "", {"top_p": 3.0}, "top_p must be between 0 and 1"),
    ("vllm", True, "", {"json_schema": "{"}, "json_schema is not JSON"),
]


@pytest.mark.parametrize(("dialect", "roles", "before", "params", "message"), REFUSED)
def test_refused_before_the_call(
    dialect: str, roles: bool, before: str, params: dict[str, Any], message: str
) -> None:
    with FakeServer([]) as server, sgl.OpenAICompatible(server.url, "m", dialect=dialect) as backend:
        state = program(roles, before, **params).run(backend=backend)
        assert message in str(state.error())
        assert server.asked == []


def test_what_changes_nothing_is_no_reason_to_refuse() -> None:
    neutral = {"top_k": -1, "min_p": 0.0, "min_tokens": 0, "repetition_penalty": 1.0, "stop_token_ids": []}
    with FakeServer([chat_reply("a")]) as server:
        backend = sgl.OpenAI(
            "gpt-4o", "k", base_url=server.url + "/v1", extra_body={"reasoning_effort": "low"}
        )
        assert program(True, "", **neutral).run(backend=backend)["x"] == "a"
        assert server.asked[0].headers["Authorization"] == "Bearer k"
        assert server.bodies() == [
            {
                "model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": False,
                "max_completion_tokens": 128, "temperature": 1.0, "reasoning_effort": "low",
            }
        ]  # fmt: skip
        backend.shutdown()


def test_roles_that_an_api_does_not_have() -> None:
    @sgl.function
    def ask(s: Any) -> None:
        s += sgl.user("Hi") + sgl.role("tool", "42") + sgl.assistant(sgl.gen("x"))

    with FakeServer([]) as server:
        for backend in (
            sgl.OpenAI("gpt-4o", "k", base_url=server.url),
            sgl.Anthropic("claude-3", "k", base_url=server.url),
        ):
            assert "takes no 'tool' messages of this form" in str(ask.run(backend=backend).error())
            backend.shutdown()
        assert not server.asked
