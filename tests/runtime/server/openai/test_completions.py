"""``/v1/completions`` by the `openai` client, against the engine itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sgl_like.runtime.server.config import ServerConfig
from tests.support.servers import Running, running, shared_engine

PROMPT = "play some"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **options: Any) -> Any:
    return client.completions.create(
        model="tiny", prompt=prompt, **({"max_tokens": 8, "temperature": 0} | options)
    )


def engine_text(prompt: str = PROMPT, **params: Any) -> str:
    return str(shared_engine().generate(prompt, {"max_new_tokens": 8, "temperature": 0} | params)["text"])


def refused(client: openai.OpenAI, prompt: Any = PROMPT, **options: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, prompt, **options)
    return caught.value


def test_texts_are_the_engines(client: openai.OpenAI) -> None:
    answer = complete(client)
    assert answer.choices[0].text == engine_text()
    assert answer.object == "text_completion"
    assert answer.model == "tiny"
    assert answer.choices[0].finish_reason == "length"
    ids = shared_engine().tokenizer.encode(PROMPT)
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == len(ids) + 8
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


def test_the_default_is_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_prompts_have_four_forms(client: openai.OpenAI) -> None:
    encode = shared_engine().tokenizer.encode
    one, two = encode(PROMPT), encode("turn off")
    expected = [engine_text(), engine_text("turn off")]
    for prompt in ([PROMPT, "turn off"], [one, two]):
        choices = complete(client, prompt).choices
        assert [choice.text for choice in choices] == expected
        assert [choice.index for choice in choices] == [0, 1]
    assert complete(client, one).choices[0].text == expected[0]


@pytest.mark.parametrize(
    "prompt", [[], "", [[]], ["a", 1], ["a", [1]], [-1], [4096], [2**31], [True], [1.5], None, {}]
)
def test_other_prompts_are_refused(client: openai.OpenAI, prompt: Any) -> None:
    assert refused(client, prompt).status_code == 400
    assert complete(client).choices[0].text == engine_text()


def test_outputs_of_a_prompt_are_the_engines(client: openai.OpenAI) -> None:
    params = {"max_new_tokens": 8, "temperature": 1.0, "seed": 7, "n": 3}
    expected = [each["text"] for each in shared_engine().generate(PROMPT, params)]
    whole = complete(client, n=3, seed=7, temperature=1.0)
    assert [choice.text for choice in whole.choices] == expected
    texts = ["", "", ""]
    for chunk in complete(client, n=3, seed=7, temperature=1.0, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == expected
    assert whole.usage.prompt_tokens == len(shared_engine().tokenizer.encode(PROMPT))


def test_streams_say_the_same(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == engine_text()
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == ["length"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in complete(client, stream=True))


def test_usage_comes_with_every_chunk_if_asked_for(client: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [
        chunk.usage.completion_tokens for chunk in complete(client, stream=True, stream_options=options)
    ]
    assert counts == sorted(counts)
    assert counts[-1] == 8


def test_the_async_client_is_served_concurrently(server: Running) -> None:
    async def ask() -> set[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            create, prompts = client.completions.create, [PROMPT] * 8
            calls = [create(model="tiny", prompt=each, max_tokens=8, temperature=0) for each in prompts]
            return {answer.choices[0].text for answer in await asyncio.gather(*calls)}

    assert asyncio.run(ask()) == {engine_text()}


def test_logprobs_are_the_engines(client: openai.OpenAI) -> None:
    meta = shared_engine().generate(
        PROMPT, {"max_new_tokens": 8, "temperature": 0}, return_logprob=True, top_logprobs_num=3
    )["meta_info"]
    answer = complete(client, logprobs=3).choices[0]
    given = answer.logprobs
    assert given.token_logprobs == pytest.approx(
        [each[0] for each in meta["output_token_logprobs"]], abs=1e-4
    )
    assert "".join(given.tokens) == answer.text
    assert [len(each) for each in given.top_logprobs] == [3] * 8
    assert all(token in top for token, top in zip(given.tokens, given.top_logprobs, strict=True))
    assert given.text_offset == [len(PROMPT + "".join(given.tokens[:at])) for at in range(8)]
    streamed = [chunk.choices[0].logprobs for chunk in complete(client, logprobs=3, stream=True)]
    assert [token for part in streamed for token in part.tokens] == given.tokens
    assert [offset for part in streamed for offset in part.text_offset] == given.text_offset
    assert complete(client, logprobs=0).choices[0].logprobs.top_logprobs is None


def test_prompts_are_scored(client: openai.OpenAI) -> None:
    answer = complete(client, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert answer.text == PROMPT
    assert "".join(answer.logprobs.tokens) == PROMPT
    assert answer.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in answer.logprobs.token_logprobs[1:])
    assert answer.logprobs.text_offset[0] == 0
    longer = complete(client, echo=True, logprobs=1).choices[0]
    assert longer.text == PROMPT + engine_text()
    assert longer.logprobs.token_logprobs[1:3] == pytest.approx(answer.logprobs.token_logprobs[1:3], abs=1e-4)
    streamed = complete(client, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == PROMPT + engine_text()


def test_prompt_logprobs_as_in_vllm(client: openai.OpenAI) -> None:
    answer = complete(client, extra_body={"prompt_logprobs": 2, "return_token_ids": True}).choices[0]
    ids = shared_engine().tokenizer.encode(PROMPT)
    assert answer.prompt_token_ids == ids
    assert shared_engine().tokenizer.decode(answer.token_ids) == answer.text
    assert answer.prompt_logprobs[0] is None
    for token, entry in zip(ids[1:], answer.prompt_logprobs[1:], strict=True):
        assert str(token) in entry
        assert sorted(each["rank"] for each in entry.values() if each["rank"]) == [1, 2]
    streamed = list(complete(client, stream=True, extra_body={"return_token_ids": True}))
    assert streamed[0].choices[0].prompt_token_ids == ids
    assert [token for chunk in streamed[1:] for token in chunk.choices[0].token_ids] == answer.token_ids


def test_stops(client: openai.OpenAI) -> None:
    text = engine_text()
    stop = text[4:6]
    answer = complete(client, stop=stop).choices[0]
    assert answer.text == text[: text.index(stop)]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
    kept = complete(client, stop=[stop, "never"], extra_body={"include_stop_str_in_output": True}).choices[0]
    assert kept.text == text[: text.index(stop) + 2]
    by_regex = complete(client, extra_body={"stop_regex": re.escape(stop)}).choices[0]
    assert by_regex.text == answer.text
    token = shared_engine().generate(PROMPT, {"max_new_tokens": 8, "temperature": 0})["output_ids"][1]
    by_token = complete(client, extra_body={"stop_token_ids": [token]})
    assert (by_token.usage.completion_tokens, by_token.choices[0].stop_reason) == (2, token)


def test_edits_of_logits(client: openai.OpenAI) -> None:
    first = shared_engine().generate(PROMPT, {"max_new_tokens": 1, "temperature": 0})["output_ids"][0]
    assert complete(client, logit_bias={str(first): -100}).choices[0].text != engine_text()
    for options in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert complete(client, max_tokens=24, **options).choices[0].text == engine_text(
            max_new_tokens=24, **options
        )
    vllm = {"repetition_penalty": 1.5, "bad_words": ["music"], "min_tokens": 20, "top_k": 5, "min_p": 0.1}
    own = {**vllm, "min_new_tokens": 20}
    own.pop("min_tokens")
    assert complete(client, max_tokens=24, extra_body=vllm).choices[0].text == engine_text(
        max_new_tokens=24, **own
    )


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}


TAG = {
    "type": "structural_tag",
    "structures": [{"begin": "<a>", "schema": SCHEMA, "end": "</a>"}],
    "triggers": ["<a>"],
    "at_least_one": True,
    "stop_after_first": True,
}


@pytest.mark.parametrize(
    ("body", "pattern"),
    [
        ({"structured_outputs": {"regex": "[ab]{3}"}}, "[ab]{3}"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"structured_outputs": {"json": SCHEMA}}, r'\{"a":(true|false)\}'),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, r'\{"a":(true|false)\}'),
        ({"structured_outputs": {"grammar": 'root ::= "x" [0-9]'}}, "x[0-9]"),
        ({"structured_outputs": {"json_object": True}}, r"\{.*\}"),
        (
            {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": False}},
            r'\s*\{\s*"a"\s*:\s*(true|false)\s*\}\s*',
        ),
        ({"guided_regex": "[ab]{3}", "guided_decoding_backend": "xgrammar"}, "[ab]{3}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_json": SCHEMA}, r'\{"a":(true|false)\}'),
        ({"guided_grammar": 'start: "x" /[0-9]/'}, "x[0-9]"),
        ({"regex": "[ab]{3}"}, "[ab]{3}"),
        ({"ebnf": 'root ::= "x" [0-9]'}, "x[0-9]"),
        ({"json_schema": json.dumps(SCHEMA)}, r'\{"a":(true|false)\}'),
        ({"response_format": {"type": "text"}}, ".*"),
        ({"response_format": {"type": "json_object"}}, r"\{.*\}"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            r'\{"a":(true|false)\}',
        ),
        ({"response_format": TAG}, r'<a>\{"a":(true|false)\}</a>'),
    ],
)  # fmt: skip
def test_constraints_under_everybodys_names(
    client: openai.OpenAI, body: dict[str, Any], pattern: str
) -> None:
    text = complete(client, max_tokens=64, temperature=1.0, extra_body=body).choices[0].text
    assert re.fullmatch(pattern, text, re.DOTALL), text


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"n": 65}, "n", "between 1 and 64"),
        ({"n": 0}, "n", ">= 1"),
        ({"extra_body": {"n": None}}, "n", "int"),
        ({"n": "5"}, "n", "int"),
        ({"best_of": 2}, "best_of", "best_of must be n=1"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"logprobs": 21}, "logprobs", "between 0 and 20"),
        ({"extra_body": {"prompt_logprobs": 21}}, "prompt_logprobs", "between 0 and 20"),
        ({"temperature": -1}, "temperature", ">= 0"),
        ({"top_p": 2}, "top_p", "<= 1"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"logit_bias": {"4096": 1}}, "logit_bias", "below 4096"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "'x' is not a token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "between -100 and 100"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ({"extra_body": {"use_beam_search": True}}, "use_beam_search", "not supported"),
        ({"extra_body": {"min_tokens": 9}}, "min_tokens", "at most max_tokens=8"),
        ({"extra_body": {"stop_token_ids": [4096]}}, "stop_token_ids", "below 4096"),
        ({"extra_body": {"regex": "a", "ebnf": "b"}}, "ebnf", "cannot be given together"),
        ({"extra_body": {"structured_outputs": {}}}, "structured_outputs", "one constraint"),
        ({"extra_body": {"structured_outputs": {"json": {"type": "x"}}}}, None, "type"),
        ({"extra_body": {"regex": "(?=a"}}, None, "regex"),
        ({"extra_body": {"response_format": {"type": "json_schema"}}}, "response_format.json_schema", "schema"),
        ({"extra_body": {"request_id": "a b"}}, "request_id", "128"),
        ({"extra_body": {"cache_salt": ""}}, "cache_salt", "length"),
        ({"max_tokens": 5000}, "prompt", "maximum context length is 1024 tokens"),
        ({"prompt": "a " * 2000}, "prompt", "maximum context length"),
        ({"prompt": "a" * 200_000}, "prompt", "maximum context length"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    client: openai.OpenAI, options: dict[str, Any], param: str | None, message: str
) -> None:
    error = refused(client, **options)
    assert error.param == param
    assert message in error.message
    assert "context length" not in message or error.code == "context_length_exceeded"


def test_a_budget_too_small_for_a_constraint_is_refused_before_a_stream_begins(client: openai.OpenAI) -> None:
    error = refused(client, max_tokens=2, extra_body={"regex": "[a-z]{40}"}, stream=True)
    assert "max_new_tokens=2 is too small" in error.message


def test_prompts_are_truncated_on_the_left(client: openai.OpenAI) -> None:
    ids = shared_engine().tokenizer.encode("one two three " + PROMPT)
    kept = len(shared_engine().tokenizer.encode(PROMPT))
    body = {"truncate_prompt_tokens": kept, "return_token_ids": True}
    assert complete(client, ids, extra_body=body).choices[0].prompt_token_ids == ids[-kept:]
    long = complete(client, "word " * 1500, extra_body={"truncate_prompt_tokens": -1})
    assert long.usage.prompt_tokens == 1024 - 8


def test_names_of_models(server: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4", prompt="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").max_model_len == 1024  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with running(ServerConfig(any_model=True)) as lenient:
        other = openai.OpenAI(base_url=f"{lenient.url}/v1", api_key="none", max_retries=0)
        assert (
            other.completions.create(model="gpt-4", prompt=PROMPT, max_tokens=8, temperature=0).model
            == "tiny"
        )


def test_unknown_fields_are_ignored_unless_the_server_is_strict(client: openai.OpenAI) -> None:
    body = {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "unheard_of": 1}
    assert complete(client, extra_body=body).choices[0].text == engine_text()
    with running(ServerConfig(strict=True)) as strict:
        other = openai.OpenAI(base_url=f"{strict.url}/v1", api_key="none", max_retries=0)
        assert refused(other, extra_body=body).code == "unknown_field"
        del body["unheard_of"]
        assert complete(other, extra_body=body).choices[0].text == engine_text()


def test_ids_of_answers_may_be_the_clients(client: openai.OpenAI) -> None:
    assert complete(client, extra_body={"request_id": "mine-1"}).id == "cmpl-mine-1"
    assert complete(client).id != complete(client).id


def test_cached_prefixes_are_kept_apart_by_salt(client: openai.OpenAI) -> None:
    prompt = "a prompt that nobody else has, long enough to be kept for a while"
    salts = ["one", "one", "two"]
    cached = [
        complete(client, prompt, extra_body={"cache_salt": salt}).usage.prompt_tokens_details.cached_tokens
        for salt in salts
    ]
    assert cached[0] == cached[2] == 0 < cached[1]
