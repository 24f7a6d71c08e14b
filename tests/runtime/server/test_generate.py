"""SGLang's ``/generate`` over HTTP: what comes is what the engine itself gives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.native.bodies import GenerateBody, SamplingFields
from tests.support.local_stub import stub
from tests.support.servers import Running, running, shared_engine

PROMPT = "Once upon a time"
GREEDY = {"max_new_tokens": 12, "temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


def call(
    server: Running,
    body: Any,
    path: str = "/generate",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    parts = urlsplit(server.url)
    connection = HTTPConnection(str(parts.hostname), parts.port)
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} | dict(headers or {}))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def generate(server: Running, **body: Any) -> Any:
    status, text = call(server, body)
    assert status == 200, text
    return json.loads(text)


def events(server: Running, **body: Any) -> list[Any]:
    status, text = call(server, body | {"stream": True})
    assert status == 200, text
    *found, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in found]


def refused(server: Running, **body: Any) -> str:
    status, text = call(server, body)
    assert status == 400, text
    return str(json.loads(text)["error"]["message"])


def same_but_for_times(found: Any, expected: Any) -> None:
    """Of results: they agree, but for ids, times and what the cache had."""
    found, expected = json.loads(json.dumps(found)), json.loads(json.dumps(expected))
    for each in (found, expected):
        for name in ("id", "e2e_latency", "cached_tokens", "computed_tokens", "forced_positions"):
            each["meta_info"].pop(name, None)
    assert found == expected


@pytest.mark.parametrize(
    "params",
    [
        GREEDY,
        GREEDY | {"regex": "[a-z]{3,6}"},
        GREEDY | {"json_schema": json.dumps(SCHEMA), "max_new_tokens": 60},
        GREEDY | {"json_schema": SCHEMA, "max_new_tokens": 60},
        GREEDY | {"ebnf": 'root ::= "yes" | "no"'},
        {"temperature": 1.0, "sampling_seed": 4, "max_new_tokens": 20, "top_p": 0.9, "top_k": 40, "min_p": 0.01},
        GREEDY | {"frequency_penalty": 1.0, "presence_penalty": 0.4, "repetition_penalty": 1.2, "min_new_tokens": 5},
        GREEDY | {"stop": ["e"], "no_stop_trim": True},
        GREEDY | {"stop_regex": "[aeiou]", "skip_special_tokens": False, "ignore_eos": True},
        GREEDY | {"logit_bias": {"65": 50}, "stop_token_ids": [66]},
    ],
)  # fmt: skip
def test_outputs_are_the_engines(server: Running, params: dict[str, Any]) -> None:
    expected = shared_engine().generate(PROMPT, params)
    same_but_for_times(generate(server, text=PROMPT, sampling_params=params), expected)
    last = events(server, text=PROMPT, sampling_params=params)[-1]
    same_but_for_times(last, expected)
    ids = shared_engine().tokenizer.encode(PROMPT)
    same_but_for_times(generate(server, input_ids=ids, sampling_params=params), expected)


def test_what_sglangs_clients_send_besides_is_accepted(server: Running) -> None:
    body = {
        "text": PROMPT, "sampling_params": {**GREEDY, "spaces_between_special_tokens": True, "custom_params": {"a": 1}},
        "lora_path": None, "image_data": None, "return_logprob": False, "logprob_start_len": -1, "modalities": [],
        "stream": False, "return_hidden_states": False, "bootstrap_host": None, "log_metrics": True,
    }  # fmt: skip
    status, text = call(server, body, method="PUT")
    assert status == 200
    same_but_for_times(json.loads(text), shared_engine().generate(PROMPT, GREEDY))


def test_batches(server: Running) -> None:
    prompts = [PROMPT, "The", "She said: "]
    params = [GREEDY, GREEDY | {"max_new_tokens": 3}, GREEDY | {"regex": "[0-9]{4}"}]
    expected = shared_engine().generate(prompts, params)
    found = generate(server, text=prompts, sampling_params=params)
    for a, b in zip(found, expected, strict=True):
        same_but_for_times({k: v for k, v in a.items() if k != "index"}, b)
    assert [each["index"] for each in found] == [0, 1, 2]
    ids = [shared_engine().tokenizer.encode(prompt) for prompt in prompts]
    again = generate(server, input_ids=ids, sampling_params=params, rid=["a", "b", "c"])
    assert [each["text"] for each in again] == [each["text"] for each in expected]
    assert [each["meta_info"]["id"] for each in again] == ["a", "b", "c"]
    assert len(generate(server, text=[PROMPT], sampling_params=GREEDY)) == 1


def test_several_outputs_of_a_prompt(server: Running) -> None:
    params = {"temperature": 1.0, "sampling_seed": 3, "max_new_tokens": 6, "n": 3}
    expected = shared_engine().generate(PROMPT, params)
    found = generate(server, text=PROMPT, sampling_params=params, rid="x")
    assert [each["output_ids"] for each in found] == [each["output_ids"] for each in expected]
    assert [each["meta_info"]["id"] for each in found] == ["x_0", "x_1", "x_2"]
    streamed = events(server, text=PROMPT, sampling_params=params)
    last = {each["index"]: each["output_ids"] for each in streamed}
    assert [last[at] for at in range(3)] == [each["output_ids"] for each in expected]


def test_events_have_everything_so_far_or_only_what_is_new(server: Running) -> None:
    params = GREEDY | {"json_schema": SCHEMA, "max_new_tokens": 60}
    asked = {"text": PROMPT, "sampling_params": params, "return_logprob": True, "logprob_start_len": 0}
    whole = generate(server, **asked)
    cumulative = events(server, **asked)
    assert all(b["text"].startswith(a["text"]) for a, b in pairwise(cumulative))
    assert [each["meta_info"]["finish_reason"] is None for each in cumulative] == [True] * (
        len(cumulative) - 1
    ) + [False]
    new = events(server, **asked, incremental_streaming_output=True)
    assert "".join(each["text"] for each in new) == whole["text"]
    assert [token for each in new for token in each["output_ids"]] == whole["output_ids"]
    for name in ("input_token_logprobs", "output_token_logprobs"):
        joined = [place[1] for each in new for place in each["meta_info"][name]]
        assert joined == [place[1] for place in whole["meta_info"][name]]
    done, places = 0, list[int]()
    for each in new:
        places += [done + at for at in each["meta_info"].get("forced_positions", ())]
        done += len(each["output_ids"])
    assert places == whole["meta_info"]["forced_positions"]
    assert len(places) == whole["meta_info"]["forced_tokens"] > 0


def test_log_probabilities(server: Running) -> None:
    asked = {
        "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 3, "token_ids_logprob": [5, 6],
        "return_text_in_logprobs": True,
    }  # fmt: skip
    expected = shared_engine().generate(PROMPT, GREEDY, **asked)
    found = generate(server, text=PROMPT, sampling_params=GREEDY, **asked)
    for name in (
        "input_token_logprobs",
        "output_token_logprobs",
        "output_top_logprobs",
        "input_token_ids_logprobs",
    ):
        a, b = found["meta_info"][name], json.loads(json.dumps(expected["meta_info"][name]))
        assert [ids_of(place) for place in a] == [ids_of(place) for place in b]
    assert found["meta_info"]["output_token_logprobs"][0][2] is not None
    mixed = generate(
        server, text=[PROMPT, "The"], sampling_params=GREEDY, return_logprob=[True, False],
        top_logprobs_num=[2, 0], token_ids_logprob=[[1], None],
    )  # fmt: skip
    assert len(mixed[0]["meta_info"]["output_top_logprobs"][0]) == 2
    assert "output_token_logprobs" not in mixed[1]["meta_info"]


def test_long_lists_are_not_sent_with_every_token(server: Running) -> None:
    asked = {
        "text": PROMPT, "sampling_params": {"max_new_tokens": 400, "temperature": 0, "ignore_eos": True},
        "return_logprob": True, "top_logprobs_num": 20,
    }  # fmt: skip
    found = events(server, **asked)
    places = [len(event["meta_info"]["output_token_logprobs"]) for event in found]
    assert places[-1] == len(found[-1]["output_ids"]) == 400
    assert sum(places) < 30 * 400, "in every event they would be 80,000"
    new = events(server, **asked, incremental_streaming_output=True)
    assert sum(len(event["meta_info"]["output_token_logprobs"]) for event in new) == 400


def ids_of(place: Any) -> Any:
    if place is None:
        return None
    return [ids_of(each) for each in place] if isinstance(place[0], list) else place[1:]


def test_choices(server: Running) -> None:
    tokenizer = shared_engine().tokenizer
    texts = [" there", " they", " the end"]
    prompt = tokenizer.encode("Once upon a time")
    rows = [tokenizer.encode("Once upon a time" + text)[len(prompt) :] for text in texts]
    by_text = generate(server, text="Once upon a time", choices=texts)
    by_ids = generate(server, input_ids=prompt, choices=rows)
    found = by_text["meta_info"]["choice_logprobs"]
    assert [len(each) for each in found] == [len(row) for row in rows]
    for a, b in zip(found, by_ids["meta_info"]["choice_logprobs"], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    for row, values in zip(rows, found, strict=True):
        one = generate(
            server, input_ids=prompt + row, sampling_params={"max_new_tokens": 0}, return_logprob=True,
            logprob_start_len=len(prompt) - 1,
        )  # fmt: skip
        told = [place[0] for place in one["meta_info"]["input_token_logprobs"][1:]]
        assert values == pytest.approx(told, abs=1e-4)


@pytest.mark.parametrize(
    "params",
    [
        GREEDY,
        {"temperature": 1.0, "sampling_seed": 7, "max_new_tokens": 20},
        {"temperature": 1.0, "seed": 1, "json_schema": SCHEMA, "max_new_tokens": 60},
    ],
)
def test_resumed_outputs_go_on(server: Running, params: dict[str, Any]) -> None:
    asked = {"text": PROMPT, "sampling_params": params, "return_logprob": True}
    streamed = events(server, **asked)
    whole = streamed[-1]
    for event in streamed[:-1]:
        known, scored = event["output_ids"], len(event["meta_info"]["output_token_logprobs"])
        rest = generate(server, **asked, resume_ids=known, resume_logprobs=scored)
        assert known + rest["output_ids"] == whole["output_ids"]
        assert event["text"] + rest["text"] == whole["text"]
        for name in ("prompt_tokens", "completion_tokens", "finish_reason"):
            assert rest["meta_info"][name] == whole["meta_info"][name]
        ids = [place[1] for place in event["meta_info"]["output_token_logprobs"]]
        ids += [place[1] for place in rest["meta_info"]["output_token_logprobs"]]
        assert ids == whole["output_ids"]
    both = generate(
        server, text=[PROMPT, PROMPT], sampling_params=params,
        resume_ids=[streamed[0]["output_ids"], streamed[1]["output_ids"]],
    )  # fmt: skip
    assert [each["output_ids"] for each in both] == [
        whole["output_ids"][len(streamed[at]["output_ids"]) :] for at in range(2)
    ]


def test_the_engine_without_a_model_goes_on_too() -> None:
    asked = {"text": PROMPT, "sampling_params": {"max_new_tokens": 9}, "return_logprob": True}
    with stub(step=0.0005) as engine, running(engine=engine) as server:
        whole = generate(server, **asked)
        for cut in range(1, 10):
            known = whole["output_ids"][:cut]
            rest = generate(server, **asked, resume_ids=known)
            streamed = events(server, **asked, resume_ids=known)[-1]
            assert known + rest["output_ids"] == known + streamed["output_ids"] == whole["output_ids"]
            assert whole["text"].endswith(rest["text"]) and rest["text"] == streamed["text"]
            for name in ("prompt_tokens", "completion_tokens"):
                assert rest["meta_info"][name] == whole["meta_info"][name]


def test_salts_keep_prefixes_apart(server: Running) -> None:
    prompt = "A prompt for the test of salts, " * 5
    assert shared_engine().flush_cache()
    cached = [
        generate(server, text=prompt, sampling_params={"max_new_tokens": 1}, **salt)["meta_info"][
            "cached_tokens"
        ]
        for salt in ({}, {}, {"cache_salt": "a"}, {"extra_key": "b"}, {"cache_salt": "a"}, {"extra_key": "a"})
    ]
    assert [count > 0 for count in cached] == [False, True, False, False, True, True]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "give either text or input_ids"),
        ({"text": "a", "input_ids": [1]}, "exactly one"),
        ({"text": ""}, "at least one token"),
        ({"text": []}, "text must not be empty"),
        ({"input_ids": []}, "at least one token"),
        ({"input_ids": [[]]}, "input_ids must have at least one token"),
        ({"input_ids": [-1]}, "outside the vocabulary"),
        ({"input_ids": [10**6]}, "outside the vocabulary"),
        ({"input_ids": [2**31]}, "outside the vocabulary"),
        ({"input_ids": [2**80]}, "input_ids"),
        ({"input_ids": [True]}, "Expected `int"),
        ({"input_ids": [1.5]}, "Expected `int"),
        ({"input_ids": [1, [2]]}, "or a list of such lists"),
        ({"text": "a", "sampling_params": {"n": 65}}, "n must be an integer between 1 and 64"),
        ({"text": "a", "sampling_params": {"n": 0}}, "between 1 and 64"),
        ({"text": ["a"] * 9, "sampling_params": {"n": 64}}, "more than the 256 outputs"),
        ({"text": ["a", "b"], "sampling_params": [{"n": 2}, {"n": 1}]}, "n must be the same"),
        ({"text": ["a", "b"], "sampling_params": [{}]}, "a list of 1 for 2 prompts"),
        ({"text": "a", "sampling_params": [{}]}, "there is a single prompt"),
        ({"text": "a", "sampling_params": {"tempreature": 1}}, "unknown field `tempreature`"),
        ({"text": "a", "sampling_params": {"temperature": -1}}, "temperature must be"),
        ({"text": "a", "sampling_params": {"top_p": 2}}, "top_p must be"),
        ({"text": "a", "sampling_params": {"top_k": 2**70}}, "top_k"),
        ({"text": "a", "sampling_params": {"regex": "(", "ebnf": "x"}}, "cannot be given together"),
        ({"text": "a", "sampling_params": {"regex": "("}}, "regex"),
        ({"text": "a", "sampling_params": {"json_schema": "{"}}, "json_schema is not JSON"),
        ({"text": "a", "sampling_params": {"stop_token_ids": [-1]}}, "stop_token_ids"),
        ({"text": "a", "sampling_params": {"logit_bias": {"x": 1}}}, "is not a token id"),
        ({"text": "a", "sampling_params": {"sampling_seed": 1, "seed": 2}}, "are the same"),
        ({"text": "a", "sampling_params": {"beam_width": 4}}, "no beam search"),
        ({"text": "a", "sampling_params": {"max_new_tokens": 10**9}}, "maximum context length"),
        ({"text": "a", "return_logprob": True, "top_logprobs_num": 21}, "between 0 and 20"),
        ({"text": "a", "return_logprob": True, "top_logprobs_num": 10**9}, "between 0 and 20"),
        ({"text": "a", "return_logprob": True, "logprob_start_len": 10**6}, "at most the prompt's length"),
        ({"text": "a", "return_logprob": True, "token_ids_logprob": [-1]}, "outside the vocabulary"),
        ({"text": "a", "return_logprob": True, "token_ids_logprob": [1, [2]]}, "must be token ids"),
        ({"text": "a", "image_data": "x.png"}, "image_data is not supported"),
        ({"text": "a", "lora_path": "x"}, "lora_path is not supported"),
        ({"text": "a", "input_embeds": [[0.1]]}, "input_embeds is not supported"),
        ({"text": "a", "custom_logit_processor": "x"}, "runs no code"),
        ({"text": "a", "session_params": {"id": "x"}}, "session_params is not supported"),
        ({"text": "a", "return_hidden_states": True}, "return_hidden_states is not supported"),
        ({"text": "a", "deadline": 0}, "deadline"),
        ({"text": "a", "rid": "x" * 300}, "rid"),
        ({"text": "a", "choices": []}, "choices must be a list of 1 to 256"),
        ({"text": "a", "choices": ["x", [1]]}, "all texts or all token ids"),
        ({"text": ["a", "b"], "choices": ["x"]}, "a single prompt"),
        ({"input_ids": [1], "choices": ["x"]}, "need a prompt that is text"),
        ({"input_ids": [1], "choices": [[]]}, "at least one token"),
        ({"text": "a", "choices": ["x"], "stream": True}, "there is no stream"),
        ({"text": "a", "resume_ids": [-1]}, "outside the vocabulary"),
        ({"text": "a", "resume_ids": [[1]]}, "there is a single prompt"),
        ({"text": ["a", "b"], "resume_ids": [1]}, "a list of lists"),
        ({"text": "a", "sampling_params": {"n": 2}, "resume_ids": [1]}, "of one output"),
        ({"text": "a", "sampling_params": {"max_new_tokens": 1}, "resume_ids": [7, 7]}, "more than max_new_tokens"),
        ({"text": "a", "resume_ids": [7], "resume_logprobs": 2}, "at most 1"),
        ({"text": "a", "sampling_params": {"regex": "b+"}, "resume_ids": [71]}, "does not allow"),
    ],
)  # fmt: skip
def test_what_is_refused(server: Running, body: dict[str, Any], message: str) -> None:
    assert message in refused(server, **body)
    status, _ = call(server, body | {"stream": True} if "choices" not in body else body)
    assert status == 400


def test_an_output_to_the_end_of_the_context(server: Running) -> None:
    context = shared_engine().get_server_info()["context_length"]
    ids = [70] * (context - 5)
    found = generate(server, input_ids=ids, sampling_params={"max_new_tokens": None, "ignore_eos": True})
    assert (len(found["output_ids"]), found["meta_info"]["finish_reason"]["type"]) == (5, "length")


def test_unknown_fields_are_refused_where_that_is_asked_for() -> None:
    with running(ServerConfig(strict=True)) as server:
        assert "unknown field 'txt'" in refused(server, text="a", txt="b")


ODD: list[Any] = [
    -1, 0, 1, 2**31, 2**63, 2**80, 0.5, -0.5, 1e308, "", "x", "\x00", "1", True, False, None, [], [-1], [2**40],
    ["x"], [[]], [None], {}, {"x": 1}, {"-1": 1}, {"99999999": 1}, {"5": 1e9}, {"5": None}, {"type": "object"},
]  # fmt: skip


@pytest.mark.parametrize("where", ["body", "sampling_params"])
def test_no_value_of_any_field_is_the_servers_fault(server: Running, where: str) -> None:
    fields = msgspec.structs.fields(GenerateBody if where == "body" else SamplingFields)
    seen = Counter[int]()
    for field in fields:
        for value in ODD:
            body: dict[str, Any] = {"text": "a", "sampling_params": {"max_new_tokens": 2}}
            if where == "body":
                if field.name in ("input_ids", "choices"):
                    del body["text"]
                body[field.name] = value
            else:
                body["sampling_params"][field.name] = value
            status, text = call(server, body)
            assert status == 200 or 400 <= status < 500, (field.name, value, text)
            seen[status // 100] += 1
    assert seen[2] > 50 and seen[4] > 200
    assert generate(server, text=PROMPT, sampling_params=GREEDY)["output_ids"]
